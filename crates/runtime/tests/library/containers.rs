//! Containers made, started and entered through the library.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use runtime::{Create, Error, Exec, FailureClass, Io, Prepared, Rootfs, StartGate};

use crate::{Place, create, end, pipes, ready, spec};

pub(crate) fn a_container_on_an_overlay_runs_and_the_host_sees_no_mount() {
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

/// inotify(7): whoever watches in a file system is told of its end (`IN_UNMOUNT`).
pub(crate) fn an_overlay_ends_with_who_holds_the_root_and_not_with_the_init() {
    if !ready() {
        return;
    }
    let place = Place::new("held");
    let (io, output) = pipes();
    let mut init = create(&place, &spec(&["true"]), io).unwrap();
    let root = init.root.take().unwrap();
    let path = format!("/proc/self/fd/{}", root.as_raw_fd());
    init.start().unwrap();
    let mut events = fs::File::from(sys::inotify::watch(Path::new(&path)).unwrap());
    assert_eq!(end(&init, output), (0, String::new()));
    let mut buffer = [0; 512];
    let nothing = events.read(&mut buffer).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    drop(root);
    assert!(events.read(&mut buffer).unwrap() > 0);
}

pub(crate) fn errors_have_the_exit_codes_of_docker() {
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

pub(crate) fn a_process_that_is_never_started_ends_with_its_creator() {
    if !ready() {
        return;
    }
    let place = Place::new("dropped");
    let init = create(&place, &spec(&["true"]), pipes().0).unwrap();
    let pidfd = init.pidfd.try_clone().unwrap();
    drop(init);
    assert_eq!(sys::process::wait(pidfd.as_fd()).unwrap().code, 1);
}

pub(crate) fn an_exec_runs_beside_and_has_a_terminal_of_the_given_size() {
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

/// Through the command line, since that runs from a sealed binary: our PID 1 reaps, forwards and ends as the program.
pub(crate) fn our_init_reaps_forwards_and_cannot_be_written() {
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

pub(crate) fn an_init_from_an_unsealed_binary_is_refused() {
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
        peers: &[],
        init: true,
        gate: StartGate::Creator,
    })
    .unwrap_err();
    assert!(error.to_string().contains("sealed"), "{error}");
}
