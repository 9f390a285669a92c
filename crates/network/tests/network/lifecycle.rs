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

const OURS: [&str; 2] = [
    "iifname cooper0 counter accept",
    "oifname cooper0 counter accept",
];

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
fn nft_reads_the_table_as_it_is_meant() {
    on_a_host(Weather::Calm, |host| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let network = host.network();
        let container = Container::new(&network, 7, &[publish(Protocol::Tcp, 8080, 80)]);
        let text = host::run("nft", &["list", "table", "inet", "cooper"]);
        let lines = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && *line != "}");
        let shown = lines.collect::<Vec<_>>().join("\n");
        let expected = TABLE.replace("$ID", &container.id);
        assert_eq!(shown.replace(" packets 0 bytes 0", ""), expected.trim());
    });
}

/// `nft list table inet cooper`, without counts, indentation and closing brackets.
const TABLE: &str = r#"
table inet cooper {
map published {
type inet_proto . inet_service : ipv4_addr . inet_service
elements = { tcp . 8080 comment "$ID" : 172.17.0.2 . 80 }
map published_on {
type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
chain raw {
type filter hook prerouting priority raw; policy accept;
iifname != "lo" ip saddr 127.0.0.0/8 counter drop
iifname != "lo" ip daddr 127.0.0.0/8 counter drop
chain publish {
dnat ip to ip daddr . meta l4proto . th dport map @published_on
meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published
chain prerouting {
type nat hook prerouting priority dstnat; policy accept;
meta nfproto ipv4 fib daddr type local jump publish
chain output {
type nat hook output priority -100; policy accept;
meta nfproto ipv4 fib daddr type local jump publish
chain forward {
type filter hook forward priority filter - 10; policy accept;
iifname "cooper0" oifname "cooper0" counter accept
oifname "cooper0" ct state established,related counter accept
oifname "cooper0" ct status dnat counter accept
oifname "cooper0" counter drop
meta iifkind "bridge" counter accept
meta oifkind "bridge" counter accept
meta nfproto ipv4 counter drop
chain postrouting {
type nat hook postrouting priority srcnat; policy accept;
oifname "cooper0" ip saddr 127.0.0.0/8 counter masquerade
oifname "cooper0" ip saddr 172.17.0.0/16 ct status dnat counter masquerade
oifname != "cooper0" ip saddr 172.17.0.0/16 counter masquerade
"#;

#[test]
fn exactly_two_rules_stand_where_others_drop() {
    in_all_weathers(|host| {
        let network = host.network();
        match host.weather {
            Weather::Calm => assert_eq!(objects("chain").len(), 6, "only our own chains"),
            Weather::ForeignDrop => assert_eq!(rules("guard", "f")[..2], OURS),
            Weather::Docker => {
                assert_eq!(rules("filter", "DOCKER-USER"), OURS);
                let shown = host::run("iptables-nft", &["-S"]);
                assert!(
                    shown.contains("-A DOCKER-USER -i cooper0 -j ACCEPT\n"),
                    "{shown}"
                );
                assert!(
                    shown.contains("-A DOCKER-USER -o cooper0 -j ACCEPT\n"),
                    "{shown}"
                );
                assert_eq!(rules("filter", "FORWARD"), ["counter jump"]);
            }
        }
        // Opening again adds none; a new rule above ours moves them back to the head.
        drop(network);
        let network = host.network();
        if host.weather == Weather::Docker {
            host::run(
                "iptables-nft",
                &["-I", "DOCKER-USER", "-s", "203.0.113.9", "-j", "DROP"],
            );
            network.check().unwrap();
            let found = rules("filter", "DOCKER-USER");
            assert_eq!(
                (&found[..2], found.len()),
                (&OURS.map(str::to_owned)[..], 3)
            );
            // What another engine let through may stay above: two that both insist on the head would never rest.
            host::run(
                "iptables-nft",
                &["-I", "DOCKER-USER", "-i", "cooper9", "-j", "ACCEPT"],
            );
            network.check().unwrap();
            assert_eq!(rules("filter", "DOCKER-USER")[1..3], OURS);
        }
        network.remove().unwrap();
        let ours = ["guard", "filter"]
            .iter()
            .flat_map(|table| ["f", "DOCKER-USER", "FORWARD"].map(|chain| rules(table, chain)));
        assert!(!ours.flatten().any(|rule| OURS.contains(&rule.as_str())));
        assert!(
            objects("table")
                .iter()
                .all(|table| table["name"] != "cooper")
        );
        nothing_is_left();
    });
}

#[test]
fn legacy_rules_are_let_through_too() {
    on_a_host(Weather::Calm, |host| {
        host::run("iptables-legacy", &["-P", "FORWARD", "DROP"]);
        let network = host.network();
        let shown = host::run("iptables-legacy", &["-S", "FORWARD"]);
        let expected =
            "-P FORWARD DROP\n-A FORWARD -i cooper0 -j ACCEPT\n-A FORWARD -o cooper0 -j ACCEPT\n";
        assert_eq!(shown, expected);
        assert_eq!(network.warnings(), Vec::<String>::new());
        let a = Container::new(&network, 1, &[]);
        host.on_the_internet(|| host::serve(80));
        a.run(|| check_seen_as(INTERNET, 80, UPLINK));
        drop(network);
        let network = host.network();
        assert_eq!(host::run("iptables-legacy", &["-S", "FORWARD"]), expected);
        network.remove().unwrap();
        assert_eq!(
            host::run("iptables-legacy", &["-S", "FORWARD"]),
            "-P FORWARD DROP\n"
        );
    });
}

/// Another engine does the same for its bridge, and whoever comes last stands first.
#[test]
fn two_engines_leave_each_others_legacy_rules_where_they_are() {
    on_a_host(Weather::Calm, |host| {
        let shown = || host::run("iptables-legacy", &["-S", "FORWARD"]);
        host::run("iptables-legacy", &["-P", "FORWARD", "DROP"]);
        let network = host.network();
        for direction in ["-o", "-i"] {
            let other = ["-I", "FORWARD", direction, "cooper9", "-j", "ACCEPT"];
            host::run("iptables-legacy", &other);
        }
        let both = "-P FORWARD DROP\n-A FORWARD -i cooper9 -j ACCEPT\n-A FORWARD -o cooper9 -j ACCEPT\n\
                    -A FORWARD -i cooper0 -j ACCEPT\n-A FORWARD -o cooper0 -j ACCEPT\n";
        assert_eq!(shown(), both);
        for _ in 0..2 {
            network.check().unwrap();
            assert_eq!(shown(), both);
        }
        // What may drop is another matter, and so is a rule that went missing or stands twice.
        for spoil in [
            &["-I", "FORWARD", "-p", "tcp", "-j", "DROP"][..],
            &["-D", "FORWARD", "-o", "cooper0", "-j", "ACCEPT"],
            &["-A", "FORWARD", "-i", "cooper0", "-j", "ACCEPT"],
        ] {
            host::run("iptables-legacy", spoil);
            network.check().unwrap();
            let rules = shown();
            let ours = rules.lines().skip(1).take(2).collect::<Vec<_>>();
            assert_eq!(
                ours,
                [
                    "-A FORWARD -i cooper0 -j ACCEPT",
                    "-A FORWARD -o cooper0 -j ACCEPT"
                ]
            );
            assert_eq!(rules.matches("cooper0").count(), 2, "{rules}");
            assert_eq!(rules.matches("cooper9").count(), 2, "{rules}");
        }
        network.remove().unwrap();
        let left = shown();
        assert!(
            !left.contains("cooper0") && left.matches("cooper9").count() == 2,
            "{left}"
        );
    });
}

/// Runs `work` while a watcher is at its work.
fn watched(network: &Network, work: impl FnOnce()) {
    let (stop, stopper) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| network.watch(stop.as_fd()));
        work();
        drop(stopper);
        watcher.join().unwrap().unwrap();
    });
}

#[test]
fn a_flushed_ruleset_comes_back_with_every_port() {
    in_all_weathers(|host| {
        let network = host.network();
        let container = Container::new(&network, 1, &[publish(Protocol::Tcp, 8080, 80)]);
        container.serve(80);
        let before = published();
        let route_localnet = "/proc/sys/net/ipv4/conf/cooper0/route_localnet";
        watched(&network, || {
            for damage in [
                "flush ruleset",
                "delete table inet cooper",
                "flush chain inet cooper raw",
                "flush map inet cooper published",
            ] {
                host::nft(damage);
                wait_until(damage, || {
                    published() == before
                        && std::fs::read_to_string(route_localnet).unwrap() == "1\n"
                        && rules("cooper", "raw").len() == 2
                });
                assert!(
                    ask_tcp(Ipv4Addr::LOCALHOST, 8080, PATIENCE).is_ok(),
                    "{damage}"
                );
            }
            // A firewall that comes later and drops what it does not know.
            host::nft(
                "table inet late { chain f { type filter hook forward priority filter; policy drop; }; }",
            );
            wait_until("the late firewall", || rules("late", "f") == OURS);
        });
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

#[test]
fn forwarding_that_we_turned_on_is_only_for_bridges() {
    on_a_host(Weather::Calm, |host| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let other = host::second_network();
        let route = format!("route add 203.0.113.0/24 via {UPLINK}");
        host.on_the_internet(|| host::ip(&route));
        let network = host.network();
        host.on_the_internet(|| host::check_unreachable(host::SECOND, 80));
        drop(network);
        // Remembered: forwarding is on now, and still because of us.
        let network = host.network();
        host.on_the_internet(|| host::check_unreachable(host::SECOND, 80));
        network.remove().unwrap();
        host.on_the_internet(|| assert!(ask_tcp(host::SECOND, 80, PATIENCE).is_ok()));
        drop(other);
    });
}

/// A network card has no kind, as `lo` has none: what leaves by it is counted where it would leave.
#[test]
fn forwarding_that_we_turned_on_is_not_for_network_cards() {
    on_a_host(Weather::Calm, |host| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        host::ip("route add 203.0.113.0/24 dev lo");
        let route = format!("route add 203.0.113.0/24 via {UPLINK}");
        host.on_the_internet(|| host::ip(&route));
        host::nft(
            "table ip probe { counter cards { }; chain c { type filter hook postrouting priority 0; \
             oifname \"lo\" ip daddr 203.0.113.0/24 counter name cards; }; }",
        );
        let left = || {
            let shown = host::run("nft", &["-j", "list", "counter", "ip", "probe", "cards"]);
            let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
            shown["nftables"][1]["counter"]["packets"].as_u64().unwrap()
        };
        let send = || {
            host.on_the_internet(|| {
                assert!(host::ask_udp(host::SECOND, 9, host::SILENCE).is_err());
            });
        };
        let network = host.network();
        send();
        assert_eq!(left(), 0);
        // Without the guard it does leave: the probe sees what it should.
        network.remove().unwrap();
        send();
        assert_ne!(left(), 0);
    });
}

/// What touches another engine's bridge is that engine's affair.
#[test]
fn other_bridges_are_forwarded_to_and_from() {
    on_a_host(Weather::Calm, |host| {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let other = host::second_network();
        host::ip("addr del 203.0.113.2/24 dev up1");
        host::ip("link add docker0 type bridge");
        host::ip("link set up1 master docker0");
        host::ip("link set docker0 up");
        host::ip("addr add 203.0.113.2/24 dev docker0");
        let route = format!("route add 203.0.113.0/24 via {UPLINK}");
        host.on_the_internet(|| host::ip(&route));
        let network = host.network();
        host.on_the_internet(|| assert!(ask_tcp(host::SECOND, 80, PATIENCE).is_ok()));
        drop((network, other));
    });
}

/// Every crash point of this crate, and whether a container is known to be attached by then.
const POINTS: [&str; 8] = [
    "network.bridge.row",
    "network.bridge",
    "network.table",
    "network.claimed",
    "network.linked",
    "network.published",
    "network.unpublished",
    "network.released",
];
const CHILD: &str = "NETWORK_TEST_CHILD";
const NAMESPACE: &str = "NETWORK_TEST_NAMESPACE";

#[test]
fn a_kill_at_any_step_leaves_nothing_after_the_sweep() {
    if let Some(directory) = std::env::var_os(CHILD) {
        let namespace = std::fs::File::open(std::env::var_os(NAMESPACE).unwrap()).unwrap();
        return crashing(
            &Host::child(directory.into()),
            Namespace::existing(namespace.into()),
        );
    }
    for point in POINTS {
        on_a_host(Weather::Docker, |host| {
            // The namespace outlives the child, as that of a running container outlives the daemon.
            let namespace = Namespace::isolated().unwrap();
            let raw = std::os::fd::AsRawFd::as_raw_fd(&namespace.fd());
            let output = Command::new(std::env::current_exe().unwrap())
                .arg("lifecycle::a_kill_at_any_step_leaves_nothing_after_the_sweep")
                .arg("--exact")
                .env(CHILD, host.directory())
                .env(NAMESPACE, format!("/proc/{}/fd/{raw}", std::process::id()))
                .env("COOPER_FAULT", point)
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&output.status);
            assert_eq!(
                signal,
                Some(9),
                "{point}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
            let network = host.network();
            network.sweep(&HashSet::new()).unwrap();
            assert_eq!(network.endpoint(&id(1)).unwrap(), None, "{point}");
            nothing_is_left();
            let again = Container::new(&network, 1, &[publish(Protocol::Tcp, 8080, 80)]);
            again.serve(80);
            host.on_the_internet(|| assert!(ask_tcp(UPLINK, 8080, PATIENCE).is_ok(), "{point}"));
        });
    }
}

fn crashing(host: &Host, mut namespace: Namespace) {
    let network = host.network();
    let request = attachment(&id(1), &[publish(Protocol::Tcp, 8080, 80)]);
    network.attach(&mut namespace, &request).unwrap();
    network.detach(&id(1)).unwrap();
}
