//! The library as the shim uses it: overlay roots by every method, exec, and our own init.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a failure is the test's"
)]

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use runtime::cgroup::{Cgroup, CgroupPath};
use runtime::{
    Create, Error, Exec, FailureClass, Init, Io, Overlay, Prepared, Rootfs, StartGate, oci,
};
use sys::overlay::{Method, Request};

fn ready() -> bool {
    let able = sys::process::is_root() && Path::new("/bin/busybox").exists();
    assert!(
        able || std::env::var("CI").is_err(),
        "needs root and busybox-static"
    );
    if !able {
        println!("skipped: needs root and busybox-static");
    }
    able
}

/// A container's surroundings; what is left of it is removed at the end.
struct Place {
    directory: tempfile::TempDir,
    name: String,
}

impl Place {
    fn new(test: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("layers/1");
        for name in ["bin", "proc", "dev", "tmp", "etc"] {
            fs::create_dir_all(layer.join(name)).unwrap();
        }
        fs::copy("/bin/busybox", layer.join("bin/busybox")).unwrap();
        for applet in [
            "sh", "cat", "id", "echo", "true", "sleep", "grep", "touch", "ps", "tr", "ls",
        ] {
            std::os::unix::fs::symlink("busybox", layer.join("bin").join(applet)).unwrap();
        }
        for name in ["upper", "work"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        Self {
            directory,
            name: format!("lib-{test}-{}", std::process::id()),
        }
    }

    fn overlay(&self) -> Overlay {
        Overlay {
            layers: self.directory.path().join("layers"),
            lower: vec!["1".to_owned()],
            upper: self.directory.path().join("upper"),
            work: self.directory.path().join("work"),
        }
    }

    fn cgroup(&self) -> Cgroup {
        Cgroup::create(&CgroupPath::new("/lib-suite", &self.name).unwrap()).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let cgroup = CgroupPath::new("/lib-suite", &self.name).and_then(|path| Cgroup::open(&path));
        if let Ok(cgroup) = cgroup {
            cgroup.kill().unwrap();
            cgroup.remove().unwrap();
        }
        // The last one takes the parent along; before that it is busy.
        for hierarchy in fs::read_dir("/sys/fs/cgroup")
            .into_iter()
            .flatten()
            .flatten()
        {
            drop(fs::remove_dir(hierarchy.path().join("lib-suite")));
        }
        drop(fs::remove_dir("/sys/fs/cgroup/lib-suite"));
    }
}

fn spec(args: &[&str]) -> oci::Spec {
    let mounts = r#"[{"destination":"/proc","type":"proc","source":"proc"},
        {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755"]},
        {"destination":"/dev/pts","type":"devpts","source":"devpts",
         "options":["newinstance","ptmxmode=0666","mode=0620","gid=5"]}]"#;
    let text = format!(
        r#"{{"ociVersion":"1.0.2","process":{{"user":{{"uid":0,"gid":0}},"args":{},"env":["PATH=/bin"],"cwd":"/"}},
        "root":{{"path":"unused"}},"hostname":"lib","mounts":{mounts},"linux":{{"namespaces":[{{"type":"mount"}},
        {{"type":"network"}},{{"type":"uts"}},{{"type":"pid"}},{{"type":"ipc"}}]}}}}"#,
        serde_json::to_string(args).unwrap()
    );
    serde_json::from_str(&text).unwrap()
}

fn pipes() -> (Io, fs::File) {
    let (read, write) = sys::process::pipe().unwrap();
    let null: OwnedFd = fs::File::open("/dev/null").unwrap().into();
    let io = Io::Pipes {
        stdin: null,
        stdout: write.try_clone().unwrap(),
        stderr: write,
    };
    (io, fs::File::from(read))
}

fn create(place: &Place, spec: &oci::Spec, io: Io) -> Result<Init, Error> {
    runtime::create(Create {
        user: None,
        spec,
        seccomp: None,
        rootfs: &Rootfs::Overlay(place.overlay()),
        io,
        prepared: Prepared {
            cgroup: place.cgroup(),
            netns: None,
        },
        init: false,
        gate: StartGate::Creator,
    })
}

fn end(init: &Init, mut output: fs::File) -> (i32, String) {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (sys::process::wait(init.pidfd.as_fd()).unwrap().code, text)
}

