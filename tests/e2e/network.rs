//! The default bridge from outside: who reaches whom, published ports, what survives a daemon.
//!
//! Where the machine has a dockerd beside it, with FORWARD DROP and bridge-nf-call-iptables on, everything here holds
//! all the same (DESIGN decision 6); the tests of crates/network make such a firewall themselves.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{TestDaemon, wait_until};

use crate::{daemon, daemon_with};

/// How long an answer may take that must come; far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(15);

/// A server of this text on port 80.
fn server(text: &str, bindings: &Value) -> Value {
    let script = format!("echo {text} > /index.html; exec httpd -f -p 80 -h /");
    json!({
        "Image": "busybox", "Cmd": ["sh", "-c", script],
        "ExposedPorts": {"80/tcp": {}, "81/tcp": {}, "99/udp": {}},
        "HostConfig": {"PortBindings": bindings},
    })
}

fn get(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

/// Waits until the address serves `text`.
fn serves(address: impl Into<SocketAddr>, text: &str) {
    let address = address.into();
    wait_until(&format!("{address} to serve {text}"), PATIENCE, || {
        get(address).ok().filter(|answer| answer == text)
    });
}

fn inspect(daemon: &TestDaemon, id: &str) -> Value {
    daemon
        .client()
        .get(&format!("/containers/{id}/json"))
        .expect(200)
        .json()
}

fn address(daemon: &TestDaemon, id: &str) -> Ipv4Addr {
    let network = &inspect(daemon, id)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"];
    let text = network.as_str().expect("an address");
    text.parse().unwrap_or_else(|_| panic!("{text:?}"))
}

fn host_port(daemon: &TestDaemon, id: &str, port: &str) -> u16 {
    let settings = inspect(daemon, id)["NetworkSettings"].clone();
    let port = settings["Ports"][port][0]["HostPort"].as_str();
    port.and_then(|port| port.parse().ok())
        .unwrap_or_else(|| panic!("{settings}"))
}

/// Runs a command in a container of its own and answers its exit code and output.
fn run_in(daemon: &TestDaemon, script: &str) -> (i64, String) {
    let id = daemon.run(&json!({"Image": "busybox", "Cmd": ["sh", "-c", script]}));
    let client = daemon.client();
    let waited = client.post(&format!("/containers/{id}/wait"), &Value::Null);
    let code = waited.expect(200).json()["StatusCode"]
        .as_i64()
        .expect("a code");
    let logs = client
        .get(&format!("/containers/{id}/logs?stdout=1&stderr=1"))
        .expect(200);
    let (out, err) = testkit::client::frames(&logs.body);
    client.delete(&format!("/containers/{id}")).expect(204);
    (code, out + &err)
}

/// The address of this machine on its way out; a machine without a network has none.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

fn ip(arguments: &str) {
    let mut command = sys::command::Command::new("/usr/sbin/ip");
    if !std::path::Path::new("/usr/sbin/ip").exists() {
        command = sys::command::Command::new("/sbin/ip");
    }
    for argument in arguments.split(' ') {
        command = command.arg(argument);
    }
    let output = command.output().expect("the program ip");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The interfaces on the daemon's bridge.
fn bridge_ports(daemon: &TestDaemon) -> Vec<String> {
    let ports = format!("/sys/class/net/{}/brif", daemon.bridge().name);
    let ports = std::fs::read_dir(ports).expect("the bridge");
    let name = |entry: io::Result<std::fs::DirEntry>| entry.expect("a port").file_name();
    ports
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect()
}

/// NetworkManager and systemd-networkd do so when they are reloaded.
#[test]
fn a_namespace_whose_interface_was_taken_away_is_no_reason_to_fail() {
    let Some(daemon) = daemon() else { return };
    // With none running, what is on the bridge was made for the starts to come.
    let ready = wait_until("namespaces to be ready", PATIENCE, || {
        Some(bridge_ports(&daemon)).filter(|ports| ports.len() > 1)
    });
    for port in &ready {
        ip(&format!("link del {port}"));
    }
    for _ in 0..=ready.len() {
        let id = daemon.run(&server("all the same", &json!({})));
        serves((address(&daemon, &id), 80), "all the same");
    }
}

#[test]
fn containers_reach_the_gateway_each_other_and_the_host() {
    let Some(daemon) = daemon() else { return };
    let id = daemon.run(&server("neighbour", &json!({})));
    let there = address(&daemon, &id);
    serves((there, 80), "neighbour");
    let gateway = daemon.bridge().address;
    let mut script =
        format!("ping -c1 -W5 {gateway} >/dev/null && wget -qO- http://{there}/index.html");
    let mut expected = "neighbour\n".to_owned();
    if let Some(own) = own_address() {
        let listener = TcpListener::bind((own, 0)).expect("listen on the host");
        let port = listener.local_addr().expect("its address").port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let head = b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhost\n";
            stream.write_all(head).expect("an answer");
        });
        script += &format!(" && wget -qO- http://{own}:{port}/");
        expected += "host\n";
    }
    assert_eq!(run_in(&daemon, &script), (0, expected));
    let (code, hosts) = run_in(
        &daemon,
        "cat /etc/hosts; hostname -i; ip -o -4 addr show eth0",
    );
    assert_eq!(code, 0, "{hosts}");
    let subnet = there.to_string();
    let subnet = &subnet[..=subnet.rfind('.').expect("dots")];
    assert_eq!(
        hosts.matches(subnet).count(),
        4,
        "hosts, hostname -i, inet and brd: {hosts}"
    );
}

