//! The library as the shim uses it: overlay roots by every method, exec, and our own init; and what a copied process
//! does. A process that is copied has one thread, so this suite has a harness of its own, which runs the tests on the
//! thread that the process begins with.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests: a failure is the test's"
)]

mod containers;
mod overlays;
mod peers;
mod processes;

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;

use runtime::cgroup::{Cgroup, CgroupPath};
use runtime::{Create, Error, Init, Io, Overlay, Peer, Prepared, Rootfs, StartGate, oci};

/// Each test by its name.
macro_rules! tests {
    ($($module:ident: $($name:ident)*;)*) => {
        &[$($((concat!(stringify!($module), "::", stringify!($name)), $module::$name as fn())),*),*]
    };
}

const TESTS: &[(&str, fn())] = tests! {
    containers:
        a_container_on_an_overlay_runs_and_the_host_sees_no_mount
        an_overlay_ends_with_who_holds_the_root_and_not_with_the_init
        errors_have_the_exit_codes_of_docker
        a_process_that_is_never_started_ends_with_its_creator
        an_exec_runs_beside_and_has_a_terminal_of_the_given_size
        our_init_reaps_forwards_and_cannot_be_written
        an_init_from_an_unsealed_binary_is_refused;
    overlays:
        every_overlay_method_gives_the_same_root
        a_hundred_and_twenty_eight_layers_work_by_the_oldest_method;
    peers:
        namespaces_and_shared_memory_come_from_the_process_not_from_its_number
        a_link_in_the_place_of_the_shared_memory_leads_nowhere
        a_process_of_another_cgroup_is_no_peer;
    processes:
        a_child_ends_with_the_code_of_its_closure
        a_killed_child_is_128_and_the_signal
        a_thread_that_has_ended_is_no_hindrance
        a_child_keeps_the_descriptors_it_names
        a_child_begins_in_its_cgroup;
};

/// What nextest and `cargo test` ask a harness: `--list`, `--exact`, and names or parts of names.
fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| words.iter().any(|word| word == flag);
    if has("--list") {
        for (name, _) in TESTS.iter().filter(|_| !has("--ignored")) {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = TESTS.iter().filter(|(name, _)| {
        let fits = |word: &&String| match has("--exact") {
            true => name == word,
            false => name.contains(word.as_str()),
        };
        wanted.is_empty() || wanted.iter().any(fits)
    });
    let mut failed = 0;
    for (name, test) in chosen {
        let passed = std::panic::catch_unwind(test).is_ok();
        failed += u32::from(!passed);
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    }
    ExitCode::from(u8::from(failed > 0))
}

fn ready() -> bool {
    let busybox = Path::new("/bin/busybox").exists();
    testkit::is_root() && testkit::needs("the package busybox-static", busybox)
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
            "readlink", "mkdir", "ln",
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
    create_beside(place, spec, io, &[])
}

fn create_beside(place: &Place, spec: &oci::Spec, io: Io, peers: &[Peer]) -> Result<Init, Error> {
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
        peers,
        init: false,
        gate: StartGate::Creator,
    })
}

fn end(init: &Init, mut output: fs::File) -> (i32, String) {
    let mut text = String::new();
    output.read_to_string(&mut text).unwrap();
    (sys::process::wait(init.pidfd.as_fd()).unwrap().code, text)
}
