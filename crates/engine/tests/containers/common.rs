//! A real engine in a temporary root, with a busybox image, and what a test checks after it.

use std::io::Cursor;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use api::container::CreateRequest;
use api::options::{CreateOptions, RemoveOptions};
use engine::{Config, Engine};
use sha2::{Digest as _, Sha256};

/// How long a test waits for what must happen; far longer than it takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The directories of one engine; dropping it kills and removes what is left.
pub(crate) struct Root {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: Config,
}

/// Whether the test can run; says why not, and fails under CI.
pub(crate) fn can_run() -> bool {
    if cooper().exists() {
        testkit::assert_fresh(&cooper());
    }
    testkit::is_root()
        && testkit::needs(
            "the package busybox-static",
            Path::new("/bin/busybox").exists(),
        )
        && testkit::needs("the binary (cargo build)", cooper().exists())
}

/// The built binary, beside the test's own directory.
pub(crate) fn cooper() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("cooper")
}

impl Root {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::new(
            &directory.path().join("data"),
            &directory.path().join("exec"),
            &cooper(),
        );
        // The directory's name is its own in all the world: other tests sweep their cgroups meanwhile.
        let own = directory.path().file_name().unwrap().to_str().unwrap();
        config.cgroup_parent = format!("/cooper-test{own}");
        config.pool_size = 1;
        // Engines of tests that run beside each other must not meet on one bridge.
        config.bridge.name = None;
        Self { directory, config }
    }

    /// An engine with the busybox image.
    pub(crate) async fn engine(&self) -> Engine {
        let engine = self.reopen().await;
        let images = engine.images().clone();
        tokio::task::spawn_blocking(move || {
            images
                .load(&mut Cursor::new(busybox_archive()), &mut |_| {})
                .unwrap();
        })
        .await
        .unwrap();
        engine
    }

    /// Another engine on the same directories.
    pub(crate) async fn reopen(&self) -> Engine {
        Engine::open(self.config.clone())
            .await
            .unwrap_or_else(|error| panic!("{}", error.message))
    }

    /// The names in the engine's cgroup, but those of the pool.
    pub(crate) fn cgroups(&self) -> Vec<String> {
        let mut names = runtime::cgroup::list(&self.config.cgroup_parent);
        names.retain(|name| !name.starts_with("pool-"));
        names
    }

    pub(crate) fn run_dirs(&self) -> Vec<String> {
        names(&self.config.run_dirs())
    }

    pub(crate) fn container_dirs(&self) -> Vec<String> {
        names(&self.config.containers_dir())
    }

    /// Nothing of any container is left.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.cgroups(), Vec::<String>::new(), "cgroups");
        assert_eq!(self.run_dirs(), Vec::<String>::new(), "run directories");
        assert_eq!(
            self.container_dirs(),
            Vec::<String>::new(),
            "container directories"
        );
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for name in runtime::cgroup::list(&self.config.cgroup_parent) {
            let path = runtime::cgroup::CgroupPath::new(&self.config.cgroup_parent, &name);
            if let Ok(cgroup) = path.and_then(|path| runtime::cgroup::Cgroup::open(&path)) {
                drop(cgroup.kill().and_then(|()| cgroup.remove()));
            }
        }
        remove_parent(&self.config.cgroup_parent);
        // A shim that outlived its container still listens there.
        kill_strays(&self.config.exec_root);
    }
}

pub(crate) fn remove_parent(parent: &str) {
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        let path = hierarchy.path().join(parent.trim_start_matches('/'));
        drop(std::fs::remove_dir(path));
    }
    drop(std::fs::remove_dir(
        Path::new("/sys/fs/cgroup").join(parent.trim_start_matches('/')),
    ));
}

fn kill_strays(exec_root: &Path) {
    let runs = exec_root.join("containers");
    for run in std::fs::read_dir(runs).into_iter().flatten().flatten() {
        kill_listener(&run.path());
    }
}

/// Kills the shim of a container.
pub(crate) fn kill_shim(root: &Root, id: &str) {
    assert!(
        kill_listener(&root.config.run_dirs().join(id)),
        "no shim of {id}"
    );
}

/// The process of a container's shim.
pub(crate) fn shim(root: &Root, id: &str) -> OwnedFd {
    listener(&root.config.run_dirs().join(id)).unwrap()
}

fn listener(run_dir: &Path) -> std::io::Result<OwnedFd> {
    let directory = std::fs::File::open(run_dir)?;
    let socket = sys::socket::connect_at(directory.as_fd(), "shim.sock".as_ref())?;
    sys::process::open_pidfd(sys::socket::peer(socket.as_fd())?.pid)
}

fn kill_listener(run_dir: &Path) -> bool {
    listener(run_dir).is_ok_and(|shim| sys::process::send_signal(shim.as_fd(), 9).is_ok())
}

