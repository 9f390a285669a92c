//! Network namespaces of containers: made off the start path, with half a veth pair inside.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sys::link::{Changes, Hairpin, Isolation, Link, Links, Pair};
use sys::netns;

use crate::error::Error;

/// The interface inside every container.
pub(crate) const CONTAINER_INTERFACE: &str = "eth0";
/// Names are random; so many taken ones in a row are no accident.
const NAME_ATTEMPTS_MAX: u32 = 16;
/// How long a bridge port may take to open (it takes a few milliseconds); later it opens unseen.
const OPEN_MAX: Duration = Duration::from_secs(1);
/// How often it is looked at: nothing tells of it but a change of state.
const OPEN_POLL: Duration = Duration::from_micros(200);
/// What dockerd sets in every container that has a network namespace of its own.
const SETTINGS: [(&str, &str); 2] = [
    ("net/ipv4/ping_group_range", "0 2147483647"),
    ("net/ipv4/ip_unprivileged_port_start", "0"),
];

/// A network namespace with its loopback up and, from [`Network::prepare`](crate::Network::prepare),
/// half a veth pair inside. Nothing keeps it alive but its descriptor and the processes within.
#[derive(Debug)]
pub struct Namespace {
    fd: OwnedFd,
    half: Option<Half>,
}

/// A pair whose inner end has no address yet.
#[derive(Debug)]
pub(crate) struct Half {
    /// The outer end.
    pub(crate) name: String,
    /// Index of the outer end.
    pub(crate) outer: u32,
    /// Index of the inner end.
    pub(crate) inner: u32,
    /// A route socket inside.
    pub(crate) links: Links,
    /// Keeps the pair from the sweep, which removes what belongs to nobody.
    pub(crate) spare: Spare,
}

/// The names of prepared pairs that no container has yet.
#[derive(Debug, Default, Clone)]
pub(crate) struct Spares(Arc<Mutex<HashSet<String>>>);

impl Spares {
    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.lock().contains(name)
    }

    fn keep(&self, name: &str) -> Spare {
        self.lock().insert(name.to_owned());
        Spare {
            spares: self.clone(),
            name: name.to_owned(),
        }
    }
}

/// One name of [`Spares`], as long as it lives.
#[derive(Debug)]
pub(crate) struct Spare {
    spares: Spares,
    name: String,
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.spares.lock().remove(&self.name);
    }
}

impl Namespace {
    /// A fresh namespace with nothing but `lo`, up: what `--network none` gets.
    ///
    /// # Errors
    /// [`Error::Namespace`].
    pub fn isolated() -> Result<Self, Error> {
        let (fd, ()) = netns::create(|| inside().map(drop)).map_err(failed("create"))?;
        Ok(Self { fd, half: None })
    }

    /// Wraps a namespace that exists, as one a container already runs in.
    #[must_use]
    pub fn existing(fd: OwnedFd) -> Self {
        Self { fd, half: None }
    }

    /// The namespace.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Gives the descriptor away, to be sent to a shim.
    #[must_use]
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// A fresh namespace with half a pair inside.
    pub(crate) fn prepare(pairs: &mut Pairs<'_>) -> Result<Self, Error> {
        let (fd, links) = netns::create(inside).map_err(failed("create"))?;
        let half = pairs.make(fd.as_fd(), links)?;
        Ok(Self {
            fd,
            half: Some(half),
        })
    }

    /// Makes the half pair in a namespace that came without one.
    pub(crate) fn make_half(&mut self, pairs: &mut Pairs<'_>) -> Result<(), Error> {
        let links = netns::enter(self.fd.as_fd(), Links::open).map_err(failed("enter"))?;
        self.half = Some(pairs.make(self.fd.as_fd(), links)?);
        Ok(())
    }

    /// A half pair is there.
    pub(crate) fn has_half(&self) -> bool {
        self.half.is_some()
    }

    /// The name of the half pair's outer end.
    pub(crate) fn host_interface(&self) -> &str {
        self.half.as_ref().map_or("", |half| &half.name)
    }

    /// The half pair; the caller has made sure that there is one.
    pub(crate) fn take_half(&mut self) -> Half {
        self.half
            .take()
            .expect("a half pair was made before its use")
    }
}

/// What the pairs of a bridge have in common.
pub(crate) struct Pairs<'a> {
    /// The host's route socket.
    pub(crate) links: &'a mut Links,
    pub(crate) bridge: &'a str,
    pub(crate) bridge_index: u32,
    pub(crate) mtu_bytes: u32,
    pub(crate) isolation: Isolation,
    pub(crate) alias: &'a str,
    pub(crate) spares: &'a Spares,
}

