//! Tables of peers, hosts and origins.

use hyper::Request;

use super::*;

fn head(headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().uri("/containers/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn peer(address: &str) -> Peer {
    Peer::Plaintext(SocketAddr::new(address.parse().unwrap(), 4000))
}

fn status(gate: &Gate, peer: Peer, headers: &[(&str, &str)]) -> u16 {
    gate.check(peer, &head(headers))
        .map_or_else(|failure| failure.status.as_u16(), |()| 200)
}

#[test]
fn the_peers_address_decides() {
    let gate = Gate {
        plaintext: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..Gate::default()
    };
    for (address, wanted) in [
        ("127.0.0.1", 200),
        ("127.9.9.9", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("10.1.2.3", 200),
        ("::ffff:10.1.2.3", 200),
        ("10.2.0.1", 401),
        ("192.168.1.5", 401),
        ("fd12::1", 200),
        ("2001:db8::1", 401),
        ("::ffff:192.168.1.5", 401),
    ] {
        assert_eq!(
            status(&gate, peer(address), &[("host", "127.0.0.1:2375")]),
            wanted,
            "{address}"
        );
    }
}

#[test]
fn a_refused_peer_is_told_what_works() {
    let told = Gate::default()
        .check(peer("192.0.2.7"), &head(&[("host", "x")]))
        .unwrap_err()
        .message;
    for word in ["ssh://", "--allow-plaintext 192.0.2.7"] {
        assert!(told.contains(word), "{told}");
    }
    // There is no TLS yet: a listener with it keeps the daemon from starting.
    assert!(!told.contains("--tls") && !told.contains('\n'), "{told}");
}

#[test]
fn hosts_on_tcp_are_addresses_or_ours() {
    let gate = Gate {
        names: BTreeSet::from(["engine.lan".to_owned()]),
        ..Gate::default()
    };
    for (host, wanted) in [
        ("127.0.0.1:2375", 200),
        ("192.168.1.5", 200),
        ("[::1]:2375", 200),
        ("[::1]", 200),
        ("localhost", 200),
        ("LOCALHOST:2375", 200),
        ("engine.lan:2375", 200),
        ("evil.example", 403),
        ("evil.example:2375", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1:2375@evil.example", 403),
        ("", 403),
    ] {
        assert_eq!(
            status(&gate, peer("127.0.0.1"), &[("host", host)]),
            wanted,
            "{host}"
        );
    }
    assert_eq!(status(&gate, peer("127.0.0.1"), &[]), 400);
    let twice = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(status(&gate, peer("127.0.0.1"), &twice), 400);
}

#[test]
fn the_targets_authority_counts_as_well() {
    let request = Request::get("http://evil.example/info")
        .header("host", "localhost")
        .body(())
        .unwrap();
    let refused = Gate::default().check(peer("127.0.0.1"), &request.into_parts().0);
    assert_eq!(refused.unwrap_err().status, StatusCode::FORBIDDEN);
}

#[test]
fn foreign_pages_are_refused() {
    let gate = Gate {
        origins: BTreeSet::from(["https://panel.example".to_owned()]),
        ..Gate::default()
    };
    let own = ("host", "localhost:2375");
    for (name, value, wanted) in [
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://localhost:8080", 403),
        ("origin", "https://localhost:2375", 403),
        ("origin", "http://localhost:2375", 200),
        ("origin", "https://panel.example", 200),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
        (
            "referer",
            "http://evil.example/a?http://localhost:2375",
            403,
        ),
        ("referer", "http://localhost:2375/explorer", 200),
        ("x-nothing", "1", 200),
    ] {
        assert_eq!(
            status(&gate, peer("::1"), &[own, (name, value)]),
            wanted,
            "{name}: {value}"
        );
    }
    let both = [
        own,
        ("origin", "https://panel.example"),
        ("sec-fetch-site", "cross-site"),
    ];
    assert_eq!(status(&gate, peer("::1"), &both), 200);
    let two = [
        own,
        ("origin", "http://localhost:2375"),
        ("origin", "http://evil.example"),
    ];
    assert_eq!(status(&gate, peer("::1"), &two), 403);
}

#[test]
fn on_a_unix_socket_anything_goes() {
    let headers = [("host", "evil.example"), ("origin", "http://evil.example")];
    assert_eq!(status(&Gate::default(), Peer::Unix, &headers), 200);
    assert_eq!(status(&Gate::default(), Peer::Unix, &[]), 200);
}

#[test]
fn networks_parse() {
    for bad in ["x", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", ""] {
        assert!(bad.parse::<Network>().is_err(), "{bad}");
    }
    let all: Network = "0.0.0.0/0".parse().unwrap();
    assert!(all.contains("203.0.113.9".parse().unwrap()));
    assert!(!all.contains("2001:db8::1".parse().unwrap()));
    let one: Network = "203.0.113.9".parse().unwrap();
    assert!(!one.contains("203.0.113.8".parse().unwrap()));
}