#[test]
fn published_ports_answer_from_everywhere() {
    let Some(daemon) = daemon() else { return };
    let bindings = json!({
        "80/tcp": [{"HostPort": ""}],
        "99/udp": [{"HostPort": "0"}],
    });
    let id = daemon.run(&server("published", &bindings));
    let port = host_port(&daemon, &id, "80/tcp");
    serves((Ipv4Addr::LOCALHOST, port), "published");
    serves((std::net::Ipv6Addr::LOCALHOST, port), "published");
    serves((daemon.bridge().address, port), "published");
    if let Some(own) = own_address() {
        serves((own, port), "published");
    }
    let (code, text) = run_in(
        &daemon,
        &format!(
            "wget -qO- http://{}:{port}/index.html",
            daemon.bridge().address
        ),
    );
    assert_eq!((code, text.as_str()), (0, "published\n"), "by the gateway");
    from_a_neighbour(&daemon, port);

    let udp_port = host_port(&daemon, &id, "99/udp");
    let key = inspect(&daemon, &id)["NetworkSettings"]["SandboxKey"].clone();
    let namespace = std::fs::File::open(key.as_str().expect("a path")).expect("the namespace");
    let echo = sys::netns::enter(namespace.as_fd(), || UdpSocket::bind("0.0.0.0:99"));
    let echo = echo.expect("a socket in the container");
    let answers = std::thread::spawn(move || {
        let mut buffer = [0; 64];
        for _ in 0..2 {
            let (length, from) = echo.recv_from(&mut buffer).expect("a datagram");
            echo.send_to(&buffer[..length], from).expect("an answer");
        }
    });
    for (own, there) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")] {
        let client = UdpSocket::bind(own).expect("a client");
        client.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let there: IpAddr = there.parse().expect("an address");
        client.send_to(b"ping", (there, udp_port)).expect("send");
        let mut buffer = [0; 64];
        let (length, from) = client.recv_from(&mut buffer).expect("an echo");
        assert_eq!(&buffer[..length], b"ping", "from {from}");
        assert_eq!(from.port(), udp_port, "from {from}");
    }
    answers.join().expect("two echoes");
    let ports = daemon.client().get("/containers/json").expect(200).json()[0]["Ports"].clone();
    let expected = json!([
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": port, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": port, "Type": "tcp"},
        {"PrivatePort": 81, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 99, "PublicPort": udp_port, "Type": "udp"},
        {"IP": "::", "PrivatePort": 99, "PublicPort": udp_port, "Type": "udp"},
    ]);
    assert_eq!(ports, expected);
}

/// Another machine on a wire of the host's: a namespace with one end of a pair.
fn from_a_neighbour(daemon: &TestDaemon, port: u16) {
    let (namespace, ()): (OwnedFd, ()) = sys::netns::create(|| Ok(())).expect("a namespace");
    let name = daemon.bridge().name.replacen("ct", "cn", 1);
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    ip(&format!(
        "link add {name} type veth peer name eth0 netns {path}"
    ));
    let [_, b, c, _] = daemon.bridge().address.octets();
    let ours = Ipv4Addr::new(169, 254, b, c | 1);
    let theirs = Ipv4Addr::new(169, 254, b, (c | 1) ^ 2);
    ip(&format!("addr add {ours} peer {theirs} dev {name}"));
    ip(&format!("link set {name} up"));
    let answer = sys::netns::enter(namespace.as_fd(), || {
        ip("link set eth0 up");
        ip(&format!("addr add {theirs} peer {ours} dev eth0"));
        serves((ours, port), "published");
        Ok(())
    });
    ip(&format!("link del {name}"));
    answer.expect("the neighbour reaches the port");
}

