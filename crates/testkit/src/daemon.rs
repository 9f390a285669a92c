//! A Cooper daemon of a test's own: own roots, own socket, own cgroup parent.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::held::Held;
use crate::leaks::Census;
use crate::network::Bridge;
use crate::{archive, wait_until};

/// A daemon answers `GET /_ping` this soon after its start, even on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// A daemon that was asked to stop has stopped by then.
const STOPPED_WITHIN: Duration = Duration::from_secs(20);

/// What a test may choose about its daemon.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Further arguments after those that every test daemon gets.
    pub arguments: Vec<String>,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
    /// A data root elsewhere than in the test's own directory, on another file system say.
    pub data_root: Option<PathBuf>,
}

/// A running daemon, ended and checked for leaks when dropped.
#[derive(Debug)]
pub struct TestDaemon {
    directory: TempDir,
    binary: PathBuf,
    options: Options,
    child: Option<Child>,
    abandoned: bool,
    census: Census,
    /// What the process had open when it answered first.
    held: Option<Held>,
}

impl TestDaemon {
    /// Starts `binary daemon` with default options and waits until it answers.
    pub fn start(binary: impl Into<PathBuf>) -> Self {
        Self::start_with(binary, Options::default())
    }

    /// Starts `binary daemon` and waits until it answers.
    pub fn start_with(binary: impl Into<PathBuf>, options: Options) -> Self {
        let mut daemon = Self::launch_with(binary, options);
        daemon.wait_ready();
        daemon
    }

