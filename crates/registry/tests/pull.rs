//! Pulls from a registry of the test's own that can be told to misbehave.
#![expect(clippy::unwrap_used, reason = "a test fails where its set-up does")]

mod fake;

use std::sync::atomic::Ordering;

use db::Db;
use fake::{Fake, Fault};
use image::{Reference, Store};
use registry::auth::Credentials;
use registry::dns::Resolver;
use registry::endpoint::{Mirror, Settings};
use registry::progress::{Phase, Progress};
use registry::pull::{Error, Pulled, Puller, Request};
use tempfile::TempDir;
use tokio::sync::mpsc;

struct Client {
    directory: TempDir,
    store: Store,
    puller: Puller,
}

fn client() -> Option<Client> {
    // Unpacking changes owners.
    testkit::is_root().then(|| Client::open(tempfile::tempdir().unwrap()))
}

impl Client {
    fn open(directory: TempDir) -> Self {
        let db = Db::open(&directory.path().join("cooper.db")).unwrap();
        let store = Store::open(directory.path(), db, image::Strays::Remove).unwrap();
        let puller = Puller::new(store.clone(), Resolver::default()).unwrap();
        Self {
            directory,
            store,
            puller,
        }
    }

    /// As the daemon's next start finds it.
    fn reopen(self) -> Self {
        Self::open(self.directory)
    }

    async fn pull(
        &self,
        reference: &str,
        credentials: Credentials,
    ) -> (Result<Pulled, Error>, Vec<Progress>) {
        self.pull_with(reference, credentials, &Settings::default())
            .await
    }

    async fn pull_with(
        &self,
        reference: &str,
        credentials: Credentials,
        settings: &Settings,
    ) -> (Result<Pulled, Error>, Vec<Progress>) {
        let reference = Reference::parse(reference).unwrap();
        let request = Request {
            reference,
            platform: None,
            credentials,
        };
        let (tell, mut told) = mpsc::channel(16);
        let collect = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(progress) = told.recv().await {
                all.push(progress);
            }
            all
        });
        let pulled = self.puller.pull(&request, settings, &tell).await;
        drop(tell);
        (pulled, collect.await.unwrap())
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.store.list().unwrap().len(), 0);
    }
}

/// The words of a stream without the updates in between, which depend on the machine's speed.
fn words(progress: &[Progress]) -> Vec<String> {
    let line = |progress: &Progress| match progress {
        Progress::Status {
            id: Some(id),
            status,
        } => Some(format!("{id}: {status}")),
        Progress::Status { id: None, status } => Some(status.clone()),
        Progress::Layer {
            phase: Phase::Downloading { .. } | Phase::Extracting { .. },
            ..
        } => None,
        Progress::Layer { id, phase } => Some(format!("{id}: {}", phase.words())),
    };
    progress.iter().filter_map(line).collect()
}

fn anonymous() -> Credentials {
    Credentials::default()
}

#[tokio::test]
async fn an_image_is_pulled_and_the_second_time_is_up_to_date() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::None).await;
    let name = fake.name("tool");
    let (pulled, progress) = client.pull(&name, anonymous()).await;
    let pulled = pulled.unwrap();
    assert_eq!(pulled.digest, fake.manifest_digest());
    let layer = fake.layer_digest(0).short().to_owned();
    assert_eq!(
        words(&progress),
        [
            "latest: Pulling from tool".to_owned(),
            format!("{layer}: Pulling fs layer"),
            format!("{layer}: Verifying Checksum"),
            format!("{layer}: Download complete"),
            format!("{layer}: Pull complete"),
            format!("Digest: {}", fake.manifest_digest()),
            format!("Status: Downloaded newer image for {name}"),
        ]
    );
    let image = client.store.resolve(&name).unwrap();
    assert_eq!(image.id, pulled.id);
    assert_eq!(
        image.repo_digests[0].familiar(),
        format!("{name}@{}", fake.manifest_digest())
    );
    let (again, progress) = client.pull(&name, anonymous()).await;
    assert!(again.unwrap().up_to_date);
    let last = format!("Status: Image is up to date for {name}");
    assert_eq!(words(&progress).last(), Some(&last));
    let (by_digest, _) = client
        .pull(&format!("{name}@{}", fake.manifest_digest()), anonymous())
        .await;
    assert_eq!(by_digest.unwrap().id, pulled.id);
}

#[tokio::test]
async fn a_download_that_breaks_off_goes_on_where_it_stopped() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::Truncate).await;
    let (pulled, progress) = client.pull(&fake.name("tool"), anonymous()).await;
    pulled.unwrap();
    assert!(
        words(&progress)
            .iter()
            .any(|line| line.ends_with("Retrying in 1 second")),
        "{progress:?}"
    );
    assert_eq!(
        fake.ranges.load(Ordering::Relaxed),
        1,
        "the second try asked for the rest only"
    );
}