#[test]
fn a_port_in_use_is_refused_with_its_holder_and_free_after_a_stop() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let port = free_port();
    let bindings = json!({"80/tcp": [{"HostPort": port.to_string()}]});
    let create = |name: &str| {
        let path = format!("/containers/create?name={name}");
        client.post(&path, &server(name, &bindings)).expect(201);
    };
    create("first");
    create("second");
    client
        .post("/containers/first/start", &Value::Null)
        .expect(204);
    serves((Ipv4Addr::LOCALHOST, port), "first");
    let refused = client
        .post("/containers/second/start", &Value::Null)
        .expect(500);
    let message = refused.json()["message"]
        .as_str()
        .expect("a message")
        .to_owned();
    let begins = "failed to set up container networking: driver failed programming external connectivity \
                  on endpoint second (";
    let ends = format!(
        "): Bind for 0.0.0.0:{port} failed: port is already allocated (by container first)"
    );
    assert!(
        message.starts_with(begins) && message.ends_with(&ends),
        "{message}"
    );
    let state = inspect(&daemon, "second");
    assert_eq!(state["State"]["Status"], "created");
    assert_eq!(state["State"]["ExitCode"], 128);
    assert_eq!(state["State"]["Error"], message.as_str());
    assert_eq!(
        state["NetworkSettings"]["Networks"]["bridge"]["IPAddress"],
        ""
    );
    client
        .post("/containers/first/stop?t=0", &Value::Null)
        .expect(204);
    client
        .post("/containers/second/start", &Value::Null)
        .expect(204);
    serves((Ipv4Addr::LOCALHOST, port), "second");
    client.delete("/containers/second?force=1").expect(204);
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    let refused = client
        .post("/containers/first/start", &Value::Null)
        .expect(500);
    let message = refused.json()["message"]
        .as_str()
        .expect("a message")
        .to_owned();
    let ends = format!(
        "failed to bind host port for 0.0.0.0:{port}/tcp: address already in use (by process {} (",
        std::process::id()
    );
    assert!(message.contains(&ends), "{message}");
    drop(listener);
    client
        .post("/containers/first/start", &Value::Null)
        .expect(204);
    serves((Ipv4Addr::LOCALHOST, port), "first");
}

#[test]
fn ports_answer_while_the_daemon_is_away() {
    let Some(mut daemon) = daemon() else { return };
    let bindings = json!({"80/tcp": [{}]});
    let id = daemon.run(&server("alive", &bindings));
    let port = host_port(&daemon, &id, "80/tcp");
    let before = inspect(&daemon, &id)["NetworkSettings"].clone();
    serves((Ipv4Addr::LOCALHOST, port), "alive");
    daemon.kill();
    for _ in 0..5 {
        serves((Ipv4Addr::LOCALHOST, port), "alive");
        serves((std::net::Ipv6Addr::LOCALHOST, port), "alive");
    }
    let other = TcpListener::bind(("0.0.0.0", port));
    assert!(other.is_err(), "nobody else can take the port");
    daemon.start_again();
    assert_eq!(inspect(&daemon, &id)["NetworkSettings"], before);
    serves((Ipv4Addr::LOCALHOST, port), "alive");
    serves((std::net::Ipv6Addr::LOCALHOST, port), "alive");
    let taken = daemon.create(&server(
        "late",
        &json!({"80/tcp": [{"HostPort": port.to_string()}]}),
    ));
    let client = daemon.client();
    client
        .post(&format!("/containers/{taken}/start"), &Value::Null)
        .expect(500);
    client
        .post(&format!("/containers/{id}/kill"), &Value::Null)
        .expect(204);
    client
        .post(&format!("/containers/{taken}/start"), &Value::Null)
        .expect(204);
    serves((Ipv4Addr::LOCALHOST, port), "late");
}

#[test]
fn a_container_that_ends_while_the_daemon_is_away_leaves_no_port() {
    let Some(mut daemon) = daemon() else { return };
    let id = daemon.run(&server("short", &json!({"80/tcp": [{}]})));
    let port = host_port(&daemon, &id, "80/tcp");
    serves((Ipv4Addr::LOCALHOST, port), "short");
    let pid = inspect(&daemon, &id)["State"]["Pid"]
        .as_u64()
        .expect("a pid");
    daemon.kill();
    testkit::daemon::signal(u32::try_from(pid).expect("a pid"), "KILL");
    daemon.start_again();
    wait_until("the port to be free", PATIENCE, || {
        TcpListener::bind(("0.0.0.0", port)).ok()
    });
    let client = daemon.client();
    client
        .post(&format!("/containers/{id}/start"), &Value::Null)
        .expect(204);
    let port = host_port(&daemon, &id, "80/tcp");
    serves((Ipv4Addr::LOCALHOST, port), "short");
}

