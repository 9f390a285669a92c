//! What attach and detach cost, beside the budget of the start path.

use std::time::{Duration, Instant};

use crate::host::{PATIENCE, Weather, ask_tcp, attachment, id, on_a_host, publish};
use network::Protocol;

const ROUNDS: u32 = 60;
/// From attach to the first answer: the bridge port must be open and the neighbour known.
const FIRST_ANSWER_MAX: Duration = Duration::from_millis(500);

/// The budget is 1.5 ms with an optimised build on a quiet machine; a debug build beside other tests
/// must only show that nothing waits.
const LIMIT: Duration = Duration::from_millis(50);

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn attach_and_detach_do_not_wait() {
    on_a_host(Weather::Docker, |host| {
        let network = host.network();
        let ports = [publish(Protocol::Tcp, 8080, 80)];
        for (name, ports) in [("without ports", &[][..]), ("with a TCP port", &ports)] {
            let (mut prepare, mut attach, mut detach) = (Vec::new(), Vec::new(), Vec::new());
            let mut kept = Vec::new();
            for number in 0..ROUNDS {
                let begun = Instant::now();
                let mut namespace = network.prepare().unwrap();
                prepare.push(begun.elapsed());
                let request = attachment(&id(number), ports);
                let begun = Instant::now();
                let endpoint = network.attach(&mut namespace, &request).unwrap();
                attach.push(begun.elapsed());
                let begun = Instant::now();
                network.detach(&request.container).unwrap();
                detach.push(begun.elapsed());
                // The dying namespaces' clean-up would hold the kernel's lock in the next round.
                kept.push(namespace);
                drop(endpoint);
            }
            let [prepare, attach, detach] = [prepare, attach, detach].map(median);
            println!("{name}: prepare {prepare:?}, attach {attach:?}, detach {detach:?} (medians)");
            assert!(
                attach < LIMIT && detach < LIMIT,
                "{name}: {attach:?} {detach:?}"
            );
        }
    });
}

#[test]
fn the_first_packet_after_attach_gets_through() {
    on_a_host(Weather::Docker, |host| {
        let network = host.network();
        let mut waits = Vec::new();
        for number in 0..20 {
            let mut namespace = network.prepare().unwrap();
            let request = attachment(&id(number), &[]);
            let endpoint = network.attach(&mut namespace, &request).unwrap();
            let begun = Instant::now();
            // Nobody listens: the refusal is the answer.
            let refused = ask_tcp(endpoint.ipv4, 80, PATIENCE).unwrap_err();
            waits.push(begun.elapsed());
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        }
        let wait = median(waits.clone());
        println!("first answer after {wait:?} (median)");
        assert!(
            waits.iter().all(|wait| *wait < FIRST_ANSWER_MAX),
            "{waits:?}"
        );
    });
}
