//! A private pair of message sockets between a process and the one it makes, with descriptors beside the bytes.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net;

/// The longest message. Bytes; bounded by the socket's send buffer, and far above any error text.
pub const MESSAGE_MAX_BYTES: usize = 64 * 1024;

/// The most descriptors beside one message (the kernel's `SCM_MAX_FD`).
pub const FDS_MAX: usize = 253;

/// Makes a connected pair that keeps message boundaries; both ends are close-on-exec.
///
/// # Errors
/// The errno of `socketpair(2)`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(net::socketpair(
        net::AddressFamily::UNIX,
        net::SocketType::SEQPACKET,
        net::SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends one message.
///
/// # Errors
/// The errno of `sendmsg(2)`; `EPIPE` when the other end is gone (without a signal).
pub fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = net::SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(net::SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::io::retry_on_intr(|| {
        net::sendmsg(
            socket,
            &[io::IoSlice::new(message)],
            &mut control,
            net::SendFlags::NOSIGNAL,
        )
    })?;
    Ok(())
}

/// Waits for one message. An empty one means that the other end is gone.
///
/// # Errors
/// The errno of `recvmsg(2)`.
pub fn receive(socket: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0u8; MESSAGE_MAX_BYTES];
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = net::RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [io::IoSliceMut::new(&mut bytes)];
        match net::recvmsg(
            socket,
            &mut parts,
            &mut control,
            net::RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => {}
            // A peer that died with our last message unread: the same as its end.
            Err(rustix::io::Errno::CONNRESET) => return Ok((Vec::new(), Vec::new())),
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let net::RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    bytes.truncate(received.bytes);
    Ok((bytes, fds))
}

/// Waits for one message without descriptors with `read(2)` alone, which every seccomp policy allows.
///
/// # Errors
/// The errno of `read(2)`.
pub fn read_small(socket: BorrowedFd<'_>) -> io::Result<Option<u8>> {
    let mut byte = [0u8; 1];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(socket.as_fd(), &mut byte))?;
    Ok((length == 1).then_some(byte[0]))
}

/// Sends one byte with `write(2)` alone.
///
/// # Errors
/// The errno of `write(2)`.
pub fn write_small(socket: BorrowedFd<'_>, byte: u8) -> io::Result<()> {
    rustix::io::retry_on_intr(|| rustix::io::write(socket.as_fd(), &[byte]))?;
    Ok(())
}