impl Pairs<'_> {
    fn make(&mut self, namespace: BorrowedFd<'_>, mut inner: Links) -> Result<Half, Error> {
        let (name, spare) = self.pair(namespace)?;
        let failed_at = |operation| link_failed(operation, &name);
        let outer = find(self.links, &name)?;
        let changes = Changes::new()
            .no_link_local(outer)
            .port(outer, Hairpin::On, self.isolation)
            .up(outer, None);
        self.links
            .apply(changes)
            .map_err(failed_at("set up the bridge port"))?;
        let index = find(&mut inner, CONTAINER_INTERFACE)?;
        netns::enter(namespace, || without_ipv6(CONTAINER_INTERFACE)).map_err(failed("set up"))?;
        // Up before it has an address: the kernel opens the bridge port in its own time, and a packet
        // sent before that is lost (measured: an ARP retry, one second, in half of the starts).
        let raised = inner.apply(Changes::new().up(index, None));
        raised.map_err(link_failed("raise the container's end of", &name))?;
        self.wait_until_open(&name)?;
        Ok(Half {
            name,
            outer,
            inner: index,
            links: inner,
            spare,
        })
    }

    /// Waits until the bridge passes frames from and to the port.
    fn wait_until_open(&mut self, name: &str) -> Result<(), Error> {
        let begun = Instant::now();
        for (name, open) in [
            (name, (|link| link.forwarding) as fn(&Link) -> bool),
            (self.bridge, |link| link.operational),
        ] {
            while begun.elapsed() < OPEN_MAX {
                let found = self.links.find(name).map_err(link_failed("find", name))?;
                if found.as_ref().is_none_or(open) {
                    break;
                }
                thread::sleep(OPEN_POLL);
            }
        }
        Ok(())
    }

    fn pair(&mut self, namespace: BorrowedFd<'_>) -> Result<(String, Spare), Error> {
        let mut attempt = 1;
        loop {
            let name = random_name().map_err(failed("name an interface"))?;
            let spare = self.spares.keep(&name);
            let changes = Changes::new().pair(&Pair {
                name: &name,
                alias: self.alias,
                master: self.bridge_index,
                mtu_bytes: self.mtu_bytes,
                peer: CONTAINER_INTERFACE,
                namespace,
            });
            match self.links.apply(changes) {
                Ok(()) => return Ok((name, spare)),
                Err(error)
                    if error.kind() == io::ErrorKind::AlreadyExists
                        && attempt < NAME_ATTEMPTS_MAX =>
                {
                    attempt += 1;
                }
                Err(error) if error.raw_os_error() == Some(sys::link::BRIDGE_FULL) => {
                    return Err(Error::BridgeFull {
                        bridge: self.bridge.to_owned(),
                    });
                }
                Err(error) => return Err(link_failed("create the pair", &name)(error)),
            }
        }
    }
}

pub(crate) fn find(links: &mut Links, name: &str) -> Result<u32, Error> {
    let found = links.find(name).map_err(link_failed("find", name))?;
    found
        .map(|link| link.index)
        .ok_or_else(|| link_failed("find", name)(io::Error::from(io::ErrorKind::NotFound)))
}

pub(crate) fn link_failed(operation: &'static str, name: &str) -> impl FnOnce(io::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::Link {
        operation,
        name,
        source,
    }
}

fn failed(operation: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Namespace { operation, source }
}

fn inside() -> io::Result<Links> {
    let mut links = Links::open()?;
    links.apply(Changes::new().up(sys::netns::LOOPBACK_INDEX, None))?;
    for (path, value) in SETTINGS {
        std::fs::write(format!("/proc/sys/{path}"), value)?;
    }
    Ok(links)
}

/// The bridge has IPv4 only, so an fe80:: address would be all that IPv6 could do (as dockerd).
fn without_ipv6(interface: &str) -> io::Result<()> {
    match std::fs::write(
        format!("/proc/sys/net/ipv6/conf/{interface}/disable_ipv6"),
        "1",
    ) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// `veth` and seven digits, as dockerd: network managers know to leave such interfaces alone.
fn random_name() -> io::Result<String> {
    Ok(format!("veth{}", &random_hex()?[..7]))
}

/// 64 random hexadecimal digits.
pub(crate) fn random_hex() -> io::Result<String> {
    let bytes: [u8; 32] = sys::random::bytes()?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