#[test]
fn a_killed_shim_frees_its_ports() {
    let Some(daemon) = daemon() else { return };
    let id = daemon.run(&server("doomed", &json!({"80/tcp": [{}]})));
    let port = host_port(&daemon, &id, "80/tcp");
    serves((Ipv4Addr::LOCALHOST, port), "doomed");
    let pid = inspect(&daemon, &id)["State"]["Pid"]
        .as_u64()
        .expect("a pid");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let shim = parent
        .and_then(|pid| pid.trim().parse().ok())
        .expect("its shim");
    testkit::daemon::signal(shim, "KILL");
    wait_until("the container to be dead", PATIENCE, || {
        (inspect(&daemon, &id)["State"]["Status"] == "exited").then_some(())
    });
    wait_until("the port to be free", PATIENCE, || {
        TcpListener::bind(("0.0.0.0", port)).ok()
    });
    assert!(get((Ipv4Addr::LOCALHOST, port).into()).is_err());
}

#[test]
fn a_restart_brings_address_and_ports_back() {
    let Some(daemon) = daemon() else { return };
    let port = free_port();
    let id = daemon.run(&server(
        "again",
        &json!({"80/tcp": [{"HostPort": port.to_string()}]}),
    ));
    serves((Ipv4Addr::LOCALHOST, port), "again");
    let client = daemon.client();
    client
        .post(&format!("/containers/{id}/restart?t=0"), &Value::Null)
        .expect(204);
    serves((Ipv4Addr::LOCALHOST, port), "again");
    serves((address(&daemon, &id), 80), "again");
    client
        .post(&format!("/containers/{id}/stop?t=0"), &Value::Null)
        .expect(204);
    let stopped = inspect(&daemon, &id)["NetworkSettings"].clone();
    assert_eq!(stopped["Ports"], json!({}));
    assert_eq!(stopped["SandboxKey"], "");
    let endpoint = &stopped["Networks"]["bridge"];
    assert_eq!(endpoint["IPAddress"], "");
    assert_eq!(
        endpoint["NetworkID"].as_str().map(str::len),
        Some(64),
        "{endpoint}"
    );
}

#[test]
fn twenty_start_at_once() {
    let Some(daemon) = daemon() else { return };
    let ids: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| daemon.run(&server("many", &json!({"80/tcp": [{}]})))))
            .collect();
        let join =
            |start: std::thread::ScopedJoinHandle<'_, String>| start.join().expect("a start");
        starts.into_iter().map(join).collect()
    });
    let mut addresses: Vec<Ipv4Addr> = ids.iter().map(|id| address(&daemon, id)).collect();
    for id in &ids {
        serves(
            (Ipv4Addr::LOCALHOST, host_port(&daemon, id, "80/tcp")),
            "many",
        );
    }
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one scenario, read from top to bottom"
)]
fn events_and_settings_are_dockers() {
    let Some(daemon) = daemon() else { return };
    let client = daemon.client();
    let created = daemon.create(&server("events", &json!({})));
    let fresh = inspect(&daemon, &created)["NetworkSettings"].clone();
    // Recorded from dockerd 28.5.2.
    assert_eq!(fresh["Ports"], json!({}));
    assert_eq!(fresh["Networks"]["bridge"]["NetworkID"], "");
    client
        .post(&format!("/containers/{created}/start"), &Value::Null)
        .expect(204);
    let running = inspect(&daemon, &created)["NetworkSettings"].clone();
    assert_eq!(
        running["Ports"],
        json!({"80/tcp": null, "81/tcp": null, "99/udp": null})
    );
    let endpoint = &running["Networks"]["bridge"];
    assert_eq!(endpoint["Gateway"], daemon.bridge().address.to_string());
    assert_eq!(endpoint["IPPrefixLen"], 24);
    for key in [
        "EndpointID",
        "Gateway",
        "IPAddress",
        "IPPrefixLen",
        "MacAddress",
    ] {
        assert_eq!(running[key], endpoint[key], "{key}");
    }
    assert_eq!(running["SandboxID"].as_str().map(str::len), Some(64));
    client
        .post(&format!("/containers/{created}/stop?t=0"), &Value::Null)
        .expect(204);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let until = now.expect("a clock after 1970").as_secs() + 1;
    let events = client
        .get(&format!("/events?since=0&until={until}"))
        .expect(200);
    let told: Vec<String> = events
        .json_lines()
        .filter(|event| event["Type"] == "network" || event["Actor"]["ID"] == created.as_str())
        .map(|event| {
            if event["Type"] == "network" {
                assert_eq!(event["Actor"]["ID"], endpoint["NetworkID"]);
                let attributes = json!({"container": created, "name": "bridge", "type": "bridge"});
                assert_eq!(event["Actor"]["Attributes"], attributes);
            }
            event["Action"].as_str().expect("an action").to_owned()
        })
        .collect();
    let expected = [
        "create",
        "connect",
        "start",
        "kill",
        "kill",
        "disconnect",
        "stop",
        "die",
    ];
    assert!(
        told == expected
            || told
                == expected
                    .iter()
                    .copied()
                    .filter({
                        let mut kills = 0;
                        move |action| {
                            kills += i32::from(*action == "kill");
                            *action != "kill" || kills == 1
                        }
                    })
                    .collect::<Vec<_>>(),
        "{told:?}"
    );
}