#[test]
fn a_container_on_an_overlay_runs_and_the_host_sees_no_mount() {
    if !ready() {
        return;
    }
    let place = Place::new("run");
    let (io, output) = pipes();
    let script = "echo $$; touch /made; cat /proc/self/cgroup; exit 7";
    let mut init = create(&place, &spec(&["sh", "-c", script]), io).unwrap();
    let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(
        !host.contains(place.directory.path().to_str().unwrap()),
        "{host}"
    );
    init.start().unwrap();
    let (code, text) = end(&init, output);
    assert_eq!(code, 7);
    assert!(text.starts_with("1\n"), "{text}");
    assert!(
        text.contains(&format!("/lib-suite/{}", place.name)),
        "{text}"
    );
    assert!(place.directory.path().join("upper/made").exists());
    assert!(matches!(init.start(), Err(Error::Died)), "a second start");
}

#[test]
fn errors_have_the_exit_codes_of_docker() {
    if !ready() {
        return;
    }
    for (program, code, class) in [
        ("nope", 127, FailureClass::NotFound),
        ("/nope", 127, FailureClass::NotFound),
        ("/tmp", 126, FailureClass::NotExecutable),
        ("/bin", 126, FailureClass::NotExecutable),
    ] {
        let place = Place::new("errors");
        let error = create(&place, &spec(&[program]), pipes().0).unwrap_err();
        assert_eq!((error.exit_code(), error.class()), (code, class), "{error}");
    }
}

#[test]
fn a_process_that_is_never_started_ends_with_its_creator() {
    if !ready() {
        return;
    }
    let place = Place::new("dropped");
    let init = create(&place, &spec(&["true"]), pipes().0).unwrap();
    let pidfd = init.pidfd.try_clone().unwrap();
    drop(init);
    assert_eq!(sys::process::wait(pidfd.as_fd()).unwrap().code, 1);
}

#[test]
fn an_exec_runs_beside_and_has_a_terminal_of_the_given_size() {
    if !ready() {
        return;
    }
    let place = Place::new("exec");
    let spec = spec(&["sleep", "300"]);
    let mut init = create(&place, &spec, pipes().0).unwrap();
    init.start().unwrap();
    let mut process = spec.process().clone().unwrap();
    process.set_args(Some(
        ["sh", "-c", "cat /proc/1/comm; exit 4"]
            .map(str::to_owned)
            .to_vec(),
    ));
    let (io, output) = pipes();
    let request = |io, process| Exec {
        user: None,
        init: init.pidfd(),
        spec: &spec,
        seccomp: None,
        process,
        cgroup: &init.cgroup,
        io,
    };
    let executed = runtime::exec(request(io, &process)).unwrap();
    let mut text = String::new();
    { output }.read_to_string(&mut text).unwrap();
    assert_eq!(text, "sleep\n");
    assert_eq!(sys::process::wait(executed.pidfd.as_fd()).unwrap().code, 4);

    let size = runtime::WindowSize {
        height: 31,
        width: 97,
    };
    let executed = runtime::exec(request(Io::Terminal { size: Some(size) }, &process)).unwrap();
    let terminal = executed.terminal.unwrap();
    assert_eq!(sys::pty::size(terminal.as_fd()).unwrap(), size);
    assert_eq!(sys::process::wait(executed.pidfd.as_fd()).unwrap().code, 4);

    let mut missing = process.clone();
    missing.set_args(Some(vec!["nope".to_owned()]));
    let error = runtime::exec(request(pipes().0, &missing)).unwrap_err();
    assert_eq!(error.exit_code(), 127);
    assert_eq!(
        error.to_string(),
        "unable to start container process: exec: \"nope\": executable file not found in $PATH"
    );
}

#[test]
fn every_overlay_method_gives_the_same_root() {
    if !ready() {
        return;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let has_lower_plus = (numbers.next().unwrap(), numbers.next().unwrap()) >= (6, 5);
    let methods = [Method::LowerPlus, Method::LowerString, Method::Legacy];
    for method in methods.into_iter().skip(usize::from(!has_lower_plus)) {
        let directory = tempfile::tempdir().unwrap();
        let layers = directory.path().join("layers");
        for (name, file) in [("10", "top"), ("2", "below")] {
            fs::create_dir_all(layers.join(name)).unwrap();
            fs::write(layers.join(name).join(file), file).unwrap();
            fs::write(layers.join(name).join("both"), name).unwrap();
        }
        let [upper, work] = upper_and_work(directory.path());
        let request = Request {
            layers: &layers,
            lower: &["10".to_owned(), "2".to_owned()],
            upper: Some((&upper, &work)),
        };
        let mount = sys::overlay::mount(&request, Some(method)).unwrap();
        for (name, content) in [("top", "top"), ("below", "below"), ("both", "10")] {
            let bytes = sys::path::read_bounded(mount.as_fd(), Path::new(name), 100).unwrap();
            assert_eq!(bytes, content.as_bytes(), "{method:?} {name}");
        }
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !host.contains(directory.path().to_str().unwrap()),
            "{method:?}"
        );
    }
}

