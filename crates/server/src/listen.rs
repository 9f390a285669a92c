//! Where clients connect: unix sockets, TCP, sockets from systemd; and the loop that accepts them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;
use crate::gate::Peer;
use crate::respond::refusal;
use crate::service::{App, answer, begin};
use crate::tap::{Socket, tap};

/// Mode of a unix socket: whoever may write to it owns the machine.
const SOCKET_MODE: u32 = 0o660;

/// Of directories made for a socket.
const DIRECTORY_MODE: u32 = 0o711;
/// How long a client may take for its headers, and how long a connection may be idle (dockerd: 5 minutes).
const HEADER_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a stranger may take to be told that it is one.
const STRANGER_TIMEOUT: Duration = Duration::from_secs(5);
/// How many strangers are told at once; more are hung up on. Each costs a descriptor.
const STRANGERS_MAX: usize = 64;
/// What is taken from a stranger at most, so that our answer is not lost to a reset: a request's head, no body.
const STRANGER_BYTES: usize = 64 << 10;
/// Bytes of a connection's buffer; the longest header that is accepted.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long the socket of a daemon that was just killed is waited for: a child that it was starting has a copy of it
/// until its exec.
const CHILD_PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const CHILD_INTERVAL: Duration = Duration::from_millis(10);
/// How long requests under way may take when the daemon ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// One place where clients connect.
#[derive(Debug)]
pub struct Listener {
    socket: Bound,
    /// Removed at the end.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Bound {
    Unix(UnixListener),
    Tcp(TcpListener),
}

/// Makes the directories above a socket or a pidfile, as open as a socket in them needs it and no more: the exec root is
/// made here first.
pub(crate) fn make_above(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    match path.parent() {
        Some(parent) => fs::DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(parent),
        None => Ok(()),
    }
}

impl Listener {
    /// Binds a unix socket of mode 0660. A file left by a daemon that is gone is replaced. Needs a tokio runtime.
    ///
    /// # Errors
    /// `AddrInUse` when another daemon answers there, or when something else than a socket is there.
    pub fn unix(path: &Path, group: Option<u32>) -> io::Result<Self> {
        refuse_living(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        make_above(path)?;
        // Bound under another name, and of its mode before it listens: whatever the umask is, nobody can connect who
        // may not.
        let mut hidden_name = name.to_owned();
        hidden_name.push(format!(".{}", std::process::id()));
        let hidden = parent.join(&hidden_name);
        let directory = fs::File::open(parent)?;
        let socket = sys::socket::listen_at(directory.as_fd(), &hidden_name, SOCKET_MODE)?;
        let placed = sys::socket::widen_backlog(&socket)
            .and_then(|()| group.map_or(Ok(()), |group| chown(&hidden, None, Some(group))))
            .and_then(|()| fs::rename(&hidden, path))
            .and_then(|()| UnixListener::from_std(socket));
        match placed {
            Ok(socket) => Ok(Self {
                socket: Bound::Unix(socket),
                path: Some(path.to_owned()),
            }),
            Err(error) => {
                fs::remove_file(&hidden)?;
                Err(error)
            }
        }
    }

    /// Binds a TCP address. Needs a tokio runtime.
    ///
    /// # Errors
    /// The errno of bind.
    pub fn tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: Bound::Tcp(TcpListener::from_std(socket)?),
            path: None,
        })
    }

    /// Takes over a listening socket that systemd opened. Needs a tokio runtime.
    ///
    /// # Errors
    /// When it is neither a unix nor a TCP socket.
    pub fn activated(fd: OwnedFd) -> io::Result<Self> {
        let unix = std::os::unix::net::UnixListener::from(fd.try_clone()?);
        let socket = if unix.local_addr().is_ok() {
            unix.set_nonblocking(true)?;
            Bound::Unix(UnixListener::from_std(unix)?)
        } else {
            let tcp = std::net::TcpListener::from(fd);
            tcp.local_addr()?;
            tcp.set_nonblocking(true)?;
            Bound::Tcp(TcpListener::from_std(tcp)?)
        };
        Ok(Self { socket, path: None })
    }

    /// Whether it is the socket that stands at `path`, under whatever name the directory has.
    #[must_use]
    pub fn stands_at(&self, path: &Path) -> bool {
        let own = match (&self.path, &self.socket) {
            (Some(own), _) => Some(own.clone()),
            (None, Bound::Unix(socket)) => socket
                .local_addr()
                .ok()
                .and_then(|address| Some(address.as_pathname()?.to_owned())),
            (None, Bound::Tcp(_)) => None,
        };
        match (own.map(|own| resolved(&own)), resolved(path)) {
            (Some(Ok(own)), Ok(path)) => own == path,
            _ => false,
        }
    }

    /// The TCP address it is bound to.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Bound::Unix(_) => None,
            Bound::Tcp(socket) => socket.local_addr().ok(),
        }
    }

    async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.socket {
            Bound::Unix(listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Socket::Unix(socket), Peer::Unix))
            }
            Bound::Tcp(listener) => {
                let (socket, from) = listener.accept().await?;
                socket.set_nodelay(true)?;
                sys::socket::keep_alive(socket.as_fd())?;
                Ok((Socket::Tcp(socket), Peer::Plaintext(from)))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.path.as_ref().map(fs::remove_file) {
            tracing::debug!(%error, "the socket's file was gone already");
        }
    }
}

