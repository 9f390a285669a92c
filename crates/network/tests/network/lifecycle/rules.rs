//! Our rules among other people's: where they stand, that they come back, what they let pass.

use super::*;

const OURS: [&str; 2] = [
    "iifname cooper0 counter accept",
    "oifname cooper0 counter accept",
];

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
