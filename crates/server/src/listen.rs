//! Where clients connect: unix sockets, TCP, sockets from systemd; and the loop that accepts them.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

use crate::gate::Peer;
use crate::service::{App, answer};
use crate::tap::{Socket, tap};

/// Mode of a unix socket: whoever may write to it owns the machine.
const SOCKET_MODE: u32 = 0o660;
/// How long a client may take for its headers, and how long a connection may be idle (dockerd: 5 minutes).
const HEADER_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// Bytes of a connection's buffer; the longest header that is accepted.
const MAX_BUFFER_BYTES: usize = 64 << 10;
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
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

impl Listener {
    /// Binds a unix socket of mode 0660. A file left by a daemon that is gone is replaced. Needs a tokio runtime.
    ///
    /// # Errors
    /// `AddrInUse` when another daemon answers there, or when something else than a socket is there.
    pub fn unix(path: &Path, group: Option<u32>) -> io::Result<Self> {
        refuse_living(path)?;
        // Bound under another name: at its own name the socket never has other permissions than the final ones.
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let hidden = PathBuf::from(hidden);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let socket = UnixListener::bind(&hidden)?;
        let placed = fs::set_permissions(&hidden, fs::Permissions::from_mode(SOCKET_MODE))
            .and_then(|()| group.map_or(Ok(()), |group| chown(&hidden, None, Some(group))))
            .and_then(|()| fs::rename(&hidden, path));
        if let Err(error) = placed {
            fs::remove_file(&hidden)?;
            return Err(error);
        }
        Ok(Self {
            socket: Bound::Unix(socket),
            path: Some(path.to_owned()),
        })
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
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(taken("another daemon answers there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
    }
}

/// Serves clients on all listeners until `stop`, then ends connections that are idle and gives the others a moment.
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
    let Some(graceful) = Arc::into_inner(graceful) else {
        return;
    };
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::debug!("connections with streams were cut at the end");
    }
}

async fn accept_loop(
    app: Arc<App>,
    listener: Listener,
    stop: CancellationToken,
    graceful: Arc<GracefulShutdown>,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, peer)) => connection(&app, socket, peer, &graceful),
            Err(error) => {
                // ECONNABORTED and its like are the client's; EMFILE and ENOMEM pass.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn connection(app: &Arc<App>, socket: Socket, peer: Peer, graceful: &GracefulShutdown) {
    let (tap, io) = tap(socket);
    let app = Arc::clone(app);
    let service = service_fn(move |request| answer(Arc::clone(&app), peer, tap.clone(), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .title_case_headers(true);
    let connection = graceful.watch(builder.serve_connection(io, service).into_owned());
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
    });
}
