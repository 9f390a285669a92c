//! What is made, what is found again, what is left: records, restarts, crashes, other people's rules.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::host::{
    self, Container, Host, INTERNET, PATIENCE, UPLINK, Weather, ask_tcp, attachment, check_seen_as,
    id, in_all_weathers, on_a_host, publish, ruleset,
};
use network::{Config, HostPort, Namespace, Network, PortRequest, Protocol};
use serde_json::Value;
use sys::command::Command;

mod killed;
mod rules;

/// The objects of one kind in `nft -j list ruleset`.
fn objects(kind: &str) -> Vec<Value> {
    let ruleset = ruleset();
    let all = ruleset["nftables"].as_array().unwrap();
    all.iter()
        .filter_map(|object| object.get(kind))
        .cloned()
        .collect()
}

/// Every element of our two maps: key, value and comment as `nft` shows them.
fn published() -> Vec<String> {
    let maps = objects("map");
    let ours = maps.iter().filter(|map| map["table"] == "cooper");
    ours.flat_map(|map| map["elem"].as_array().cloned().unwrap_or_default())
        .map(|element| element.to_string())
        .collect()
}

/// Rules of a chain in short: interface and verdict.
fn rules(table: &str, chain: &str) -> Vec<String> {
    objects("rule")
        .iter()
        .filter(|rule| rule["table"] == table && rule["chain"] == chain)
        .map(|rule| {
            let expressions = rule["expr"].as_array().unwrap();
            let words = expressions.iter().map(|expression| {
                let matched = &expression["match"];
                match matched["left"]["meta"]["key"].as_str() {
                    Some(key) => format!("{key} {}", matched["right"].as_str().unwrap_or("?")),
                    None => expression
                        .as_object()
                        .unwrap()
                        .keys()
                        .next()
                        .unwrap()
                        .clone(),
                }
            });
            words.collect::<Vec<_>>().join(" ")
        })
        .collect()
}

fn veths() -> Vec<String> {
    let all = host::run("ip", &["-o", "link", "show", "type", "veth"]);
    all.lines()
        .filter(|line| line.contains("veth"))
        .map(str::to_owned)
        .collect()
}

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

fn nothing_is_left() {
    assert_eq!(published(), Vec::<String>::new());
    let own = |line: &String| !line.contains("up0");
    wait_until("interfaces are left", || !veths().iter().any(own));
}

