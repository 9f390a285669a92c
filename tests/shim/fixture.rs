//! A `cooper shim` process and its container, removed whatever happens.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};

use runtime::cgroup::{Cgroup, CgroupPath};
use serde_json::json;
use shim::protocol::{
    Create, Exec, ExitRecord, Log, Notice, ProcessId, Reply, Request, Rootfs, Size, State, Streams,
    Wanted,
};
use shim::{Client, protocol};

/// What a container is made with, besides its program.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) terminal: bool,
    pub(crate) stdin: bool,
    pub(crate) size: Option<Size>,
    pub(crate) memory_bytes: Option<i64>,
}

/// Everything until the end of a stream.
pub(crate) fn rest(mut stream: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Docker's stream format, taken apart: (stdout, stderr).
pub(crate) fn demultiplex(mut bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    while let Some((header, after)) = bytes.split_first_chunk::<8>() {
        let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let (payload, after) = after.split_at(usize::try_from(length).unwrap());
        match header[0] {
            1 => stdout.extend_from_slice(payload),
            2 => stderr.extend_from_slice(payload),
            other => panic!("stream {other}"),
        }
        bytes = after;
    }
    assert!(bytes.is_empty(), "torn header");
    (stdout, stderr)
}

pub(crate) struct Fixture {
    dir: tempfile::TempDir,
    shim: Child,
    control: Option<Client>,
    pub(crate) cgroup: CgroupPath,
    /// Where the log is, as the shim sees it.
    log: PathBuf,
    private: bool,
    waited: bool,
}

impl Fixture {
    /// Starts a shim.
    pub(crate) fn spawn(name: &str) -> Self {
        Self::start_with(name, |stdin, _dir| {
            sys::command::Command::new(env!("CARGO_BIN_EXE_cooper"))
                .arg("shim")
                .stdin(stdin)
                .spawn()
                .unwrap()
        })
    }

    /// Starts a shim that sees a file system of 64 KiB where its log goes.
    pub(crate) fn spawn_with_small_disk(name: &str) -> Self {
        let mut fixture = Self::start_with(name, |stdin, dir| {
            let disk = dir.join("disk");
            std::fs::create_dir(&disk).unwrap();
            let script = format!(
                "mount -t tmpfs -o size=64k none {} && exec {} shim",
                disk.display(),
                env!("CARGO_BIN_EXE_cooper")
            );
            sys::command::Command::new("/usr/bin/unshare")
                .arg("--mount")
                .arg("sh")
                .arg("-c")
                .arg(script)
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .stdin(stdin)
                .spawn()
                .unwrap()
        });
        fixture.log = fixture.dir.path().join("disk/log");
        fixture.private = true;
        fixture
    }

    fn start_with(name: &str, spawn: impl FnOnce(OwnedFd, &Path) -> Child) -> Self {
        let dir = tempfile::tempdir().unwrap();
        make_rootfs(&dir.path().join("rootfs"));
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let cgroup = format!("shimtest-{name}-{}", std::process::id());
        Self {
            shim: spawn(theirs.into(), dir.path()),
            control: Some(Client::new(ours)),
            cgroup: CgroupPath::own(&cgroup).unwrap(),
            log: dir.path().join("log"),
            dir,
            private: false,
            waited: false,
        }
    }

    pub(crate) fn shim_pid(&self) -> u32 {
        self.shim.id()
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub(crate) fn create(&mut self, args: &[&str], options: Options) -> Reply {
        let create = Create {
            seccomp: None,
            user: Wanted::default(),
            id: "c0ffee".to_owned(),
            run_dir: self.run_dir(),
            spec: serde_json::from_value(spec(args, &options)).unwrap(),
            rootfs: Rootfs::Directory {
                path: self.rootfs(),
            },
            init: false,
            terminal: options.terminal,
            stdin: options.stdin,
            stdin_once: false,
            size: options.size,
            log: Some(Log {
                path: self.log.clone(),
                max_size_bytes: None,
                max_files: 1,
                attributes: BTreeMap::new(),
            }),
            cgroup: self.cgroup.clone(),
            peers: Vec::new(),
            netns: false,
            forwards: Vec::new(),
        };
        let control = self.control.as_mut().unwrap();
        control.call(&Request::Create(Box::new(create))).unwrap()
    }

    /// Over the control connection while there is one, else over the socket.
    pub(crate) fn call(&mut self, request: &Request) -> Reply {
        match &mut self.control {
            Some(control) => control.call(request).unwrap(),
            None => self.client().call(request).unwrap(),
        }
    }

    pub(crate) fn start(&mut self) {
        let reply = self.call(&Request::Start);
        assert!(matches!(reply, Reply::Started { .. }), "{reply:?}");
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.run_dir()).unwrap()
    }

    pub(crate) fn attach(&self, process: ProcessId, streams: Streams) -> UnixStream {
        let mut client = self.client();
        let reply = client.call(&Request::Attach { process, streams });
        assert_eq!(reply.unwrap(), Reply::Ok);
        client.into_stream()
    }

    /// Runs a process attached.
    pub(crate) fn exec_stream(&self, exec: Exec) -> UnixStream {
        let mut client = self.client();
        let reply = client.call(&Request::Exec(Box::new(exec))).unwrap();
        assert!(
            matches!(reply, Reply::Executed { pid } if pid > 0),
            "{reply:?}"
        );
        client.into_stream()
    }

    pub(crate) fn watch(&self) -> (Client, State) {
        let mut client = self.client();
        match client.call(&Request::Watch).unwrap() {
            Reply::State(state) => (client, *state),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn state(&self) -> State {
        match self.client().call(&Request::State).unwrap() {
            Reply::State(state) => *state,
            other => panic!("{other:?}"),
        }
    }

    /// Signals the init.
    pub(crate) fn kill(&mut self, signal: i32) {
        let process = ProcessId::Init;
        let all = false;
        let reply = self.call(&Request::Kill {
            process,
            signal,
            all,
        });
        assert_eq!(reply, Reply::Ok);
    }

    /// Waits for the init's exit.
    pub(crate) fn exit(&self) -> i32 {
        let (mut client, state) = self.watch();
        if let Some(exit) = state.exit {
            return exit.code;
        }
        loop {
            if let Notice::Exited { process, exit } = client.notice().unwrap()
                && process == ProcessId::Init
            {
                return exit.code;
            }
        }
    }

    pub(crate) fn record(&self, name: &str) -> Option<ExitRecord> {
        let text = std::fs::read(self.run_dir().join(name)).ok()?;
        Some(serde_json::from_slice(&text).unwrap())
    }

    /// The log's messages, each after its stream's name.
    pub(crate) fn log(&self) -> Vec<String> {
        let mut path = self.log.clone();
        if self.private {
            let seen = path.strip_prefix("/").unwrap();
            path = PathBuf::from(format!("/proc/{}/root", self.shim.id())).join(seen);
        }
        let text = std::fs::read_to_string(path).unwrap();
        let message = |line: &str| -> String {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let (stream, log) = (line["stream"].as_str(), line["log"].as_str());
            format!("{}:{}", stream.unwrap(), log.unwrap())
        };
        text.lines().map(message).collect()
    }

    /// The shim's name, as ps and systemd show it.
    pub(crate) fn name(&self) -> String {
        let path = format!("/proc/{}/comm", self.shim.id());
        std::fs::read_to_string(path).unwrap().trim_end().to_owned()
    }

    /// The shim's memory in KiB, by the names of smaps_rollup(5).
    pub(crate) fn memory(&self) -> BTreeMap<String, u64> {
        let path = format!("/proc/{}/smaps_rollup", self.shim.id());
        let text = std::fs::read_to_string(path).unwrap();
        let entry = |line: &str| {
            let (name, value) = line.split_once(':')?;
            let kib = value.trim().strip_suffix(" kB")?.parse().ok()?;
            Some((name.to_owned(), kib))
        };
        text.lines().filter_map(entry).collect()
    }

    pub(crate) fn drop_control(&mut self) {
        self.control = None;
    }

    pub(crate) fn wait_for_shim(&mut self) -> ExitStatus {
        self.waited = true;
        self.shim.wait().unwrap()
    }

    pub(crate) fn kill_shim(&mut self) {
        self.shim.kill().unwrap();
        self.wait_for_shim();
    }

    pub(crate) fn assert_nothing_left(&self) {
        let names = runtime::cgroup::list(self.cgroup.parent());
        assert!(!names.contains(&self.cgroup.name().to_owned()));
        assert!(!self.run_dir().join(protocol::SOCKET_NAME).exists());
    }

    /// Acknowledges the exit; the shim then leaves nothing but the record.
    pub(crate) fn finish(mut self) {
        let process = ProcessId::Init;
        assert_eq!(self.call(&Request::Acknowledge { process }), Reply::Ok);
        self.drop_control();
        assert!(self.wait_for_shim().success());
        self.assert_nothing_left();
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        if !self.waited {
            drop(self.shim.kill());
            drop(self.shim.wait());
        }
        if let Ok(cgroup) = Cgroup::open(&self.cgroup) {
            drop(cgroup.kill());
            drop(cgroup.remove());
        }
        runtime::cgroup::remove_empty_parent(self.cgroup.parent());
    }
}

/// A root directory with nothing but busybox.
fn make_rootfs(root: &Path) {
    for directory in ["bin", "dev", "proc", "sys", "etc", "tmp"] {
        std::fs::create_dir_all(root.join(directory)).unwrap();
    }
    std::fs::copy("/usr/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is installed");
    for applet in [
        "sh", "cat", "echo", "sleep", "head", "tail", "stty", "true", "kill",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
}

fn spec(args: &[&str], options: &Options) -> serde_json::Value {
    let namespaces = ["pid", "mount", "ipc", "uts", "network"].map(|kind| json!({"type": kind}));
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0}, "args": args, "env": ["PATH=/bin"], "cwd": "/",
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "shimtest",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        ],
        "linux": {"namespaces": namespaces, "resources": {}},
    });
    if let Some(limit) = options.memory_bytes {
        spec["linux"]["resources"]["memory"] = json!({"limit": limit, "swap": limit});
    }
    spec
}
