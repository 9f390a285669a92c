//! Sockets that hold a host port, and what a relay on them needs: splice and replies from the address
//! a datagram came to.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};
use rustix::pipe::{PipeFlags, SpliceFlags};

/// Connections that wait to be accepted; the kernel bounds it further (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;

/// Kind of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP, listening.
    Stream,
    /// UDP.
    Datagram,
}

/// What an IPv6 socket takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// IPv4 too, as mapped addresses.
    Dual,
    /// Its own family.
    Single,
}

/// Binds `address` so that nobody else can, non-blocking: a TCP socket listens, since a port that is
/// only bound can be shared by `SO_REUSEADDR`; a UDP socket tells the address a datagram came to.
///
/// # Errors
/// The errno of socket, bind (EADDRINUSE, EADDRNOTAVAIL) or listen.
pub fn reserve(address: SocketAddr, transport: Transport, stack: Stack) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let kind = match transport {
        Transport::Stream => SocketType::STREAM,
        Transport::Datagram => SocketType::DGRAM,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, stack == Stack::Single)?;
    }
    if transport == Transport::Stream {
        // Connections in TIME_WAIT do not hold a port; a listener does.
        sockopt::set_socket_reuseaddr(&fd, true)?;
    }
    rustix::net::bind(&fd, &address)?;
    match transport {
        Transport::Stream => rustix::net::listen(&fd, BACKLOG)?,
        Transport::Datagram if address.is_ipv6() => tell_destination(&fd)?,
        Transport::Datagram => {}
    }
    Ok(fd)
}

/// Begins a TCP connection without waiting for it: writable once it is made or has failed.
///
/// # Errors
/// The errno of socket or connect, but for EINPROGRESS.
pub fn connect(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error.into()),
    }
}

/// A pipe whose ends do not block: reading end first.
///
/// # Errors
/// The errno of pipe2.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::pipe::pipe_with(
        PipeFlags::CLOEXEC | PipeFlags::NONBLOCK,
    )?)
}

/// Moves up to `bytes` between a pipe and a socket without copying them here; 0 is the end of input.
///
/// # Errors
/// `WouldBlock` when the input is empty or the output full; else the errno of splice.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, bytes: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(rustix::pipe::splice(from, None, to, None, bytes, flags)?)
}

/// A datagram that came to an IPv6 socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its length.
    pub bytes: usize,
    /// Who sent it (an IPv4 sender as a mapped address).
    pub from: SocketAddrV6,
    /// The address of this host it was sent to, and the interface it came by.
    pub to: Destination,
}

/// The address of this host that a datagram was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Destination {
    /// The address.
    pub address: Ipv6Addr,
    /// The interface's index.
    pub interface: u32,
}

#[repr(C, align(8))]
struct Control([u8; 64]);

/// Receives one datagram and the address it was sent to from a socket of [`reserve`].
///
/// # Errors
/// `WouldBlock` when there is none, `Unsupported` on an IPv4 socket; else the errno of recvmsg.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    let mut name = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    let mut control = Control([0; 64]);
    let mut part = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    let mut message = message(&mut name, &mut part, &mut control);
    // SAFETY: the message points at a name, one buffer and a control area that outlive the call, with
    // their true lengths.
    let bytes = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: every bit pattern is a sockaddr_in6, and the kernel wrote it or left it zeroed.
    let name = unsafe { name.assume_init() };
    if i32::from(name.sin6_family) != libc::AF_INET6 {
        return Err(io::ErrorKind::Unsupported.into());
    }
    let mut to = Destination {
        address: Ipv6Addr::UNSPECIFIED,
        interface: 0,
    };
    // SAFETY: the kernel has filled in the control area and its length.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: CMSG_FIRSTHDR answers null or a header inside the control area.
    if let Some(first) = unsafe { header.as_ref() }
        && (first.cmsg_level, first.cmsg_type) == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO)
    {
        // SAFETY: the header is inside the control area and its data follows it.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: the data of IPV6_PKTINFO is an in6_pktinfo; it need not be aligned.
        let info = unsafe { data.cast::<libc::in6_pktinfo>().read_unaligned() };
        to.address = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        to.interface = info.ipi6_ifindex;
    }
    let from = SocketAddrV6::new(
        Ipv6Addr::from(name.sin6_addr.s6_addr),
        u16::from_be(name.sin6_port),
        name.sin6_flowinfo,
        name.sin6_scope_id,
    );
    Ok(Received { bytes, from, to })
}