/// The two directories that a writable overlay wants.
fn upper_and_work(directory: &Path) -> [PathBuf; 2] {
    ["upper", "work"].map(|name| {
        let path = directory.join(name);
        fs::create_dir(&path).unwrap();
        path
    })
}

#[test]
fn a_hundred_and_twenty_eight_layers_work_by_the_oldest_method() {
    if !ready() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let layers = directory.path().join("layers");
    let lower: Vec<String> = (1000..1128).map(|number: u32| number.to_string()).collect();
    for name in &lower {
        fs::create_dir_all(layers.join(name)).unwrap();
        fs::write(layers.join(name).join(name), "").unwrap();
    }
    let [upper, work] = upper_and_work(directory.path());
    let request = Request {
        layers: &layers,
        lower: &lower,
        upper: Some((&upper, &work)),
    };
    for method in [Some(Method::Legacy), None] {
        let mount = sys::overlay::mount(&request, method).unwrap();
        for name in &lower {
            sys::path::open_in_root(mount.as_fd(), Path::new(name), sys::path::OpenFlags::PATH)
                .unwrap();
        }
    }
}

/// Through the command line, since that runs from a sealed binary: our PID 1 reaps, forwards and ends as the program.
#[test]
fn our_init_reaps_forwards_and_cannot_be_written() {
    if !ready() {
        return;
    }
    let place = Place::new("init");
    let root = place.directory.path().join("layers/1");
    // An orphan that is reaped leaves /proc; a zombie would stay there.
    let script = "cat /proc/1/cmdline | tr '\\0' ' '; echo; orphan=$(sh -c 'sleep 0.1 >/dev/null & echo $!'); \
        tries=0; while [ -e /proc/$orphan ] && [ $tries -lt 600 ]; do sleep 0.05; tries=$((tries+1)); done; \
        [ ! -e /proc/$orphan ]; echo $?; ls -l /proc/1/exe >/dev/null; (: >> /proc/1/exe) 2>/dev/null && echo WRITABLE; \
        echo $$; trap 'exit 33' TERM; kill -TERM 1; while :; do sleep 0.05; done";
    let mut value = serde_json::to_value(spec(&["sh", "-c", script])).unwrap();
    value["root"]["path"] = serde_json::json!(root);
    value["linux"]["cgroupsPath"] = serde_json::json!(format!("/lib-suite/{}", place.name));
    let all = serde_json::json!(["CAP_SYS_PTRACE", "CAP_KILL", "CAP_DAC_OVERRIDE"]);
    value["process"]["capabilities"] =
        serde_json::json!({"bounding": all, "effective": all, "permitted": all});
    fs::write(
        place.directory.path().join("config.json"),
        value.to_string(),
    )
    .unwrap();
    let ours = std::env::current_exe().unwrap();
    let ours = ours
        .parent()
        .unwrap()
        .parent()
        .unwrap()
        .join("examples/oci");
    #[expect(clippy::disallowed_methods, reason = "drives our own command line")]
    let output = std::process::Command::new(ours)
        .args(["--root", "state", "run", "--init", &place.name])
        .current_dir(place.directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<&str> = text.lines().collect();
    // Bit 24 is CAP_SYS_RESOURCE, without which the kernel keeps the old line.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap();
    if u64::from_str_radix(effective.trim(), 16).unwrap() >> 24 & 1 == 1 {
        assert!(
            lines[0].starts_with("/sbin/docker-init -- sh -c"),
            "{output:?}"
        );
    }
    assert_eq!(&lines[lines.len() - 2..], ["0", "2"], "{output:?}");
    // The first line is the command, which has the word in it.
    assert!(!lines[1..].contains(&"WRITABLE"), "{text}");
    assert_eq!(output.status.code(), Some(33), "{output:?}");
}

#[test]
fn an_init_from_an_unsealed_binary_is_refused() {
    if !ready() {
        return;
    }
    let place = Place::new("unsealed");
    let error = runtime::create(Create {
        user: None,
        spec: &spec(&["true"]),
        seccomp: None,
        rootfs: &Rootfs::Overlay(place.overlay()),
        io: pipes().0,
        prepared: Prepared {
            cgroup: place.cgroup(),
            netns: None,
        },
        init: true,
        gate: StartGate::Creator,
    })
    .unwrap_err();
    assert!(error.to_string().contains("sealed"), "{error}");
}
