//! Bundles, and running a runtime on them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use runtime::capabilities::DOCKER_DEFAULT;
use serde_json::{Value, json};

/// How long a container may take to do what a test waits for. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// One runtime under test.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    program: PathBuf,
}

impl Runtime {
    /// Whether it is ours, for what the specification leaves open and runc does otherwise.
    pub(crate) fn is_ours(&self) -> bool {
        self.name == "oci" || self.name == "cooper"
    }
}

/// The parent of the cgroups of one test: its own, since it is removed while other tests make theirs.
pub(crate) fn cgroup_parent() -> String {
    format!("oci-suite-{}", std::process::id())
}

/// The runtimes to test; empty, with a word, when nothing can be tested here.
pub(crate) fn runtimes() -> Vec<Runtime> {
    if !testkit::is_root() || !testkit::needs("the package busybox-static", busybox().is_some()) {
        return Vec::new();
    }
    if let Ok(list) = std::env::var("COOPER_SUITE_RUNTIME") {
        return list.split(':').filter_map(find).collect();
    }
    let ours = std::env::current_exe().unwrap();
    let ours = ours
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/oci");
    let mut all: Vec<_> = find("runc").into_iter().collect();
    assert!(
        !all.is_empty() || std::env::var("CI").is_err(),
        "without runc nothing says that the suite itself is right: install the package runc"
    );
    testkit::assert_fresh(&ours);
    all.extend(find(ours.to_str().unwrap()));
    assert!(
        all.iter().any(Runtime::is_ours),
        "the example `oci` is not built"
    );
    all
}

fn find(name: &str) -> Option<Runtime> {
    let program = if name.starts_with('/') {
        PathBuf::from(name)
    } else {
        ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin"]
            .iter()
            .map(|directory| Path::new(directory).join(name))
            .find(|path| path.exists())?
    };
    program.exists().then(|| Runtime {
        name: program.file_name().unwrap().to_string_lossy().into_owned(),
        program: program.clone(),
    })
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
}

/// Runs the body for each runtime under test.
macro_rules! each {
    ($bundle:ident, $body:block) => {
        for runtime in $crate::support::runtimes() {
            let mut $bundle = $crate::support::Bundle::new(&runtime);
            $bundle.begin();
            $body
        }
    };
}

/// A bundle of its own: root, spec, state directory. Dropping it removes the container and everything else.
pub(crate) struct Bundle {
    directory: tempfile::TempDir,
    pub(crate) runtime: Runtime,
    pub(crate) spec: Value,
    pub(crate) id: String,
}

