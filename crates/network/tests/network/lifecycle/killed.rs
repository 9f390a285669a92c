//! A kill at any step, and the sweep after it.

use super::*;

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
                .arg("lifecycle::killed::a_kill_at_any_step_leaves_nothing_after_the_sweep")
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