#[tokio::test]
async fn a_registry_that_wants_a_pause_gets_the_one_that_it_names() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::TooMany).await;
    let (pulled, progress) = client.pull(&fake.name("tool"), anonymous()).await;
    pulled.unwrap();
    let retries: Vec<u64> = progress
        .iter()
        .filter_map(|progress| match progress {
            Progress::Layer {
                phase: Phase::Retrying { seconds },
                ..
            } => Some(*seconds),
            _ => None,
        })
        .collect();
    assert_eq!(retries, [2, 1]);
}

#[tokio::test]
async fn what_is_not_its_digest_is_refused_and_nothing_is_left() {
    let Some(client) = client() else { return };
    for fault in [Fault::WrongLayer, Fault::WrongDiffId, Fault::LongLayer] {
        let fake = Fake::start(fault).await;
        let (pulled, _) = client.pull(&fake.name("tool"), anonymous()).await;
        let error = pulled.unwrap_err().to_string();
        let expected = if fault == Fault::WrongDiffId {
            "diff"
        } else {
            "verification failed"
        };
        assert!(
            error.to_lowercase().contains(expected),
            "{fault:?}: {error}"
        );
        client.nothing_is_left();
    }
    let fake = Fake::start(Fault::WrongManifest).await;
    let by_digest = format!("{}@{}", fake.name("tool"), fake.manifest_digest());
    let (pulled, _) = client.pull(&by_digest, anonymous()).await;
    let error = pulled.unwrap_err().to_string();
    assert!(error.contains("manifest verification failed"), "{error}");
    client.nothing_is_left();
}

#[tokio::test]
async fn a_missing_image_and_a_missing_registry_have_dockers_words() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::None).await;
    let missing = format!("{}:nope", fake.name("tool"));
    let (pulled, _) = client.pull(&missing, anonymous()).await;
    let expected = format!("manifest for {missing} not found: manifest unknown: manifest unknown");
    assert_eq!(pulled.unwrap_err().to_string(), expected);
    let (pulled, _) = client.pull("127.0.0.1:1/x:latest", anonymous()).await;
    let error = pulled.unwrap_err().to_string();
    assert!(
        error.starts_with("Get \"http://127.0.0.1:1/v2/\": "),
        "{error}"
    );
    assert!(error.contains("onnection refused"), "{error}");
}

#[tokio::test]
async fn a_token_is_fetched_and_wrong_passwords_are_denied() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::Login).await;
    let name = fake.name("tool");
    // dockerd asks by HEAD first, and says so when the token server refuses.
    let refused = format!(
        "Head \"http://{}/v2/tool/manifests/latest\": unauthorized: incorrect username or password",
        fake.address
    );
    let (pulled, _) = client.pull(&name, anonymous()).await;
    assert_eq!(pulled.unwrap_err().to_string(), refused);
    let user = |password: &str| Credentials {
        username: "cooper".into(),
        password: password.into(),
        ..Credentials::default()
    };
    let (pulled, _) = client.pull(&name, user("wrong")).await;
    assert_eq!(pulled.unwrap_err().to_string(), refused);
    let (pulled, _) = client.pull(&name, user("right")).await;
    pulled.unwrap();
}

#[tokio::test]
async fn a_redirect_to_another_host_carries_no_credentials() {
    let Some(client) = client() else { return };
    let other = Fake::start(Fault::None).await;
    let fake = Fake::start(Fault::Redirect(other.address)).await;
    let credentials = Credentials {
        registry_token: "secret".into(),
        ..Credentials::default()
    };
    let (pulled, _) = client.pull(&fake.name("tool"), credentials).await;
    pulled.unwrap();
    assert!(fake.saw_authorization.load(Ordering::Relaxed));
    assert!(
        !other.saw_authorization.load(Ordering::Relaxed),
        "the token went to another host"
    );
}

/// A password must not be offered to whoever a redirect leads to (CVE-2020-15157).
#[tokio::test]
async fn a_login_that_another_host_asks_for_behind_a_redirect_is_not_made() {
    let Some(client) = client() else { return };
    let bait = Fake::start(Fault::Login).await;
    let fake = Fake::start(Fault::Redirect(bait.address)).await;
    let credentials = Credentials {
        username: "cooper".into(),
        password: "right".into(),
        ..Credentials::default()
    };
    let (pulled, _) = client.pull(&fake.name("tool"), credentials).await;
    let error = pulled.unwrap_err();
    assert!(
        matches!(&error, Error::Configuration(inner) if matches!(**inner, Error::Remote(registry::remote::Error::Denied { .. }))),
        "{error:?}"
    );
    assert_eq!(bait.tokens.load(Ordering::Relaxed), 0);
    assert!(!bait.saw_authorization.load(Ordering::Relaxed));
    client.nothing_is_left();
}