/// What a command of the runtime ended with.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The output of a command that must have succeeded, without the last newline.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out.trim_end().to_owned()
    }

    /// The code and what was said, of a command that must have failed.
    #[track_caller]
    pub(crate) fn failure(self) -> String {
        assert_ne!(self.code, 0, "{self:?}");
        self.err
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        Self {
            code: output
                .status
                .code()
                .unwrap_or_else(|| 128 + output.status.signal().unwrap()),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            // runc quotes its messages once or twice.
            err: String::from_utf8_lossy(&output.stderr).replace('\\', ""),
        }
    }
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl Bundle {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("oci-suite-")
            .tempdir()
            .unwrap();
        // A user namespace's root must be able to walk here.
        fs::set_permissions(
            directory.path(),
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        fill(&directory.path().join("rootfs"));
        let id = format!(
            "suite-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let mut spec = base();
        spec["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", cgroup_parent()));
        Self {
            directory,
            runtime: runtime.clone(),
            spec,
            id,
        }
    }

    /// Says in a failing test's output which runtime it was.
    pub(crate) fn begin(&mut self) {
        println!("runtime: {}", self.runtime.name);
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn root(&self, name: &str) -> PathBuf {
        self.path("rootfs").join(name)
    }

    pub(crate) fn args(&mut self, args: &[&str]) -> &mut Self {
        self.spec["process"]["args"] = json!(args);
        self
    }

    pub(crate) fn mount(&mut self, mount: Value) -> &mut Self {
        self.spec["mounts"].as_array_mut().unwrap().push(mount);
        self
    }

    pub(crate) fn namespaces(&mut self, change: impl FnOnce(&mut Vec<Value>)) -> &mut Self {
        change(self.spec["linux"]["namespaces"].as_array_mut().unwrap());
        self
    }

    /// Runs a copy of the runtime from now on, which no other test executes at the same time.
    pub(crate) fn own_program(&mut self) {
        let copy = self.path(&self.runtime.name);
        fs::copy(&self.runtime.program, &copy).unwrap();
        self.runtime.program = copy;
    }

    pub(crate) fn program(&self) -> &Path {
        &self.runtime.program
    }

    /// As [`Bundle::call`], by a caller that holds the host's root open as descriptor 7 and lets it go along.
    pub(crate) fn call_with_the_hosts_root(&self, args: &[&str]) -> Ended {
        let mut all = vec![
            "-c",
            "exec 7</; exec \"$0\" \"$@\"",
            self.runtime.program.to_str().unwrap(),
        ];
        let root = self.path("state");
        all.extend(["--root", root.to_str().unwrap()]);
        all.extend(args);
        #[expect(
            clippy::disallowed_methods,
            reason = "the suite drives a runtime's command line"
        )]
        let mut shell = Command::new("/bin/sh");
        let ended = shell
            .args(all)
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .output();
        ended.unwrap().into()
    }

    pub(crate) fn run_with_the_hosts_root(&self) -> Ended {
        self.write_spec();
        self.call_with_the_hosts_root(&["run", &self.id])
    }

    /// The runtime's command line on this bundle's state directory.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        #[expect(
            clippy::disallowed_methods,
            reason = "the suite drives a runtime's command line"
        )]
        let mut command = Command::new(&self.runtime.program);
        command
            .arg("--root")
            .arg(self.path("state"))
            .args(args)
            .current_dir(self.directory.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn call(&self, args: &[&str]) -> Ended {
        self.command(args).output().unwrap().into()
    }

    fn write_spec(&self) {
        fs::write(self.path("config.json"), self.spec.to_string()).unwrap();
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Ended {
        self.write_spec();
        self.call(&["run", &self.id])
    }

    /// Runs a shell script as the container.
    pub(crate) fn sh(&mut self, script: &str) -> Ended {
        self.args(&["/bin/sh", "-c", script]);
        self.run()
    }

    /// Runs a script that must succeed; says its output.
    #[track_caller]
    pub(crate) fn says(&mut self, script: &str) -> String {
        self.sh(script).text()
    }

    /// Creates the container; its streams are files (a pipe would stay open with it).
    pub(crate) fn create(&self) -> Ended {
        self.write_spec();
        let file = |name: &str| fs::File::create(self.path(name)).unwrap();
        let status = self
            .command(&["create", "--pid-file", "pid", &self.id])
            .stdout(file("out"))
            .stderr(file("err"))
            .status()
            .unwrap();
        Ended {
            code: status.code().unwrap(),
            out: self.output(),
            err: fs::read_to_string(self.path("err")).unwrap(),
        }
    }

    /// Creates and starts a container that sleeps.
    #[track_caller]
    pub(crate) fn sleeping(&mut self) {
        self.args(&["/bin/sleep", "300"]);
        assert_eq!(
            self.create().code,
            0,
            "{}",
            fs::read_to_string(self.path("err")).unwrap()
        );
        self.start().text();
    }

    pub(crate) fn start(&self) -> Ended {
        self.call(&["start", &self.id])
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Ended {
        let mut all = vec!["exec", &self.id];
        all.extend(args);
        self.call(&all)
    }

    /// Runs a script in the running container; it must succeed.
    #[track_caller]
    pub(crate) fn exec_says(&self, script: &str) -> String {
        self.exec(&["/bin/sh", "-c", script]).text()
    }

    /// What a created container wrote.
    pub(crate) fn output(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        fs::read_to_string(self.path("pid"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.call(&["state", &self.id]).text()).unwrap()
    }

    pub(crate) fn status(&self) -> String {
        self.state()["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the container has this status.
    #[track_caller]
    pub(crate) fn await_status(&self, wanted: &str) {
        wait_until(wanted, || self.status() == wanted);
    }
}

/// Waits for a condition that a container brings about.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let ended = self.command(&["delete", "--force", &self.id]).output();
        if !std::thread::panicking() {
            ended.unwrap();
        }
        // The last one takes the suite's parent cgroup along; before that it is busy.
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            drop(fs::remove_dir(hierarchy.path().join(cgroup_parent())));
        }
        drop(fs::remove_dir(
            Path::new("/sys/fs/cgroup").join(cgroup_parent()),
        ));
    }
}

fn fill(root: &Path) {
    for directory in [
        "bin", "etc", "root", "tmp", "proc", "sys", "dev", "home/app", "data",
    ] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::copy(busybox().unwrap(), root.join("bin/busybox")).unwrap();
    for applet in [
        "sh", "ls", "cat", "echo", "id", "pwd", "env", "hostname", "mount", "umount", "touch",
        "sleep", "true", "false", "stat", "tty", "stty", "grep", "readlink", "test", "mkdir", "rm",
        "ps", "kill", "head", "wc", "dd", "tr", "sort", "mknod", "chmod", "ip", "cut", "awk",
        "date", "ln", "find", "printf", "nproc",
    ] {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
    )
    .unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n").unwrap();
}

/// The shape of a spec as dockerd writes it.
fn base() -> Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
            "cwd": "/",
            "capabilities": {"bounding": DOCKER_DEFAULT, "effective": DOCKER_DEFAULT, "permitted": DOCKER_DEFAULT},
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "suite",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs",
             "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
             "options": ["ro", "nosuid", "noexec", "nodev"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
             "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        ],
        "linux": {
            "namespaces": [
                {"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "pid"}, {"type": "ipc"},
            ],
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware",
                            "/proc/not-there"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    })
}