/// Sends one datagram from the address `source` of this host.
///
/// # Errors
/// `WouldBlock` when the socket is full; else the errno of sendmsg.
pub fn send_from(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    source: Destination,
    to: SocketAddrV6,
) -> io::Result<()> {
    let mut name = MaybeUninit::<libc::sockaddr_in6>::zeroed();
    name.write(raw_address(to));
    let mut control = Control([0; 64]);
    let mut part = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    let mut message = message(&mut name, &mut part, &mut control);
    let info = libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr {
            s6_addr: source.address.octets(),
        },
        // A link-local source needs its interface; any other must not be bound to one.
        ipi6_ifindex: if source.address.is_unicast_link_local() {
            source.interface
        } else {
            0
        },
    };
    let info_bytes = u32::try_from(size_of::<libc::in6_pktinfo>()).expect("20 bytes");
    // SAFETY: a pure computation.
    let control_bytes = unsafe { libc::CMSG_SPACE(info_bytes) };
    message.msg_controllen = control_bytes as usize;
    // SAFETY: the control area is 64 bytes and aligned for a header.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: a pure computation.
    let header_bytes = unsafe { libc::CMSG_LEN(info_bytes) };
    // SAFETY: the control area has room for one header, so CMSG_FIRSTHDR points at it.
    let first = unsafe { header.as_mut() }.expect("the control area holds a header");
    first.cmsg_level = libc::IPPROTO_IPV6;
    first.cmsg_type = libc::IPV6_PKTINFO;
    first.cmsg_len = header_bytes as usize;
    // SAFETY: the header is inside the control area and its data follows it.
    let data = unsafe { libc::CMSG_DATA(header) };
    // SAFETY: CMSG_SPACE of an in6_pktinfo, 40 bytes, lies within the 64; it need not be aligned.
    unsafe { data.cast::<libc::in6_pktinfo>().write_unaligned(info) };
    // SAFETY: the message points at a name, one buffer and a control area that outlive the call, with
    // their true lengths; sendmsg only reads them.
    let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The mapped form of an address, as an IPv6 socket of both families uses it.
#[must_use]
pub fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

fn message(
    name: &mut MaybeUninit<libc::sockaddr_in6>,
    part: &mut libc::iovec,
    control: &mut Control,
) -> libc::msghdr {
    // SAFETY: all zero is a valid msghdr: null pointers and lengths of nothing.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_name = name.as_mut_ptr().cast();
    message.msg_namelen = u32::try_from(size_of::<libc::sockaddr_in6>()).expect("28 bytes");
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = control.0.len();
    message
}

fn raw_address(address: SocketAddrV6) -> libc::sockaddr_in6 {
    libc::sockaddr_in6 {
        sin6_family: u16::try_from(libc::AF_INET6).expect("AF_INET6 is 10"),
        sin6_port: address.port().to_be(),
        sin6_flowinfo: address.flowinfo(),
        sin6_addr: libc::in6_addr {
            s6_addr: address.ip().octets(),
        },
        sin6_scope_id: address.scope_id(),
    }
}

fn tell_destination(fd: &OwnedFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    let bytes = u32::try_from(size_of::<libc::c_int>()).expect("four bytes");
    // SAFETY: the value is a c_int that outlives the call, and its length is given.
    let answer = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            (&raw const on).cast(),
            bytes,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    fn local(fd: &OwnedFd) -> SocketAddr {
        UdpSocket::from(fd.try_clone().unwrap())
            .local_addr()
            .unwrap()
    }

    #[test]
    fn a_reserved_port_cannot_be_taken_even_with_reuseaddr() {
        let any = "[::]:0".parse().unwrap();
        let held = reserve(any, Transport::Stream, Stack::Dual).unwrap();
        let port = local(&held).port();
        for address in ["0.0.0.0", "127.0.0.1", "[::1]", "[::]"] {
            let address = format!("{address}:{port}").parse().unwrap();
            // The second reservation sets SO_REUSEADDR as well.
            let error = reserve(address, Transport::Stream, Stack::Single).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{address}");
        }
    }

    #[test]
    fn a_reply_leaves_from_the_address_that_was_asked() {
        let any = "[::]:0".parse().unwrap();
        let server = reserve(any, Transport::Datagram, Stack::Dual).unwrap();
        let port = local(&server).port();
        for target in ["127.0.0.7", "127.0.0.1"] {
            let client = UdpSocket::bind("0.0.0.0:0").unwrap();
            // A connected socket hears only the address it asked.
            client.connect((target, port)).unwrap();
            client.send(b"ask").unwrap();
            let mut buffer = [0; 16];
            let received = receive(server.as_fd(), &mut buffer).unwrap();
            assert_eq!(&buffer[..received.bytes], b"ask");
            assert_eq!(received.to.address, mapped(target.parse().unwrap()));
            send_from(server.as_fd(), b"answer", received.to, received.from).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 6);
        }
    }
}