/// A path with the symbolic links of its directory resolved: `/var/run` is `/run`.
fn resolved(path: &Path) -> io::Result<PathBuf> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Removes a socket on which nobody listens any more.
fn refuse_living(path: &Path) -> io::Result<()> {
    let taken = |why: &str| {
        io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{}: {why}", path.display()),
        )
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(taken("is not a socket")),
        Ok(_) => {}
    }
    let give_up = Instant::now() + CHILD_PATIENCE;
    loop {
        match std::os::unix::net::UnixStream::connect(path) {
            Ok(stream) if is_orphan(&stream) && Instant::now() < give_up => {
                std::thread::sleep(CHILD_INTERVAL);
            }
            Ok(_) => return Err(taken("another daemon answers there")),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                return fs::remove_file(path);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether the process that began to listen is gone and only a copy of its socket is left.
fn is_orphan(stream: &std::os::unix::net::UnixStream) -> bool {
    sys::socket::peer(stream.as_fd())
        .is_ok_and(|listener| sys::process::open_pidfd(listener.pid).is_err())
}

/// Serves clients on all listeners until `stop`, then ends connections that are idle and streams that would go on, and
/// gives the others a moment.
pub async fn serve(app: Arc<App>, listeners: Vec<Listener>, stop: CancellationToken) {
    let graceful = Arc::new(GracefulShutdown::new());
    let accepting = tokio_util::task::TaskTracker::new();
    for listener in listeners {
        accepting.spawn(accept_loop(
            Arc::clone(&app),
            listener,
            stop.clone(),
            Arc::clone(&graceful),
        ));
    }
    accepting.close();
    accepting.wait().await;
    app.stop();
    let Some(graceful) = Arc::into_inner(graceful) else {
        return;
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("connections were cut at the end");
    }
    if tokio::time::timeout(DRAIN_TIMEOUT, app.finish())
        .await
        .is_err()
    {
        tracing::warn!("state changes were still under way at the end");
    }
}

async fn accept_loop(
    app: Arc<App>,
    listener: Listener,
    stop: CancellationToken,
    graceful: Arc<GracefulShutdown>,
) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => match app.gate().admit(peer) {
                Ok(()) => connection(&app, socket, peer, &graceful),
                Err(failure) => turn_away(&app, socket, failure, &strangers),
            },
            Err(error) => {
                // ECONNABORTED and its like are the client's; EMFILE and ENOMEM pass.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Tells a stranger what would work. Nothing it sends is parsed.
fn turn_away(app: &App, socket: Socket, failure: Failure, strangers: &Arc<Semaphore>) {
    let Ok(permit) = Arc::clone(strangers).try_acquire_owned() else {
        return;
    };
    app.tasks().spawn(async move {
        let told = tokio::time::timeout(STRANGER_TIMEOUT, tell(&socket, failure)).await;
        tracing::debug!(?told, "a stranger was turned away");
        drop(permit);
    });
}

async fn tell(socket: &Socket, failure: Failure) -> io::Result<()> {
    let mut buffer = vec![0; STRANGER_BYTES];
    // A client takes an answer only to what it has asked.
    let mut taken = socket.read(&mut buffer).await?;
    let body = failure.body();
    let head = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        failure.status.as_u16(),
        failure.status.canonical_reason().unwrap_or_default(),
        body.len()
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(&body).await?;
    socket.shutdown_write()?;
    while taken < STRANGER_BYTES {
        match socket.read(&mut buffer[taken..]).await? {
            0 => break,
            more => taken += more,
        }
    }
    Ok(())
}

/// Returns when no request has begun in time: hyper's own timer starts only once it knows which HTTP it is.
async fn silence(begun: CancellationToken, limit: Duration) {
    if tokio::time::timeout(limit, begun.cancelled()).await.is_ok() {
        std::future::pending().await
    }
}

fn connection(app: &Arc<App>, socket: Socket, peer: Peer, graceful: &GracefulShutdown) {
    let (tap, io) = tap(socket);
    let begun = CancellationToken::new();
    let (service_app, first) = (Arc::clone(app), begun.clone());
    let service = service_fn(move |request| {
        first.cancel();
        let refused = begin(&tap, &request);
        let (app, tap) = (Arc::clone(&service_app), tap.clone());
        async move {
            match refused {
                Some(words) => Ok(refusal(words)),
                None => answer(app, peer, tap, request).await,
            }
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .title_case_headers(true);
    let connection = graceful.watch(builder.serve_connection(io, service).into_owned());
    app.connections().spawn(async move {
        tokio::select! {
            ended = connection => if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            },
            () = silence(begun, HEADER_TIMEOUT) => tracing::debug!("a client never said anything"),
        }
    });
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::gate::Gate;

    #[tokio::test]
    async fn a_stranger_is_told_at_its_first_byte_and_let_go() {
        let gate = Gate::default();
        let from = |address: &str| Peer::Plaintext(address.parse().unwrap());
        assert!(gate.admit(Peer::Unix).is_ok() && gate.admit(from("127.0.0.1:1")).is_ok());
        let failure = gate.admit(from("192.0.2.7:1")).unwrap_err();
        let (mut client, ours) = tokio::net::UnixStream::pair().unwrap();
        let telling = tokio::spawn(async move { tell(&Socket::Unix(ours), failure).await });
        // No whole head, and a body that is never sent.
        client
            .write_all(b"POST /images/load HTTP/1.1\r\nContent-Length: 99")
            .await
            .unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 401 Unauthorized\r\n"),
            "{answer}"
        );
        assert!(answer.contains("Connection: close\r\n"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(
            body.starts_with(r#"{"message":"plaintext connections"#),
            "{body}"
        );
        drop(client);
        telling.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_never_asks_is_let_go_and_who_asks_stays() {
        let soon = Duration::from_millis(50);
        silence(CancellationToken::new(), soon).await;
        let begun = CancellationToken::new();
        begun.cancel();
        let stays = tokio::time::timeout(soon * 4, silence(begun, soon)).await;
        assert!(stays.is_err());
    }

    #[tokio::test]
    async fn a_socket_never_has_other_permissions_than_its_own() {
        let dir = tempfile::tempdir().unwrap();
        // Longer than what a socket's address holds.
        let deep = dir.path().join("d".repeat(120));
        let path = deep.join("s.sock");
        let listener = Listener::unix(&path, None).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, SOCKET_MODE);
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
        drop(listener);
        assert!(!path.exists());
    }
}
