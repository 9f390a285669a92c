//! Unix sockets where std falls short: descriptors beside bytes, message pairs, the peer's identity, long paths.
//!
//! THE one way to hand over descriptors is [`send_with_fds`], and [`receive_with_fds`] to take them; a
//! [`message_pair`] joins a process and the one it makes. Plain reading and writing of a [`UnixStream`] is std's.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// How many descriptors one message carries at most, in either direction (the kernel's `SCM_MAX_FD`).
pub const FDS_MAX: usize = 253;

/// The longest message of a [`message_pair`]. Bytes; bounded by the socket's send buffer, and far above any
/// error text.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// See [`widen_backlog`]: what the kernel allows by default.
const WIDE_BACKLOG: i32 = 4096;

/// See [`keep_alive`].
const KEEP_ALIVE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(15);
/// See [`keep_alive`].
const KEEP_ALIVE_QUESTIONS: u32 = 9;

/// Binds a listening stream socket called `name` in the directory `dir` with the given mode.
///
/// Goes through the directory's descriptor, since a socket address holds only 107 bytes of path. A socket
/// of that name is replaced. Close-on-exec and non-blocking.
///
/// # Errors
/// The errno of unlink, bind, chmod or listen.
pub fn listen_at(dir: BorrowedFd<'_>, name: &OsStr, mode: u32) -> io::Result<UnixListener> {
    match rustix::fs::unlinkat(dir, name, rustix::fs::AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => {}
        Err(error) => return Err(error.into()),
    }
    let socket = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(through(dir, name))?)?;
    // Between bind and chmod nobody can connect: nothing listens yet.
    rustix::fs::chmodat(
        dir,
        name,
        rustix::fs::Mode::from_raw_mode(mode),
        rustix::fs::AtFlags::empty(),
    )?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// Lets more connections wait to be accepted than [`listen_at`] does; the kernel caps it at `net.core.somaxconn`.
///
/// # Errors
/// The errno of listen.
pub fn widen_backlog(listener: &UnixListener) -> io::Result<()> {
    Ok(rustix::net::listen(listener, WIDE_BACKLOG)?)
}

/// Connects to the stream socket called `name` in the directory `dir`. Never blocks; the stream does.
///
/// # Errors
/// `ENOENT` without such a socket, `ECONNREFUSED` when nobody listens, `EAGAIN` while its backlog is full.
pub fn connect_at(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<UnixStream> {
    let socket = stream_socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(through(dir, name))?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Asks the kernel whether the peer of an idle TCP connection is still there: after 15 s, then every 15 s, and the
/// connection breaks when nine questions stay unanswered (Go's defaults, which dockerd's clients know).
///
/// # Errors
/// The errno of setsockopt.
pub fn keep_alive(socket: BorrowedFd<'_>) -> io::Result<()> {
    use rustix::net::sockopt;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepintvl(socket, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEP_ALIVE_QUESTIONS)?;
    Ok(())
}

fn stream_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    Ok(socket)
}

fn through(dir: BorrowedFd<'_>, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name)
}

/// Makes a connected pair that keeps message boundaries; both ends are close-on-exec.
///
/// # Errors
/// The errno of `socketpair(2)`.
pub fn message_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends bytes, and with the first of them `fds`. Returns how many bytes were taken, all of them on a
/// [`message_pair`]; all of `fds` went if any byte did.
///
/// # Errors
/// The errno of sendmsg, never with a SIGPIPE; `EINVAL` for more than [`FDS_MAX`] descriptors.
pub fn send_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if fds.len() > FDS_MAX {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Ok(rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(
            socket,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    })?)
}

/// Receives bytes into `buffer`, and appends the descriptors that came with them (close-on-exec) to `fds`.
/// Returns how many bytes; 0 is the end.
///
/// # Errors
/// The errno of recvmsg.
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(buffer)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// Waits for one whole message of at most [`MESSAGE_MAX_BYTES`]. An empty one means that the other end is gone.
///
/// # Errors
/// The errno of `recvmsg(2)`.
pub fn receive_message(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    // Asked for first: a buffer for the longest would cost its page faults at each message.
    let (mut bytes, mut fds) = (vec![0; next_length(socket)?], Vec::new());
    let length = match receive_with_fds(socket, &mut bytes, &mut fds) {
        // A peer that died with our last message unread: the same as its end.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
        other => other?,
    };
    bytes.truncate(length);
    Ok((bytes, fds))
}

/// What is read at once of a byte stream, which has no messages (a console socket is one).
const STREAM_BYTES: usize = 4096;

/// Waits for a message and says how long it is; of a stream, how much to read.
fn next_length(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
    let peeked = rustix::io::retry_on_intr(|| rustix::net::recv(socket, &mut [0_u8; 0][..], flags));
    match peeked {
        Ok((_, 0)) => Ok(STREAM_BYTES),
        Ok((_, length)) => Ok(length.min(MESSAGE_MAX_BYTES)),
        Err(rustix::io::Errno::CONNRESET) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// Waits for one byte with `read(2)` alone, which every seccomp policy allows; `None` is the end.
///
/// # Errors
/// The errno of `read(2)`.
pub fn read_byte(socket: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let mut byte = [0u8; 1];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut byte))?;
    Ok((length == 1).then_some(byte[0]))
}

/// Sends one byte with `write(2)` alone.
///
/// # Errors
/// The errno of `write(2)`.
pub fn write_byte(socket: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(socket, &[byte]))?;
    Ok(())
}

/// Who is at the other end of a connected unix socket, as of its connect (or of listen, or of socketpair).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Process id in our pid namespace.
    pub pid: u32,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

