//! Measures create, start and end of `true` through the library: `start [rounds] [directory|overlay] [exec]`.
//!
//! One line: the least, the median and the 90th percentile of each part, in microseconds.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measuring tool for developers"
)]

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use runtime::cgroup::{Cgroup, CgroupPath};
use runtime::{Create, Exec, Io, Overlay, Prepared, Rootfs, StartGate, oci};

fn null() -> OwnedFd {
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .write(true)
        .open("/dev/null")
        .unwrap()
        .into()
}

fn io() -> Io {
    Io::Pipes {
        stdin: null(),
        stdout: null(),
        stderr: null(),
    }
}

#[expect(
    clippy::too_many_lines,
    reason = "one measurement, read from top to bottom"
)]
fn main() {
    let words: Vec<String> = std::env::args().collect();
    let rounds: usize = words.get(1).map_or(50, |text| text.parse().unwrap());
    let overlay = words.get(2).is_none_or(|word| word == "overlay");
    let directory = tempfile::tempdir().unwrap();
    let layer = directory.path().join("layers/1");
    for name in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
        fs::create_dir_all(layer.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", layer.join("bin/true")).unwrap();
    let spec: oci::Spec = serde_json::from_str(SPEC).unwrap();
    let names = spec
        .process()
        .as_ref()
        .unwrap()
        .capabilities()
        .clone()
        .unwrap();
    let policy = runtime::seccomp::docker_default(names.bounding().as_ref().unwrap());
    let program = runtime::seccomp::compile(&policy).unwrap();
    let mut parts: [Vec<u128>; 5] = Default::default();
    for round in 0..rounds {
        let here = directory.path().join(format!("c{round}"));
        for name in ["upper", "work"] {
            fs::create_dir_all(here.join(name)).unwrap();
        }
        let rootfs = if overlay {
            Rootfs::Overlay(Overlay {
                layers: directory.path().join("layers"),
                lower: vec!["1".to_owned()],
                upper: here.join("upper"),
                work: here.join("work"),
            })
        } else {
            Rootfs::Directory {
                path: layer.clone(),
            }
        };
        let cgroup = Cgroup::create(&CgroupPath::own(&format!("bench-{round}")).unwrap()).unwrap();
        let begin = Instant::now();
        let mut init = runtime::create(Create {
            user: None,
            spec: &spec,
            seccomp: Some(&program),
            rootfs: &rootfs,
            io: io(),
            prepared: Prepared {
                cgroup,
                netns: None,
            },
            peers: &[],
            init: false,
            gate: StartGate::Creator,
        })
        .unwrap();
        let created = Instant::now();
        let executed = (words.get(3).is_some_and(|word| word == "exec")).then(|| {
            let before = Instant::now();
            let executed = runtime::exec(Exec {
                user: None,
                init: init.pidfd(),
                spec: &spec,
                seccomp: Some(&program),
                process: spec.process().as_ref().unwrap(),
                cgroup: &init.cgroup,
                io: io(),
            })
            .unwrap();
            sys::process::wait(executed.pidfd.as_fd()).unwrap();
            before.elapsed()
        });
        let before = Instant::now();
        init.start().unwrap();
        let started = Instant::now();
        assert_eq!(sys::process::wait(init.pidfd.as_fd()).unwrap().code, 0);
        let ended = Instant::now();
        init.cgroup.remove().unwrap();
        parts[0].push((created - begin).as_micros());
        parts[1].push((started - before).as_micros());
        parts[2].push((ended - started).as_micros());
        parts[3].push((created - begin + (ended - before)).as_micros());
        parts[4].push(executed.unwrap_or_default().as_micros());
    }
    for (name, times) in ["create", "start", "end", "all", "exec"]
        .iter()
        .zip(&mut parts)
    {
        times.sort_unstable();
        let (least, median) = (times[0], times[times.len() / 2]);
        print!("{name} {least} {median} {}  ", times[times.len() * 9 / 10]);
    }
    println!();
}

const SPEC: &str = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["/bin/true"],
"env":["PATH=/bin"],"cwd":"/","capabilities":{"bounding":["CAP_CHOWN","CAP_KILL","CAP_SETUID"],
"effective":["CAP_CHOWN","CAP_KILL","CAP_SETUID"],"permitted":["CAP_CHOWN","CAP_KILL","CAP_SETUID"]}},
"root":{"path":"rootfs"},"hostname":"bench","mounts":[
{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro","nosuid","noexec","nodev"]},
{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]}],
"linux":{"namespaces":[{"type":"mount"},{"type":"network"},{"type":"uts"},{"type":"pid"},{"type":"ipc"}],
"resources":{"devices":[{"allow":false,"access":"rwm"}]},
"maskedPaths":["/proc/acpi","/proc/kcore","/proc/keys","/proc/timer_list","/sys/firmware"],
"readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]}}"#;