#[test]
fn without_a_bridge_only_the_bridge_fails() {
    let options = testkit::Options {
        arguments: vec!["--bridge=none".to_owned()],
        ..testkit::Options::default()
    };
    let Some(daemon) = daemon_with(options) else {
        return;
    };
    let id = daemon.create(&server("nowhere", &json!({})));
    let client = daemon.client();
    let refused = client.post(&format!("/containers/{id}/start"), &Value::Null);
    assert!(
        refused.text().contains("network bridge not found"),
        "{}",
        refused.text()
    );
    daemon.run(&crate::lifecycle::body(&["sleep", "600"]));
}

/// A container in another one's network has that one's files; cri-dockerd writes to the file that is named here.
#[test]
fn files_of_a_joined_network_are_those_of_the_other() {
    let Some(daemon) = daemon() else { return };
    let owner = daemon.run(&json!({"Image": "busybox", "Cmd": ["sleep", "600"]}));
    let guest = daemon.create(&json!({
        "Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": format!("container:{}", &owner[..12])},
    }));
    let paths = |id: &str| {
        ["ResolvConfPath", "HostnamePath", "HostsPath"].map(|key| inspect(&daemon, id)[key].clone())
    };
    assert_eq!(paths(&guest), ["", "", ""]);
    let start = format!("/containers/{guest}/start");
    daemon.client().post(&start, &Value::Null).expect(204);
    assert_eq!(paths(&guest), paths(&owner));
    for path in paths(&guest) {
        let path = path.as_str().expect("a path");
        assert!(std::path::Path::new(path).exists(), "{path}");
    }
    // The whole tree, as the process sees it, is where inspect says.
    let merged = inspect(&daemon, &guest)["GraphDriver"]["Data"]["MergedDir"].clone();
    let busybox = format!("{}/bin/busybox", merged.as_str().expect("a path"));
    assert!(std::path::Path::new(&busybox).exists(), "{busybox}");
}

/// A bridge that the daemon has no more stays for the containers that run on it, and goes with the last one.
#[test]
fn the_bridge_of_an_earlier_run_goes_with_its_last_container() {
    let Some(mut daemon) = daemon() else { return };
    let bindings = json!({"80/tcp": [{"HostIp": "127.0.0.1"}]});
    let [stays, ends] = ["stays", "ends"].map(|text| daemon.run(&server(text, &bindings)));
    let port = host_port(&daemon, &stays, "80/tcp");
    let init = inspect(&daemon, &ends)["State"]["Pid"]
        .as_u64()
        .expect("it runs");
    daemon.kill();
    testkit::daemon::signal(u32::try_from(init).expect("a pid"), "KILL");
    daemon.start_again_with(&["--bridge=none"]);
    serves((Ipv4Addr::LOCALHOST, port), "stays");
    let mentions = |id: &str| daemon.bridge().left().iter().any(|line| line.contains(id));
    assert!(mentions(&stays), "{:?}", daemon.bridge().left());
    wait_until("nothing to be left of the one that ended", PATIENCE, || {
        (!mentions(&ends)).then_some(())
    });
    let client = daemon.client();
    client
        .post(&format!("/containers/{ends}/start"), &Value::Null)
        .expect(404);
    client
        .delete(&format!("/containers/{stays}?force=1"))
        .expect(204);
    wait_until("the bridge to be gone", PATIENCE, || {
        daemon.bridge().left().is_empty().then_some(())
    });
}
