//! A bridge is one daemon's: another one, with a data root of its own, takes nothing of it for a stray.

use std::path::Path;

use network::{Config, Error, Network, Protocol};

use crate::host::{self, Container, PATIENCE, UPLINK, Weather, ask_tcp, id, on_a_host, publish};

/// What the daemon of another data root would open the same bridge with.
fn anothers(host: &host::Host) -> Config {
    let data_root = host.directory().join("another");
    std::fs::create_dir_all(&data_root).unwrap();
    let db = db::Db::open(&data_root.join("cooper.db")).unwrap();
    let mut config = Config::new(db, data_root.display().to_string());
    config.claims = host.config().claims;
    config
}

fn is_refused(config: Config, owner: &Path) {
    let error = Network::open(config).map(drop).unwrap_err();
    let (bridge, holder) = match error {
        Error::BridgeTaken { bridge, owner } => (bridge, owner),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (bridge.as_str(), holder.as_str()),
        ("cooper0", owner.to_str().unwrap())
    );
}

#[test]
fn a_second_data_root_does_not_get_the_bridge_while_containers_are_on_it() {
    on_a_host(Weather::Calm, |host| {
        let network = host.network();
        // Also before the first container.
        is_refused(anothers(host), host.directory());
        let container = Container::new(&network, 1, &[publish(Protocol::Tcp, 8080, 80)]);
        container.serve(80);
        let answers = || assert!(ask_tcp(UPLINK, 8080, PATIENCE).is_ok());
        host.on_the_internet(answers);
        is_refused(anothers(host), host.directory());
        // The container outlives its daemon.
        drop(network);
        is_refused(anothers(host), host.directory());
        host.on_the_internet(answers);
        let network = host.network();
        network.detach(&id(1)).unwrap();
        drop((container, network));
        let network = Network::open(anothers(host)).unwrap();
        is_refused(host.config(), &host.directory().join("another"));
        network.remove().unwrap();
        drop(host.network());
    });
}

#[test]
fn a_bridge_may_have_a_name_of_fifteen_letters() {
    on_a_host(Weather::Calm, |host| {
        let named = |name: &str| Config {
            bridge: name.to_owned(),
            instance: format!("cooper-{name}"),
            ..host.config()
        };
        // IFNAMSIZ - 1.
        let network = Network::open(named("br-internal-two")).unwrap();
        let container = Container::new(&network, 1, &[publish(Protocol::Tcp, 8080, 80)]);
        container.serve(80);
        host.on_the_internet(|| assert!(ask_tcp(UPLINK, 8080, PATIENCE).is_ok()));
        for name in ["br-internal-2345", "", "a/b"] {
            let refused = Network::open(named(name)).map(drop).unwrap_err();
            assert!(matches!(refused, Error::Invalid(_)), "{name}: {refused:?}");
        }
    });
}
