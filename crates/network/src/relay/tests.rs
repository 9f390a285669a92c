//! A relay between sockets of this host: clients on ::1, a "container" on 127.0.0.1. No root.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use sys::port::{Stack, Transport, reserve};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

/// A relay driven as a shim drives it, on a thread.
struct Driven {
    port: u16,
    stop: Arc<AtomicBool>,
    clients: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Driven {
    fn new(protocol: Protocol, target: SocketAddr) -> Self {
        let transport = match protocol {
            Protocol::Tcp => Transport::Stream,
            Protocol::Udp => Transport::Datagram,
        };
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let socket = reserve(any, transport, Stack::Dual).unwrap();
        let local = local(&socket);
        let SocketAddr::V4(target) = target else {
            panic!("containers have IPv4")
        };
        let mut relay = Relay::new(vec![Forward {
            protocol,
            socket,
            local,
            target,
        }])
        .unwrap();
        let (stop, clients) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&clients));
        let thread = thread::spawn(move || {
            let outer = Epoll::new().unwrap();
            outer.add(relay.as_fd(), 1, Interest::READ).unwrap();
            let mut events = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                outer
                    .wait(&mut events, Some(Duration::from_millis(10)))
                    .unwrap();
                relay.turn();
                counted.store(relay.clients(), Ordering::Relaxed);
            }
        });
        Self {
            port: local.port(),
            stop,
            clients,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv6Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn wait_for_clients(&self, wanted: impl Fn(usize) -> bool) {
        let begun = Instant::now();
        while !wanted(self.clients.load(Ordering::Relaxed)) {
            assert!(
                begun.elapsed() < PATIENCE,
                "{} clients",
                self.clients.load(Ordering::Relaxed)
            );
            thread::yield_now();
        }
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

fn local(fd: &OwnedFd) -> SocketAddr {
    UdpSocket::from(fd.try_clone().unwrap())
        .local_addr()
        .unwrap()
}

/// A server that answers with what it read once the client has ended.
fn reverse_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).unwrap();
                bytes.reverse();
                stream.write_all(&bytes).unwrap();
            });
        }
    });
    address
}

#[test]
fn half_close_is_passed_on_and_no_byte_is_lost() {
    let relay = Driven::new(Protocol::Tcp, reverse_server());
    // More than all buffers on the way together.
    let sent: Vec<u8> = (0..20_000_000_u32)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let mut stream = relay.connect();
    stream.write_all(&sent).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer.reverse();
    assert!(
        answer == sent,
        "{} of {} bytes came back right",
        answer.len(),
        sent.len()
    );
    relay.wait_for_clients(|count| count == 0);
}

#[test]
fn clients_that_do_not_read_hold_up_nobody() {
    let relay = Driven::new(Protocol::Tcp, reverse_server());
    let mut slow: Vec<TcpStream> = (0..8).map(|_| relay.connect()).collect();
    for stream in &mut slow {
        stream.write_all(&vec![7; 4_000_000]).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    }
    let mut quick = relay.connect();
    quick.write_all(b"abc").unwrap();
    quick.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    quick.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "cba");
    drop(slow);
    relay.wait_for_clients(|count| count == 0);
}

#[test]
fn a_refused_target_ends_the_client() {
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let relay = Driven::new(Protocol::Tcp, closed);
    let mut stream = relay.connect();
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    assert!(bytes.is_empty(), "{ended:?}");
    relay.wait_for_clients(|count| count == 0);
}

#[test]
fn more_clients_than_there_is_room_for_wait_and_are_served() {
    let relay = Driven::new(Protocol::Tcp, reverse_server());
    let streams: Vec<TcpStream> = (0..CONNECTIONS_MAX + 40).map(|_| relay.connect()).collect();
    relay.wait_for_clients(|count| count == CONNECTIONS_MAX);
    for (number, mut stream) in streams.into_iter().enumerate() {
        stream.write_all(number.to_string().as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer.chars().rev().collect::<String>(), number.to_string());
    }
    relay.wait_for_clients(|count| count == 0);
}

#[test]
fn datagrams_come_back_to_each_client_from_the_address_it_asked() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = server.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((bytes, from)) = server.recv_from(&mut buffer) {
            buffer[..bytes].reverse();
            server.send_to(&buffer[..bytes], from).unwrap();
        }
    });
    let relay = Driven::new(Protocol::Udp, target);
    let port = relay.port;
    let asked: [SocketAddr; 3] = [
        (Ipv6Addr::LOCALHOST, port).into(),
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into(),
        SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), port).into(),
    ];
    for address in asked {
        let any: SocketAddr = if address.is_ipv6() {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        }
        .parse()
        .unwrap();
        let client = UdpSocket::bind(any).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.connect(address).unwrap();
        client.send(b"abc").unwrap();
        let mut buffer = [0; 8];
        let bytes = client.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], b"cba", "{address}");
    }
    relay.wait_for_clients(|count| count == 3);
}

#[test]
fn the_oldest_datagram_client_gives_way() {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let relay = Driven::new(Protocol::Udp, server.local_addr().unwrap());
    for _ in 0..SESSIONS_MAX + 10 {
        let client = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).unwrap();
        client
            .send_to(b"x", (Ipv6Addr::LOCALHOST, relay.port))
            .unwrap();
        server.recv(&mut [0; 8]).unwrap();
    }
    relay.wait_for_clients(|count| count == SESSIONS_MAX);
}

/// The descriptors are used up by others: the listener stays readable, and nobody is to look at it without end.
#[test]
fn without_descriptors_the_relay_rests_and_then_accepts() {
    const LIMIT_OF_FILES: u32 = 7; // RLIMIT_NOFILE
    if std::env::var_os("RELAY_TEST_ALONE").is_none() {
        // The limit is the whole process's.
        let itself = sys::command::Command::new(std::env::current_exe().unwrap())
            .arg("relay::tests::without_descriptors_the_relay_rests_and_then_accepts")
            .arg("--exact")
            .env("RELAY_TEST_ALONE", "1");
        let output = itself.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        return;
    }
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let socket = reserve(any, Transport::Stream, Stack::Dual).unwrap();
    let local = local(&socket);
    let target = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    let mut relay = Relay::new(vec![Forward {
        protocol: Protocol::Tcp,
        socket,
        local,
        target,
    }])
    .unwrap();
    let ready = |relay: &Relay| {
        let ready = sys::process::wait_readable(&[relay.as_fd()], Some(Duration::ZERO));
        ready.unwrap() == [true]
    };
    relay.turn();
    let mut client = TcpStream::connect((Ipv6Addr::LOCALHOST, local.port())).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(ready(&relay));
    let used = std::fs::File::open("/dev/null").unwrap();
    let free = u64::try_from(std::os::fd::AsRawFd::as_raw_fd(&used)).unwrap();
    sys::process::set_limit(LIMIT_OF_FILES, free, 1024).unwrap();
    relay.turn();
    let pause = relay.timeout();
    let rests = !ready(&relay);
    relay.turn();
    let rests = rests && !ready(&relay);
    sys::process::set_limit(LIMIT_OF_FILES, 1024, 1024).unwrap();
    assert!(rests);
    assert!(
        pause.is_some_and(|pause| pause <= ACCEPT_PAUSE),
        "{pause:?}"
    );
    thread::sleep(pause.unwrap());
    relay.turn();
    relay.turn();
    // Nobody serves there: an accepted client is told by the end.
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}