/// Asks the kernel who the peer is (`SO_PEERCRED`).
///
/// # Errors
/// The errno of getsockopt; `ESRCH` for a peer outside our pid namespace.
pub fn peer(socket: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(socket)?;
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get())
        .map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    Ok(Peer {
        pid,
        uid: credentials.uid.as_raw(),
        gid: credentials.gid.as_raw(),
    })
}

/// A pidfd of the peer (`SO_PEERPIDFD`, Linux 6.5): it names the very process, however ids are reused.
/// `None` where the kernel lacks it.
///
/// # Errors
/// The errno of getsockopt; `EINVAL` or `ESRCH` when the peer was reaped.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let mut fd: libc::c_int = -1;
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::c_int>()).expect("four bytes are a length");
    // SAFETY: `fd` and `length` are live locals of exactly the type and size that SO_PEERPIDFD writes,
    // and the socket stays open for the call because it is borrowed.
    let status = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => Ok(None),
            _ => Err(error),
        };
    }
    // SAFETY: the call succeeded, so the kernel has just installed `fd` for us and nobody else knows it.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Memory of the kernel, in bytes, for what was sent on a unix stream socket and not read by its peer (`SIOCOUTQ`);
/// 0 when all was read.
///
/// # Errors
/// The errno of ioctl.
pub fn unread_bytes(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: `bytes` is a live local of exactly the type that SIOCOUTQ (TIOCOUTQ is its number) writes, and the
    // socket stays open for the call because it is borrowed.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Takes this process's standard input as a connected unix socket, non-blocking; descriptor 0 becomes /dev/null.
///
/// # Errors
/// `ENOTSOCK` when it is none, else the errno of dup or open.
pub fn take_stdin() -> io::Result<UnixStream> {
    let stdin = io::stdin();
    let socket = stdin.as_fd().try_clone_to_owned()?;
    rustix::net::sockopt::socket_type(&socket)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(UnixStream::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    fn open_dir(path: &std::path::Path) -> std::fs::File {
        std::fs::File::open(path).unwrap()
    }

    #[test]
    fn what_the_peer_has_read_is_known() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert_eq!(unread_bytes(ours.as_fd()).unwrap(), 0);
        ours.write_all(b"head").unwrap();
        assert_ne!(unread_bytes(ours.as_fd()).unwrap(), 0);
        let mut buffer = [0; 4];
        theirs.read_exact(&mut buffer).unwrap();
        assert_eq!(unread_bytes(ours.as_fd()).unwrap(), 0);
    }

    #[test]
    fn descriptors_arrive_with_the_first_byte() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        assert_eq!(
            send_with_fds(a.as_fd(), b"hello", &[writer.as_fd()]).unwrap(),
            5
        );
        drop(writer);
        let (mut buffer, mut fds) = ([0; 2], Vec::new());
        assert_eq!(
            receive_with_fds(b.as_fd(), &mut buffer, &mut fds).unwrap(),
            2
        );
        assert_eq!(fds.len(), 1);
        std::fs::File::from(fds.pop().unwrap())
            .write_all(b"through")
            .unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(
            receive_with_fds(b.as_fd(), &mut buffer, &mut fds).unwrap(),
            2
        );
        assert!(fds.is_empty());
    }

    #[test]
    fn a_pair_keeps_messages_apart_and_tells_of_the_end() {
        let (a, b) = message_pair().unwrap();
        let fds = [a.as_fd(); FDS_MAX];
        assert_eq!(send_with_fds(a.as_fd(), b"one", &fds).unwrap(), 3);
        assert_eq!(send_with_fds(a.as_fd(), b"two", &[]).unwrap(), 3);
        let (bytes, taken) = receive_message(b.as_fd()).unwrap();
        assert_eq!((bytes.as_slice(), taken.len()), (&b"one"[..], FDS_MAX));
        drop(taken);
        let (bytes, taken) = receive_message(b.as_fd()).unwrap();
        assert_eq!((bytes.as_slice(), taken.len()), (&b"two"[..], 0));
        write_byte(b.as_fd(), 7).unwrap();
        assert_eq!(read_byte(a.as_fd()).unwrap(), Some(7));
        // An unread message makes the end a reset, which is an end as well.
        write_byte(b.as_fd(), 7).unwrap();
        drop(a);
        let (bytes, taken) = receive_message(b.as_fd()).unwrap();
        assert_eq!((bytes.len(), taken.len()), (0, 0));
        let gone = send_with_fds(b.as_fd(), b"x", &[]).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn too_many_descriptors_are_refused() {
        let (a, _b) = UnixStream::pair().unwrap();
        let fds = [a.as_fd(); FDS_MAX + 1];
        let error = send_with_fds(a.as_fd(), b"x", &fds).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_full_backlog_is_told_at_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = open_dir(root.path());
        let name = OsStr::new("s.sock");
        let _listener = listen_at(dir.as_fd(), name, 0o600).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect_at(dir.as_fd(), name) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(waiting.len() >= 128, "{}", waiting.len());
    }

    #[test]
    fn a_path_longer_than_an_address_is_served_and_replaced() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let dir = open_dir(&deep);
        let name = OsStr::new("s.sock");
        let stale = listen_at(dir.as_fd(), name, 0o600).unwrap();
        drop(stale);
        let refused = connect_at(dir.as_fd(), name).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let listener = listen_at(dir.as_fd(), name, 0o600).unwrap();
        let mode = std::fs::metadata(deep.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
        let client = connect_at(dir.as_fd(), name).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(peer(server.as_fd()).unwrap().pid, std::process::id());
        if let Some(pidfd) = peer_pidfd(client.as_fd()).unwrap() {
            assert!(pidfd.as_raw_fd() >= 0);
        }
    }
}