fn names(directory: &Path) -> Vec<String> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A create request for busybox with network none.
pub(crate) fn request(words: &[&str]) -> CreateRequest {
    let mut request = CreateRequest::default();
    request.config.image = "busybox".to_owned();
    request.config.cmd = Some(words.iter().map(|word| (*word).to_owned()).collect());
    request.host_config.network_mode = "none".to_owned();
    request
}

/// Creates a container of that name.
pub(crate) async fn create(engine: &Engine, name: &str, request: CreateRequest) -> String {
    let options = CreateOptions {
        name: name.to_owned(),
        platform: None,
    };
    match engine.create(options, request).await {
        Ok(created) => created.id,
        Err(error) => panic!("create {name}: {}", error.message),
    }
}

/// A fresh root and its engine with the busybox image; none, with a word, where the test cannot run.
pub(crate) async fn ready() -> Option<(Root, Engine)> {
    if !can_run() {
        return None;
    }
    let root = Root::new();
    let engine = root.engine().await;
    Some((root, engine))
}

/// Makes and starts a container of that name that runs for ever.
pub(crate) async fn running(engine: &Engine, name: &str) -> String {
    let id = create(engine, name, request(&["sleep", "1000"])).await;
    engine.start(name).await.unwrap();
    id
}

pub(crate) const FORCE: RemoveOptions = RemoveOptions {
    force: true,
    volumes: false,
    link: false,
};

/// Removes the last container; nothing is left, and the engine ends.
pub(crate) async fn finish(root: &Root, engine: &Engine, name: &str) {
    engine.remove(name, &FORCE).await.unwrap();
    root.assert_clean();
    engine.shutdown().await.unwrap();
}

/// How often a condition is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Waits until `holds`, looking again and again; fails after [`PATIENCE`].
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "{what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A docker-archive of one image: busybox with its usual links.
pub(crate) fn busybox_archive() -> Vec<u8> {
    let layer = busybox_layer();
    let diff_id = format!("sha256:{}", hex(&Sha256::digest(&layer)));
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["PATH=/bin:/usr/bin"],"Cmd":["sh"]}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}},"history":[{{"created_by":"test"}}]}}"#
    );
    let manifest =
        r#"[{"Config":"config.json","RepoTags":["busybox:latest"],"Layers":["layer.tar"]}]"#;
    let mut archive = tar::Builder::new(Vec::new());
    append(&mut archive, "config.json", config.as_bytes(), 0o644);
    append(&mut archive, "layer.tar", &layer, 0o644);
    append(&mut archive, "manifest.json", manifest.as_bytes(), 0o644);
    archive.into_inner().unwrap()
}

fn busybox_layer() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    for directory in ["bin", "etc", "tmp", "proc", "sys", "dev", "root"] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(if directory == "tmp" { 0o1777 } else { 0o755 });
        header.set_size(0);
        layer
            .append_data(&mut header, format!("{directory}/"), std::io::empty())
            .unwrap();
    }
    let busybox = std::fs::read("/bin/busybox").unwrap();
    append(&mut layer, "bin/busybox", &busybox, 0o755);
    for applet in [
        "sh", "true", "false", "sleep", "echo", "cat", "ls", "id", "kill", "seq",
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer
            .append_link(&mut header, format!("bin/{applet}"), "busybox")
            .unwrap();
    }
    append(
        &mut layer,
        "etc/passwd",
        b"root:x:0:0:root:/root:/bin/sh\n",
        0o644,
    );
    append(&mut layer, "etc/group", b"root:x:0:\n", 0o644);
    append(&mut layer, "etc/plain", b"not a program\n", 0o644);
    layer.into_inner().unwrap()
}

fn append(archive: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len().try_into().unwrap());
    header.set_mode(mode);
    archive.append_data(&mut header, name, bytes).unwrap();
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Everything that was journaled, in order.
pub(crate) fn events(root: &Root) -> Vec<serde_json::Value> {
    let db = db::Db::open(&root.config.data_root.join("cooper.db")).unwrap();
    db.read::<_, db::Error>(|connection| {
        let mut statement = connection.prepare("SELECT body FROM event ORDER BY cursor")?;
        let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
        let parse = |body: String| serde_json::from_str(&body).unwrap();
        Ok(rows.map(|row| parse(row.unwrap())).collect())
    })
    .unwrap()
}

/// The name that a container has beside its data.
pub(crate) fn saved_name(root: &Root, id: &str) -> String {
    let path = root.config.containers_dir().join(id).join("container.json");
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["name"].as_str().unwrap().to_owned()
}

/// What a container's log file holds.
pub(crate) fn log(root: &Root, id: &str) -> String {
    let path = root
        .config
        .containers_dir()
        .join(id)
        .join(format!("{id}-json.log"));
    std::fs::read_to_string(path).unwrap_or_default()
}