#[tokio::test]
async fn a_sha512_pin_is_verified() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::None).await;
    let wrong = format!("{}@sha512:{}", fake.name("tool"), "f".repeat(128));
    let (pulled, _) = client.pull(&wrong, anonymous()).await;
    let error = pulled.unwrap_err().to_string();
    assert!(error.contains("manifest verification failed"), "{error}");
    client.nothing_is_left();
    let right = format!("{}@{}", fake.name("tool"), fake.manifest_sha512());
    let (pulled, _) = client.pull(&right, anonymous()).await;
    assert_eq!(pulled.unwrap().digest, fake.manifest_sha512());
    assert!(client.store.resolve(&right).is_ok());
}

/// As after a kill between the last byte of a download and its end.
#[tokio::test]
async fn what_an_earlier_pull_left_of_a_blob_never_stands_in_the_way() {
    use std::io::Write;
    let fake = Fake::start(Fault::None).await;
    let too_long = [fake.layer(), b"more"].concat();
    for (left, downloads) in [(too_long.as_slice(), 1), (fake.layer(), 1)] {
        let Some(client) = client() else { return };
        let digest = fake.layer_digest(0);
        let mut writer = client.store.blob_writer(Some(&digest)).unwrap();
        writer.write_all(left).unwrap();
        drop(writer);
        let (pulled, _) = client.pull(&fake.name("tool"), anonymous()).await;
        pulled.unwrap();
        assert_eq!(
            fake.downloads(),
            downloads,
            "the whole one is only verified"
        );
    }
}

#[tokio::test]
async fn a_layer_that_a_power_cut_took_is_pulled_again() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::None).await;
    let name = fake.name("tool");
    client.pull(&name, anonymous()).await.0.unwrap();
    let image = client.store.resolve(&name).unwrap();
    let root = client.directory.path().to_owned();
    client.store.hold(&image.id, "container").unwrap();
    client.store.sync_layers().unwrap();
    // What is left: neither the layer nor its blob, and a configuration that is another.
    let layer = root.join("layers").join(image.layers[0].number.to_string());
    std::fs::remove_dir_all(&layer).unwrap();
    let blob = |digest: &image::Digest| root.join("content/sha256").join(digest.hex());
    std::fs::write(blob(&fake.layer_digest(0)), b"torn").unwrap();
    std::fs::write(blob(&image.id), b"torn").unwrap();
    let client = client.reopen();
    assert!(client.store.mountable("container").is_err());
    let (pulled, _) = client.pull(&name, anonymous()).await;
    assert_eq!(pulled.unwrap().id, image.id);
    client.store.mountable("container").unwrap();
    assert!(layer.join("etc/data").is_file());
    assert_eq!(fake.downloads(), 2);
}

#[tokio::test]
async fn a_registry_that_sends_another_part_than_asked_for_is_asked_for_the_whole() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::OtherRange).await;
    let (pulled, _) = client.pull(&fake.name("tool"), anonymous()).await;
    pulled.unwrap();
    assert_eq!(fake.downloads(), 2);
}

#[tokio::test]
async fn a_mirror_serves_docker_io() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::None).await;
    let mirror = Mirror::parse(&format!("http://{}", fake.address)).unwrap();
    let settings = Settings {
        mirrors: vec![mirror],
        insecure: Vec::new(),
    };
    let (pulled, progress) = client.pull_with("tool", anonymous(), &settings).await;
    pulled.unwrap();
    assert_eq!(words(&progress)[0], "latest: Pulling from library/tool");
    assert!(client.store.resolve("tool").is_ok());
}

/// dockerd's `continueOnError`: of a mirror every failure but ours lets the next endpoint be asked.
#[tokio::test]
async fn a_mirror_that_fails_half_way_has_not_the_last_word() {
    for fault in [
        Fault::NoLayer,
        Fault::NoConfig,
        Fault::WrongLayer,
        Fault::LongLayer,
    ] {
        let Some(client) = client() else { return };
        let (bad, good) = (Fake::start(fault).await, Fake::start(Fault::None).await);
        let mirror = |fake: &Fake| Mirror::parse(&format!("http://{}", fake.address)).unwrap();
        let settings = Settings {
            mirrors: vec![mirror(&bad), mirror(&good)],
            insecure: Vec::new(),
        };
        let (pulled, progress) = client.pull_with("tool", anonymous(), &settings).await;
        assert_eq!(pulled.unwrap().digest, good.manifest_digest(), "{fault:?}");
        let said = words(&progress);
        let first = "latest: Pulling from library/tool";
        assert_eq!(said.iter().filter(|line| *line == first).count(), 2);
        assert!(client.store.resolve("tool").is_ok());
    }
}

#[tokio::test]
async fn a_pull_that_nobody_listens_to_stops() {
    let Some(client) = client() else { return };
    let fake = Fake::start(Fault::None).await;
    let (tell, told) = mpsc::channel(1);
    drop(told);
    let reference = Reference::parse(&fake.name("tool")).unwrap();
    let request = Request {
        reference,
        platform: None,
        credentials: anonymous(),
    };
    let pulled = client
        .puller
        .pull(&request, &Settings::default(), &tell)
        .await;
    assert!(matches!(pulled, Err(Error::Gone(_))), "{pulled:?}");
    client.nothing_is_left();
}
