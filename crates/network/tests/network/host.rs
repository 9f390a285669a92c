//! A whole host in a network namespace of its own: an uplink to an "internet", a network under test,
//! containers that are namespaces with sockets in them. Nothing touches the machine's own network.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use network::{Attachment, Config, Endpoint, HostPort, Namespace, Network, PortRequest, Protocol};
use sys::command::Command;
use sys::netns;

/// Long enough for a loaded machine, short enough for the tests that expect silence.
pub(crate) const SILENCE: Duration = Duration::from_millis(700);
/// How long an answer may take that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// The host's address on its uplink.
pub(crate) const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The address of the other end.
pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// What else filters on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing.
    Calm,
    /// A chain of an nft user that drops what it does not know, and frames on bridges meet it.
    ForeignDrop,
    /// What dockerd leaves: iptables FORWARD DROP with DOCKER-USER, and frames on bridges meet it.
    Docker,
}

impl Weather {
    pub(crate) const ALL: [Self; 3] = [Self::Calm, Self::ForeignDrop, Self::Docker];

    fn make(self) {
        let bridge_nf = if self == Self::Calm { "0" } else { "1" };
        std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", bridge_nf).unwrap();
        match self {
            Self::Calm => {}
            Self::ForeignDrop => nft(
                "table inet guard { chain f { type filter hook forward priority filter; policy drop; \
                 ct state established accept; }; }",
            ),
            Self::Docker => {
                for rule in [
                    "-P FORWARD DROP",
                    "-N DOCKER-USER",
                    "-A FORWARD -j DOCKER-USER",
                ] {
                    run("iptables-nft", &rule.split(' ').collect::<Vec<_>>());
                }
            }
        }
    }
}

pub(crate) struct Host {
    /// The other end of the uplink.
    pub(crate) internet: OwnedFd,
    /// The host's own namespace.
    pub(crate) outside: OwnedFd,
    pub(crate) weather: Weather,
    directory: PathBuf,
}

/// Runs `body` on a fresh host in every weather. False if there is no root to do it with.
pub(crate) fn in_all_weathers(body: impl Fn(&Host) + Send + Sync) {
    for weather in Weather::ALL {
        on_a_host(weather, &body);
    }
}

/// Runs `body` on a fresh host.
pub(crate) fn on_a_host(weather: Weather, body: impl Fn(&Host) + Send + Sync) {
    if !testkit::is_root() {
        return;
    }
    netns::create(|| {
        let (internet, ()) = netns::create(|| {
            ip("link set lo up");
            Ok(())
        })?;
        ip("link set lo up");
        let directory = tempfile::tempdir()?;
        let host = Host {
            internet,
            outside: netns::current()?,
            weather,
            directory: directory.path().to_owned(),
        };
        host.uplink();
        weather.make();
        println!("weather: {weather:?}");
        body(&host);
        Ok(())
    })
    .unwrap();
}

impl Host {
    fn uplink(&self) {
        // The pair is made here and one end moved; `ip` wants a path for that.
        let fd = std::os::fd::AsRawFd::as_raw_fd(&self.internet);
        let pid = std::process::id();
        ip(&format!(
            "link add up0 type veth peer name net0 netns /proc/{pid}/fd/{fd}"
        ));
        ip(&format!("addr add {UPLINK}/24 dev up0"));
        ip("link set up0 up");
        ip(&format!("route add default via {INTERNET}"));
        self.on_the_internet(|| {
            ip(&format!("addr add {INTERNET}/24 dev net0"));
            ip("link set net0 up");
        });
    }

    pub(crate) fn on_the_internet<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.internet.as_fd(), work)
    }

    /// The same host seen from a child process that a test started on it.
    pub(crate) fn child(directory: PathBuf) -> Self {
        Self {
            internet: netns::current().unwrap(),
            outside: netns::current().unwrap(),
            weather: Weather::Calm,
            directory,
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn config(&self) -> Config {
        let db = db::Db::open(&self.directory.join("cooper.db")).unwrap();
        let mut config = Config::new(db, self.directory.display().to_string());
        config.claims = self.directory.join("claims");
        config
    }

    pub(crate) fn network(&self) -> Network {
        Network::open(self.config()).unwrap()
    }
}

/// Where [`second_network`] serves.
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// A second uplink, with a server on port 80 behind it.
pub(crate) fn second_network() -> OwnedFd {
    let (second, ()) = netns::create(|| Ok(())).unwrap();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&second);
    let pid = std::process::id();
    ip(&format!(
        "link add up1 type veth peer name net1 netns /proc/{pid}/fd/{fd}"
    ));
    ip("addr add 203.0.113.2/24 dev up1");
    ip("link set up1 up");
    inside(second.as_fd(), || {
        ip(&format!("addr add {SECOND}/24 dev net1"));
        ip("link set net1 up");
        ip("route add default via 203.0.113.2");
        serve(80);
    });
    second
}