#[test]
fn every_object_carries_the_containers_id_and_goes_with_it() {
    in_all_weathers(|host| {
        let network = host.network();
        let bound = PortRequest {
            host_ip: Some(UPLINK.into()),
            ..publish(Protocol::Udp, 5353, 53)
        };
        let ports = [publish(Protocol::Tcp, 8080, 80), bound];
        let container = Container::new(&network, 7, &ports);
        let link = host::run("ip", &["link", "show", &container.endpoint.host_interface]);
        assert!(
            link.contains(&format!("alias cooper:{}", container.id)),
            "{link}"
        );
        let mut elements = published();
        elements.sort();
        let ip = container.endpoint.ipv4;
        let expected = |key: &str, port: u16| {
            format!(
                r#"[{{"elem":{{"val":{{"concat":[{key}]}},"comment":"{}"}}}},{{"concat":["{ip}",{port}]}}]"#,
                container.id
            )
        };
        let uplink = format!(r#""{UPLINK}","udp",5353"#);
        let mut wanted = [expected(r#""tcp",8080"#, 80), expected(&uplink, 53)];
        wanted.sort();
        assert_eq!(elements, wanted);
        network.detach(&container.id).unwrap();
        network.detach(&container.id).unwrap();
        assert_eq!(network.endpoint(&container.id).unwrap(), None);
        nothing_is_left();
    });
}

#[test]
fn a_restart_finds_everything_and_breaks_nothing() {
    in_all_weathers(|host| {
        let network = host.network();
        let ports = [
            publish(Protocol::Tcp, 8080, 80),
            publish(Protocol::Udp, 8080, 80),
        ];
        let container = Container::new(&network, 1, &ports);
        container.serve(80);
        let before = (
            network.subnet(),
            published(),
            network.endpoint(&container.id).unwrap(),
        );
        drop(network);
        // While nobody is there.
        host.on_the_internet(|| check_seen_as(UPLINK, 8080, INTERNET));
        let network = host.network();
        let after = (
            network.subnet(),
            published(),
            network.endpoint(&container.id).unwrap(),
        );
        assert_eq!(after, before);
        network
            .sweep(&HashSet::from([container.id.clone()]))
            .unwrap();
        host.on_the_internet(|| check_seen_as(UPLINK, 8080, INTERNET));
        check_seen_as(Ipv4Addr::LOCALHOST, 8080, network.gateway());
        network.sweep(&HashSet::new()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn the_sweep_takes_what_has_no_row_and_leaves_the_pool() {
    on_a_host(Weather::Docker, |host| {
        let network = host.network();
        let spare = network.prepare().unwrap();
        let stray = network.prepare().unwrap();
        let container = Container::new(&network, 1, &[publish(Protocol::Tcp, 8080, 80)]);
        host::nft(
            "add element inet cooper published { tcp . 9999 comment \"nobody\" : 172.17.0.9 . 99 }",
        );
        // Its descriptor stays open, as that of a process inside would.
        let kept = stray.into_fd();
        assert_eq!(
            veths()
                .iter()
                .filter(|line| line.contains("master cooper0"))
                .count(),
            3
        );
        network
            .sweep(&HashSet::from([container.id.clone()]))
            .unwrap();
        let left: Vec<String> = veths()
            .into_iter()
            .filter(|l| l.contains("master cooper0"))
            .collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert_eq!(published().len(), 1);
        drop((spare, kept));
        network.sweep(&HashSet::new()).unwrap();
        nothing_is_left();
    });
}

#[test]
fn a_taken_port_names_its_holder_and_nothing_is_left_of_the_loser() {
    on_a_host(Weather::Calm, |host| {
        let names: std::sync::Arc<network::Lookup> =
            std::sync::Arc::new(|container| (container == id(1)).then(|| "web".to_owned()));
        let config = Config {
            names: network::Names(names),
            ..host.config()
        };
        let network = Network::open(config).unwrap();
        let first = Container::new(&network, 1, &[publish(Protocol::Tcp, 9090, 80)]);
        let mut namespace = network.prepare().unwrap();
        let ports = [
            publish(Protocol::Udp, 9090, 80),
            publish(Protocol::Tcp, 9090, 80),
        ];
        let refused = network.attach(&mut namespace, &attachment(&id(2), &ports));
        assert_eq!(
            refused.unwrap_err().to_string(),
            "Bind for 0.0.0.0:9090 failed: port is already allocated (by container web)"
        );
        assert_eq!(network.endpoint(&id(2)).unwrap(), None);
        assert_eq!(published().len(), 1);
        // The same namespace serves the next attempt.
        let ports = [publish(Protocol::Udp, 9090, 80)];
        network
            .attach(&mut namespace, &attachment(&id(2), &ports))
            .unwrap();
        assert!(
            network
                .attach(&mut namespace, &attachment(&id(2), &[]))
                .is_err()
        );
        // The port is free with its socket, whatever became of the element.
        drop(first.endpoint);
        let third = Container::new(&network, 3, &[publish(Protocol::Tcp, 9090, 81)]);
        let of_port = published()
            .into_iter()
            .find(|element| element.contains("tcp"))
            .unwrap();
        assert!(of_port.contains(&third.id), "{of_port}");
        network.detach(&first.id).unwrap();
        let still = published()
            .into_iter()
            .find(|element| element.contains("tcp"))
            .unwrap();
        assert!(still.contains(&third.id), "{still}");
    });
}

#[test]
fn fifty_at_once_get_different_addresses_and_ports() {
    on_a_host(Weather::Docker, |host| {
        let network = host.network();
        let any = PortRequest {
            host_port: HostPort::Any,
            ..publish(Protocol::Tcp, 1, 80)
        };
        let containers: Vec<Container> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..50)
                .map(|number| {
                    let (network, any) = (&network, &any);
                    scope.spawn(move || Container::new(network, number, std::slice::from_ref(any)))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let addresses: HashSet<_> = containers.iter().map(|c| c.endpoint.ipv4).collect();
        let ports: HashSet<_> = containers
            .iter()
            .map(|c| c.endpoint.ports[0].host_port)
            .collect();
        assert_eq!(
            (addresses.len(), ports.len(), published().len()),
            (50, 50, 50)
        );
        for container in containers.iter().step_by(7) {
            container.serve(80);
            let port = container.endpoint.ports[0].host_port;
            host.on_the_internet(|| assert!(ask_tcp(UPLINK, port, PATIENCE).is_ok()));
        }
        std::thread::scope(|scope| {
            for container in &containers {
                scope.spawn(|| network.detach(&container.id).unwrap());
            }
        });
        nothing_is_left();
    });
}

#[test]
fn a_udp_client_that_never_pauses_reaches_the_next_container() {
    in_all_weathers(|host| {
        let network = host.network();
        let ports = [publish(Protocol::Udp, 5000, 80)];
        let first = Container::new(&network, 1, &ports);
        first.serve(80);
        host.on_the_internet(|| {
            let socket = std::net::UdpSocket::bind((INTERNET, 4000)).unwrap();
            socket.connect((UPLINK, 5000)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            let answered = || socket.send(b"?").is_ok() && socket.recv(&mut [0; 64]).is_ok();
            wait_until("the first container answers", answered);
            network.detach(&first.id).unwrap();
            drop(first);
            let second = host::inside(host.outside.as_fd(), || {
                let second = Container::new(&network, 2, &ports);
                second.serve(80);
                second
            });
            // The same client, the same flow.
            wait_until("the second container answers", answered);
            drop(second);
        });
    });
}

#[test]
fn a_udp_client_that_came_too_early_reaches_the_container() {
    in_all_weathers(|host| {
        let network = host.network();
        host.on_the_internet(|| {
            let socket = std::net::UdpSocket::bind((INTERNET, 4000)).unwrap();
            socket.connect((UPLINK, 5000)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            // The kernel decides now that this flow is not translated, and remembers it.
            socket.send(b"?").unwrap();
            wait_until("the refusal", || socket.recv(&mut [0; 64]).is_err());
            let container = host::inside(host.outside.as_fd(), || {
                let container = Container::new(&network, 1, &[publish(Protocol::Udp, 5000, 80)]);
                container.serve(80);
                container
            });
            let answered = || socket.send(b"?").is_ok() && socket.recv(&mut [0; 64]).is_ok();
            wait_until("the container answers", answered);
            drop(container);
        });
    });
}

#[test]
fn ipv6_clients_are_relayed() {
    in_all_weathers(|host| {
        let network = host.network();
        let ports = [
            publish(Protocol::Tcp, 8080, 80),
            publish(Protocol::Udp, 8080, 80),
        ];
        let mut container = Container::new(&network, 1, &ports);
        container.serve(80);
        let forwards = std::mem::take(&mut container.endpoint.forwards);
        let mut relay = network::relay::Relay::new(forwards).unwrap();
        let (stop, stopper) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let epoll = sys::epoll::Epoll::new().unwrap();
                epoll
                    .add(relay.as_fd(), 0, sys::epoll::Interest::READ)
                    .unwrap();
                epoll
                    .add(stop.as_fd(), 1, sys::epoll::Interest::READ)
                    .unwrap();
                let mut events = Vec::new();
                while !events
                    .iter()
                    .any(|event: &sys::epoll::Event| event.key == 1)
                {
                    relay.turn();
                    epoll.wait(&mut events, relay.timeout()).unwrap();
                }
            });
            check_seen_as(std::net::Ipv6Addr::LOCALHOST, 8080, network.gateway());
            check_seen_as(Ipv4Addr::LOCALHOST, 8080, network.gateway());
            drop(stopper);
        });
    });
}

#[test]
fn the_subnet_avoids_routes_and_stays_the_same() {
    on_a_host(Weather::Calm, |host| {
        host::ip(&format!("route add 172.17.0.0/16 via {INTERNET}"));
        host::ip(&format!("route add 172.18.128.0/20 via {INTERNET}"));
        let network = host.network();
        assert_eq!(network.subnet().to_string(), "172.19.0.0/16");
        drop(network);
        host::ip(&format!("route del 172.17.0.0/16 via {INTERNET}"));
        assert_eq!(host.network().subnet().to_string(), "172.19.0.0/16");
    });
}

#[test]
fn another_bip_replaces_the_address_and_two_daemons_leave_each_other_alone() {
    in_all_weathers(|host| {
        drop(host.network());
        let moved = Config {
            address: Some("10.77.0.1/24".parse().unwrap()),
            ..host.config()
        };
        let network = Network::open(moved).unwrap();
        let shown = host::run("ip", &["-o", "-4", "addr", "show", "cooper0"]);
        assert!(
            shown.lines().count() == 1 && shown.contains("10.77.0.1/24"),
            "{shown}"
        );
        let other = Config {
            bridge: "cooper1".to_owned(),
            instance: "cooper-b".to_owned(),
            ..host.config()
        };
        let other = Network::open(other).unwrap();
        let before = [rules("cooper", "forward"), rules("cooper-b", "forward")];
        network.check().unwrap();
        other.check().unwrap();
        assert_eq!(
            [rules("cooper", "forward"), rules("cooper-b", "forward")],
            before
        );
        let here = Container::new(&network, 1, &[publish(Protocol::Tcp, 8080, 80)]);
        let there = Container::new(&other, 2, &[]);
        here.serve(80);
        // Not directly, but by the published port.
        there.run(|| host::check_unreachable(here.endpoint.ipv4, 80));
        there.run(|| assert!(ask_tcp(UPLINK, 8080, PATIENCE).is_ok()));
        other.remove().unwrap();
        assert_eq!(rules("cooper", "forward"), before[0]);
    });
}
