//! Host ports: choosing them, holding them by a bound socket, and saying who has them.
//!
//! There is no list of allocated ports (moby#20486 is what becomes of one): a port is taken exactly
//! when its socket cannot be bound.

mod holder;

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sys::port::{Stack, Transport, reserve};

use crate::attachment::{HostPort, PortRequest, Protocol, PublishedPort};
use crate::config::Config;
use crate::error::Error;

pub(crate) use holder::find as find_holder;

/// The kernel's range for ports it chooses; Docker takes its random ports from there too.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
/// The range of a kernel that does not tell.
const LOCAL_RANGE_DEFAULT: (u16, u16) = (32768, 60999);

/// How long a wanted port may be taken before that is an error.
const TAKEN_PATIENCE: Duration = Duration::from_millis(50);
/// How often it is tried meanwhile.
const TAKEN_POLL: Duration = Duration::from_millis(2);

/// A port that is ours as long as its socket is open.
#[derive(Debug)]
pub(crate) struct Reserved {
    pub(crate) protocol: Protocol,
    pub(crate) container_port: u16,
    /// As asked for: `None` is every address of both families.
    pub(crate) host_ip: Option<IpAddr>,
    pub(crate) host_port: u16,
    pub(crate) socket: OwnedFd,
}

impl Reserved {
    /// The address the socket is bound to.
    pub(crate) fn local(&self) -> SocketAddr {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        SocketAddr::new(self.host_ip.unwrap_or(any), self.host_port)
    }

    /// The lines `inspect` shows.
    pub(crate) fn published(&self) -> impl Iterator<Item = PublishedPort> + '_ {
        let both = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        let addresses = match self.host_ip {
            Some(address) => vec![address],
            None => both.to_vec(),
        };
        addresses.into_iter().map(|host_ip| PublishedPort {
            protocol: self.protocol,
            container_port: self.container_port,
            host_ip,
            host_port: self.host_port,
        })
    }
}

/// Chooses and holds ports.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// Random ports go round, so that one that became free is not the next client's at once.
    last: AtomicU32,
}

impl Ports {
    /// Reserves every port asked for, or none.
    pub(crate) fn reserve(
        &self,
        config: &Config,
        requests: &[PortRequest],
    ) -> Result<Vec<Reserved>, Error> {
        requests
            .iter()
            .map(|request| {
                let request = PortRequest {
                    host_ip: request.host_ip.or(config.host_ip),
                    ..request.clone()
                };
                self.reserve_one(config, &request)
            })
            .collect()
    }