/// Runs `work` on a thread in `namespace`.
pub(crate) fn inside<T: Send>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> T + Send) -> T {
    netns::enter(namespace, || Ok(work())).unwrap()
}

/// One container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) namespace: Namespace,
    pub(crate) endpoint: Endpoint,
}

impl Container {
    pub(crate) fn new(network: &Network, number: u32, ports: &[PortRequest]) -> Self {
        let id = id(number);
        let mut namespace = network.prepare().unwrap();
        let endpoint = network
            .attach(&mut namespace, &attachment(&id, ports))
            .unwrap();
        Self {
            id,
            namespace,
            endpoint,
        }
    }

    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(self.namespace.fd(), work)
    }

    /// Serves on TCP and UDP `port`: each client is told the address it is seen with.
    pub(crate) fn serve(&self, port: u16) {
        self.run(|| serve(port));
    }
}

pub(crate) fn id(number: u32) -> String {
    format!("{number:064x}")
}

pub(crate) fn attachment(id: &str, ports: &[PortRequest]) -> Attachment {
    Attachment {
        container: id.to_owned(),
        ports: ports.to_vec(),
        mac: None,
        ipv4: None,
    }
}

pub(crate) fn publish(protocol: Protocol, host_port: u16, container_port: u16) -> PortRequest {
    PortRequest {
        protocol,
        container_port,
        host_ip: None,
        host_port: HostPort::Fixed(host_port),
    }
}

/// Serves in the calling thread's namespace until the process ends.
pub(crate) fn serve(port: u16) {
    let any = (Ipv4Addr::UNSPECIFIED, port);
    let tcp = TcpListener::bind(any).unwrap();
    let udp = UdpSocket::bind(any).unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming() {
            let Ok(mut stream) = stream else { return };
            let peer = stream.peer_addr().unwrap().ip().to_string();
            if stream.write_all(peer.as_bytes()).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = udp.recv_from(&mut buffer) {
            if udp.send_to(peer.ip().to_string().as_bytes(), peer).is_err() {
                return;
            }
        }
    });
}

/// Asks a server of [`serve`] over TCP how it sees us.
pub(crate) fn ask_tcp(
    address: impl Into<IpAddr>,
    port: u16,
    patience: Duration,
) -> io::Result<String> {
    let address = SocketAddr::new(address.into(), port);
    let mut stream = TcpStream::connect_timeout(&address, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Asks over UDP, with a socket that hears only the address it asked.
pub(crate) fn ask_udp(
    address: impl Into<IpAddr>,
    port: u16,
    patience: Duration,
) -> io::Result<String> {
    let address = SocketAddr::new(address.into(), port);
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let bytes = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..bytes]).into_owned())
}

/// Asks over both and expects one answer.
pub(crate) fn check_seen_as(
    address: impl Into<IpAddr> + Copy,
    port: u16,
    expected: impl Into<IpAddr>,
) {
    let expected = expected.into().to_string();
    let tcp = ask_tcp(address, port, PATIENCE);
    assert_eq!(tcp.unwrap(), expected, "tcp {}:{port}", address.into());
    let udp = ask_udp(address, port, PATIENCE);
    assert_eq!(udp.unwrap(), expected, "udp {}:{port}", address.into());
}

pub(crate) fn check_unreachable(address: impl Into<IpAddr> + Copy, port: u16) {
    let tcp = ask_tcp(address, port, SILENCE);
    assert!(
        tcp.is_err(),
        "tcp {}:{port} answered {tcp:?}",
        address.into()
    );
    let udp = ask_udp(address, port, SILENCE);
    assert!(
        udp.is_err(),
        "udp {}:{port} answered {udp:?}",
        address.into()
    );
}

pub(crate) fn ip(arguments: &str) {
    run("ip", &arguments.split(' ').collect::<Vec<_>>());
}

/// Runs an nft script.
pub(crate) fn nft(script: &str) {
    run("nft", &[script]);
}

/// What `nft -j list ruleset` says.
pub(crate) fn ruleset() -> serde_json::Value {
    serde_json::from_str(&run("nft", &["-j", "list", "ruleset"])).unwrap()
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    for argument in arguments {
        command = command.arg(argument);
    }
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