    /// Starts `binary daemon` without waiting: for one that may end by itself.
    pub fn launch_with(binary: impl Into<PathBuf>, options: Options) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("cooper-test-")
            .tempdir()
            .expect("a temporary directory");
        let own = directory.path().join("data");
        let data_root = options.data_root.as_deref().unwrap_or(&own);
        let parent = cgroup_parent(directory.path());
        let census = Census::take(directory.path(), data_root, &parent);
        let binary = binary.into();
        let mut daemon = Self {
            directory,
            binary,
            options,
            child: None,
            abandoned: false,
            census,
            held: None,
        };
        daemon.launch();
        daemon
    }

    /// Waits until the daemon answers (true) or has ended by itself (false).
    pub fn ready_or_ended(&mut self) -> bool {
        let client = self.client();
        wait_until("the daemon to answer or to end", READY_WITHIN, || {
            if self.has_ended() {
                return Some(false);
            }
            client.answers().then_some(true)
        })
    }

    /// The unix socket it listens on.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("cooper.sock")
    }

    /// Its data root.
    pub fn data_root(&self) -> PathBuf {
        let own = || self.directory.path().join("data");
        self.options.data_root.clone().unwrap_or_else(own)
    }

    /// Its exec root.
    pub fn exec_root(&self) -> PathBuf {
        self.directory.path().join("exec")
    }

    /// A directory of the test's own beside the daemon's.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The parent of its containers' cgroups, as a path inside each hierarchy.
    pub fn cgroup_parent(&self) -> String {
        cgroup_parent(self.directory.path())
    }

    /// Its bridge.
    pub fn bridge(&self) -> Bridge {
        Bridge::of(self.directory.path())
    }

    /// `DOCKER_HOST` for it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(self.socket())
    }

    /// The process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Loads busybox:latest into it.
    pub fn load_busybox(&self) {
        self.load(archive::busybox_archive());
    }

    /// Loads a docker-archive into it.
    pub fn load(&self, archive: Vec<u8>) {
        let headers = [("content-type", "application/x-tar")];
        let answer = self
            .client()
            .request("POST", "/images/load?quiet=1", &headers, archive)
            .expect(200);
        assert!(answer.text().contains("Loaded image"), "{}", answer.text());
    }

    /// Creates and starts a container and answers its id.
    pub fn run(&self, body: &Value) -> String {
        let id = self.create(body);
        let started = self
            .client()
            .post(&format!("/containers/{id}/start"), &Value::Null);
        assert_eq!(started.status, 204, "{}\n{}", started.text(), self.log());
        id
    }

    /// Creates a container and answers its id.
    pub fn create(&self, body: &Value) -> String {
        let created = self
            .client()
            .post("/containers/create", body)
            .expect(201)
            .json();
        created["Id"].as_str().expect("an id").to_owned()
    }

    /// Kills the daemon with SIGKILL, as an out-of-memory kill would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().expect("kill the daemon");
        child.wait().expect("wait for the daemon");
    }

    /// Waits for a daemon that ends by itself (a fault point).
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the daemon runs");
        wait_until("the daemon to end by itself", STOPPED_WITHIN, || {
            child.try_wait().expect("wait for the daemon")
        })
    }

    /// Gives up a daemon that cannot run: what is left of it is looked for, but for what its data root held before,
    /// and nothing is started again.
    pub fn abandon(mut self) {
        let directory = self.directory.path();
        self.census = Census::take(directory, &directory.join("data"), &self.cgroup_parent());
        self.abandoned = true;
    }

    /// Whether the daemon has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        match &mut self.child {
            Some(child) => child.try_wait().expect("wait for the daemon").is_some(),
            None => true,
        }
    }

    /// Stops the daemon with SIGTERM: containers stay.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        signal(child.id(), "TERM");
        wait_until("the daemon to stop at SIGTERM", STOPPED_WITHIN, || {
            child.try_wait().expect("wait for the daemon")
        });
    }

    /// Starts it again on the same roots, without the environment that armed a fault.
    pub fn start_again(&mut self) {
        self.options.environment.clear();
        self.launch();
        self.wait_ready();
    }

    /// As [`TestDaemon::start_again`], with other arguments after those that every test daemon gets.
    pub fn start_again_with(&mut self, arguments: &[&str]) {
        self.options.arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        self.start_again();
    }

    /// Starts the process; [`TestDaemon::wait_ready`] waits for it.
    pub fn launch(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .expect("the daemon's log");
        let bridge = self.bridge();
        let arguments = [
            "daemon".to_owned(),
            format!("--data-root={}", self.data_root().display()),
            format!("--exec-root={}", self.exec_root().display()),
            format!(
                "--pidfile={}",
                self.directory.path().join("cooper.pid").display()
            ),
            format!("--cgroup-parent={}", self.cgroup_parent()),
            format!("--host={}", self.host()),
            format!("--bridge={}", bridge.name),
            format!("--bip={}/24", bridge.address),
            "--config-file=/dev/null".to_owned(),
        ];
        let mut command = sys::command::Command::new(&self.binary)
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("RUST_BACKTRACE", "1")
            .stdout(log.try_clone().expect("a second handle on the log").into())
            .stderr(log.into());
        for argument in arguments.iter().chain(&self.options.arguments) {
            command = command.arg(argument);
        }
        for (key, value) in &self.options.environment {
            command = command.env(key, value);
        }
        self.child = Some(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("start {}: {error}", self.binary.display())),
        );
    }

    /// Waits until the daemon answers.
    pub fn wait_ready(&mut self) {
        let client = self.client();
        wait_until("the daemon to answer", READY_WITHIN, || {
            assert!(!self.has_ended(), "the daemon ended:\n{}", self.log());
            client.answers().then_some(())
        });
        self.held = Some(Held::by(self.pid()));
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("daemon.log")
    }

    /// Removes every container and stops, then makes sure that nothing of the daemon is left on the machine.
    fn finish(&mut self) {
        if self.abandoned {
            return self.census.assert_nothing_left();
        }
        if self.has_ended() {
            self.child = None;
            self.start_again();
        }
        let client = self.client();
        for container in client
            .get("/containers/json?all=1")
            .expect(200)
            .json()
            .as_array()
            .expect("a list")
        {
            let id = container["Id"].as_str().expect("an id");
            let removed = client.delete(&format!("/containers/{id}?force=1&v=1"));
            assert!([204, 404].contains(&removed.status), "{}", removed.text());
        }
        if let Some(held) = &self.held {
            held.assert_given_back(self.pid());
        }
        self.stop();
        self.bridge().remove(&self.data_root());
        self.census.assert_nothing_left();
    }
}

impl Drop for TestDaemon {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.finish();
            return;
        }
        println!("--- the daemon's log ---\n{}", self.log());
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        self.census.clean_up();
        if let Err(error) = self.bridge().try_remove(&self.data_root()) {
            println!("the bridge stays: {error:#}");
        }
    }
}

/// Sends a signal by name to one process that the test started.
pub fn signal(pid: u32, name: &str) {
    let sent = sys::command::Command::new("/bin/kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .output();
    assert!(
        sent.is_ok_and(|output| output.status.success()),
        "send SIG{name} to {pid}"
    );
}

fn cgroup_parent(directory: &Path) -> String {
    format!(
        "/{}",
        directory
            .file_name()
            .expect("a named directory")
            .to_string_lossy()
    )
}
