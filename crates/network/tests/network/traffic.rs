//! Who reaches whom, in every weather.

use std::net::Ipv4Addr;

use crate::host::{
    self, Container, INTERNET, UPLINK, check_seen_as, check_unreachable, in_all_weathers, publish,
};
use network::Protocol;

#[test]
fn containers_reach_each_other_and_the_world() {
    in_all_weathers(|host| {
        let network = host.network();
        let a = Container::new(&network, 1, &[]);
        let b = Container::new(&network, 2, &[]);
        b.serve(80);
        a.run(|| check_seen_as(b.endpoint.ipv4, 80, a.endpoint.ipv4));
        host.on_the_internet(|| host::serve(80));
        // The world sees the host's address.
        a.run(|| check_seen_as(INTERNET, 80, UPLINK));
        // The host itself reaches a container directly.
        check_seen_as(b.endpoint.ipv4, 80, network.gateway());
    });
}

#[test]
fn published_ports_answer_from_everywhere() {
    in_all_weathers(|host| {
        let network = host.network();
        let ports = [
            publish(Protocol::Tcp, 8080, 80),
            publish(Protocol::Udp, 8080, 80),
        ];
        let server = Container::new(&network, 1, &ports);
        server.serve(80);
        let other = Container::new(&network, 2, &[]);
        let gateway = network.gateway();
        // From outside, with the client's own address.
        host.on_the_internet(|| check_seen_as(UPLINK, 8080, INTERNET));
        // From the host's loopback, which the container cannot answer directly.
        check_seen_as(Ipv4Addr::LOCALHOST, 8080, gateway);
        check_seen_as(UPLINK, 8080, UPLINK);
        // From a neighbour and from the container itself, by any address of the host.
        for address in [gateway, UPLINK] {
            other.run(|| check_seen_as(address, 8080, gateway));
            server.run(|| check_seen_as(address, 8080, gateway));
        }
    });
}

#[test]
fn what_is_not_published_is_not_reached() {
    in_all_weathers(|host| {
        let network = host.network();
        let loopback_only = [
            network::PortRequest {
                host_ip: Some(Ipv4Addr::LOCALHOST.into()),
                ..publish(Protocol::Tcp, 9090, 80)
            },
            network::PortRequest {
                host_ip: Some(Ipv4Addr::LOCALHOST.into()),
                ..publish(Protocol::Udp, 9090, 80)
            },
        ];
        let server = Container::new(&network, 1, &loopback_only);
        server.serve(80);
        server.serve(81);
        check_seen_as(Ipv4Addr::LOCALHOST, 9090, network.gateway());
        let subnet = network.subnet();
        host.on_the_internet(|| {
            // A neighbour that routes to the containers through us, and forges loopback addresses.
            host::ip(&format!("route add {subnet} via {UPLINK}"));
            host::ip("addr del 127.0.0.1/8 dev lo");
            host::ip(&format!(
                "route add 127.0.0.0/8 via {UPLINK} src {INTERNET}"
            ));
            let forge = ["all", "net0"]
                .map(|name| format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"));
            for path in forge {
                std::fs::write(path, "1").unwrap();
            }
            for port in [80, 81] {
                check_unreachable(server.endpoint.ipv4, port);
            }
            check_unreachable(UPLINK, 9090);
            check_unreachable(Ipv4Addr::LOCALHOST, 9090);
        });
        // A container that forges is no better.
        let other = Container::new(&network, 2, &[]);
        let gateway = network.gateway();
        other.run(|| {
            host::ip("addr del 127.0.0.1/8 dev lo");
            std::fs::write("/proc/sys/net/ipv4/conf/eth0/route_localnet", "1").unwrap();
            host::ip(&format!("route add 127.0.0.0/8 via {gateway}"));
            check_unreachable(Ipv4Addr::LOCALHOST, 9090);
        });
    });
}

#[test]
fn without_icc_only_published_ports_connect_containers() {
    in_all_weathers(|host| {
        let config = network::Config {
            icc: false,
            ..host.config()
        };
        let network = network::Network::open(config).unwrap();
        let ports = [
            publish(Protocol::Tcp, 8080, 80),
            publish(Protocol::Udp, 8080, 80),
        ];
        let server = Container::new(&network, 1, &ports);
        server.serve(80);
        let other = Container::new(&network, 2, &[]);
        other.run(|| check_unreachable(server.endpoint.ipv4, 80));
        // Nor by way of the host, which would route between two ports of one bridge.
        let detour = format!(
            "route add {}/32 via {}",
            server.endpoint.ipv4,
            network.gateway()
        );
        other.run(|| host::ip(&detour));
        other.run(|| check_unreachable(server.endpoint.ipv4, 80));
        host.on_the_internet(|| check_seen_as(UPLINK, 8080, INTERNET));
        host.on_the_internet(|| host::serve(80));
        other.run(|| check_seen_as(INTERNET, 80, UPLINK));
    });
}