    fn reserve_one(&self, config: &Config, request: &PortRequest) -> Result<Reserved, Error> {
        let (first, last) = match request.host_port {
            HostPort::Fixed(port) => (port, port),
            HostPort::Range(first, last) => (first, last),
            HostPort::Any => local_range(),
        };
        let count = u32::from(last.saturating_sub(first)) + 1;
        let skip = match request.host_port {
            HostPort::Any => self.last.fetch_add(1, Ordering::Relaxed) % count,
            HostPort::Fixed(_) | HostPort::Range(..) => 0,
        };
        for step in 0..count {
            let offset = u16::try_from((step + skip) % count).expect("below the range's length");
            let port = first + offset;
            let bound = match count {
                1 => bind_patiently(request.protocol, request.host_ip, port),
                _ => bind(request.protocol, request.host_ip, port),
            };
            match bound {
                Ok(socket) => {
                    if matches!(request.host_port, HostPort::Any) {
                        self.last.store(u32::from(offset) + 1, Ordering::Relaxed);
                    }
                    return Ok(Reserved {
                        protocol: request.protocol,
                        container_port: request.container_port,
                        host_ip: request.host_ip,
                        host_port: port,
                        socket,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && count > 1 => {}
                Err(error) => return Err(refused(config, request, port, error)),
            }
        }
        Err(Error::PortsExhausted {
            host_ip: shown(request.host_ip),
            first,
            last,
            protocol: request.protocol,
        })
    }
}

/// Docker's messages name 0.0.0.0 for a port without a host address.
fn shown(host_ip: Option<IpAddr>) -> IpAddr {
    host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

fn refused(config: &Config, request: &PortRequest, port: u16, source: io::Error) -> Error {
    let address = SocketAddr::new(shown(request.host_ip), port);
    if source.kind() != io::ErrorKind::AddrInUse {
        return Error::Bind {
            address,
            protocol: request.protocol,
            source,
        };
    }
    Error::PortAllocated {
        address,
        protocol: request.protocol,
        holder: find_holder(config, request.protocol, request.host_ip, port),
    }
}

/// A socket that was just closed can live on for a moment in a child between fork and exec, or in a
/// shim that is about to end: only a port that stays taken is.
fn bind_patiently(protocol: Protocol, host_ip: Option<IpAddr>, port: u16) -> io::Result<OwnedFd> {
    let begun = Instant::now();
    loop {
        match bind(protocol, host_ip, port) {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && begun.elapsed() < TAKEN_PATIENCE =>
            {
                thread::sleep(TAKEN_POLL);
            }
            answer => return answer,
        }
    }
}

/// Binds one port. IPv4 addresses are bound as mapped ones, so that every socket has the same shape;
/// only a kernel without IPv6 gets IPv4 sockets.
fn bind(protocol: Protocol, host_ip: Option<IpAddr>, port: u16) -> io::Result<OwnedFd> {
    let transport = match protocol {
        Protocol::Tcp => Transport::Stream,
        Protocol::Udp => Transport::Datagram,
    };
    let (address, stack) = match host_ip {
        None => (Ipv6Addr::UNSPECIFIED, Stack::Dual),
        Some(IpAddr::V4(address)) => (address.to_ipv6_mapped(), Stack::Dual),
        Some(IpAddr::V6(address)) => (address, Stack::Single),
    };
    match reserve(SocketAddr::new(address.into(), port), transport, stack) {
        Err(error) if no_ipv6(&error) && !host_ip.is_some_and(|ip| ip.is_ipv6()) => reserve(
            SocketAddr::new(shown(host_ip), port),
            transport,
            Stack::Single,
        ),
        answer => answer,
    }
}

/// `EAFNOSUPPORT`: the kernel was booted without IPv6.
fn no_ipv6(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported
}

fn local_range() -> (u16, u16) {
    let text = fs::read_to_string(LOCAL_RANGE).unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|n| n.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) if first <= last => (first, last),
        _ => LOCAL_RANGE_DEFAULT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn config() -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        let db = db::Db::open(&directory.path().join("cooper.db")).unwrap();
        (directory, Config::new(db, "/var/lib/cooper"))
    }

    fn ask(protocol: Protocol, host_ip: Option<&str>, host_port: HostPort) -> PortRequest {
        PortRequest {
            protocol,
            container_port: 80,
            host_ip: host_ip.map(|ip| ip.parse().unwrap()),
            host_port,
        }
    }

    #[test]
    fn a_port_without_an_address_is_taken_in_both_families() {
        let (_directory, config) = config();
        let request = [ask(Protocol::Tcp, None, HostPort::Any)];
        let reserved = Ports::default().reserve(&config, &request).unwrap();
        let port = reserved[0].host_port;
        let (first, last) = local_range();
        assert!((first..=last).contains(&port));
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            assert!(TcpListener::bind((address, port)).is_err(), "{address}");
        }
        let lines: Vec<String> = reserved[0]
            .published()
            .map(|p| p.host_ip.to_string())
            .collect();
        assert_eq!(lines, ["0.0.0.0", "::"]);
    }

    #[test]
    fn a_taken_port_names_the_process_that_has_it() {
        let (_directory, config) = config();
        let ports = Ports::default();
        let command = fs::read_to_string("/proc/self/comm").unwrap();
        let expected = format!("(by process {} ({}))", std::process::id(), command.trim());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let held = [
            (Protocol::Tcp, tcp.local_addr().unwrap().port()),
            (Protocol::Udp, udp.local_addr().unwrap().port()),
        ];
        for (protocol, port) in held {
            let request = [ask(protocol, None, HostPort::Fixed(port))];
            let error = ports.reserve(&config, &request).unwrap_err().to_string();
            let docker = format!("Bind for 0.0.0.0:{port} failed: port is already allocated");
            assert_eq!(error, format!("{docker} {expected}"));
        }
    }

    /// Shorter than the patience.
    const A_MOMENT: Duration = Duration::from_millis(10);

    #[test]
    fn a_port_that_becomes_free_in_a_moment_is_waited_for() {
        let (_directory, config) = config();
        let ports = Ports::default();
        let held = ports
            .reserve(&config, &[ask(Protocol::Tcp, None, HostPort::Any)])
            .unwrap();
        let again = ask(Protocol::Tcp, None, HostPort::Fixed(held[0].host_port));
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(A_MOMENT);
                drop(held);
            });
            ports
                .reserve(&config, std::slice::from_ref(&again))
                .unwrap();
        });
    }

    #[test]
    fn a_range_skips_what_is_taken_and_says_when_nothing_is_left() {
        let (_directory, config) = config();
        let ports = Ports::default();
        let taken = ports.reserve(
            &config,
            &[ask(Protocol::Udp, Some("127.0.0.1"), HostPort::Any)],
        );
        let taken = taken.unwrap();
        let port = taken[0].host_port;
        let range = ask(
            Protocol::Udp,
            Some("127.0.0.1"),
            HostPort::Range(port, port + 1),
        );
        let next = ports
            .reserve(&config, std::slice::from_ref(&range))
            .unwrap();
        assert_eq!(next[0].host_port, port + 1);
        let error = ports.reserve(&config, &[range]).unwrap_err();
        assert!(matches!(error, Error::PortsExhausted { .. }), "{error}");
    }

    #[test]
    fn an_address_the_host_does_not_have_is_another_error() {
        let (_directory, config) = config();
        let request = [ask(Protocol::Tcp, Some("192.0.2.254"), HostPort::Fixed(1))];
        let error = Ports::default().reserve(&config, &request).unwrap_err();
        assert!(matches!(error, Error::Bind { .. }), "{error:?}");
    }
}
