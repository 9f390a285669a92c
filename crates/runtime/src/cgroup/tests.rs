//! The same tests on v1 and v2: what a limit does, not which file it is in. They need root.

use std::io::Read;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

mod disk;
mod life;
mod limits;

/// Longest wait for something a test has set in motion: an emulated machine is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at a condition.
const POLL: Duration = Duration::from_millis(2);

/// How long something must not happen to be believed not to.
const QUIET: Duration = Duration::from_millis(60);

/// A group with a parent of its own, removed with everything in it at the end.
struct Group {
    parent: String,
    cgroup: Option<Cgroup>,
}

impl Group {
    fn new(test: &str) -> Self {
        let parent = format!("/cooper-test-{test}-{}", std::process::id());
        let cgroup = Cgroup::create(&CgroupPath::new(&parent, "c").unwrap()).unwrap();
        Self {
            parent,
            cgroup: Some(cgroup),
        }
    }

    fn get(&self) -> &Cgroup {
        self.cgroup.as_ref().unwrap()
    }

    fn file(&self, controller: &str, file: &str) -> String {
        let directory = self.get().directory(controller).unwrap();
        self.get()
            .read_from(directory, file)
            .unwrap()
            .trim()
            .to_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for name in list(&self.parent) {
            let cgroup = Cgroup::open(&CgroupPath::new(&self.parent, &name).unwrap()).unwrap();
            cgroup.kill().unwrap();
            cgroup.remove().unwrap();
        }
        remove_empty_parent(&self.parent);
    }
}

/// The test binary again, as a helper that does one thing: run only `helper_process` with `COOPER_HELPER` set. A shell
/// is not needed, so that the tests run in a machine that has nothing else.
#[expect(
    clippy::disallowed_methods,
    reason = "tests start themselves as helpers"
)]
fn helper(action: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cgroup::tests::helper_process", "--nocapture"])
        .env("COOPER_HELPER", action)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lets a helper act, which waits for a line first: by then it is in its group.
fn go(child: &mut Child) {
    drop(child.stdin.take());
}

fn wait(child: &mut Child) -> (std::process::ExitStatus, String) {
    go(child);
    let mut output = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut output)
        .unwrap();
    (child.wait().unwrap(), output)
}

/// The other half of [`helper`]; without the variable it is a test that has nothing to do.
#[test]
fn helper_process() {
    let Ok(action) = std::env::var("COOPER_HELPER") else {
        return;
    };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    match action.as_str() {
        "sleep" => loop {
            std::thread::park();
        },
        "spin" => loop {
            std::hint::spin_loop();
        },
        "hog" => {
            let bytes = std::hint::black_box(vec![1u8; 256 << 20]);
            println!("has {}", bytes.len());
        }
        "fork" => {
            let mut children: Vec<Child> = (0..20).map_while(|_| try_helper("sleep")).collect();
            println!("forked {}", children.len());
            for child in &mut children {
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        "family" => {
            let mut children: Vec<Child> = (0..5).map(|_| helper("sleep")).collect();
            children
                .iter_mut()
                .for_each(|child| assert!(!child.wait().unwrap().success()));
        }
        "open-null" => println!("null {:?}", std::fs::read("/dev/null").is_ok()),
        "open-zero" => println!("zero {:?}", std::fs::File::open("/dev/zero").is_ok()),
        "write" => {
            use std::io::Write;
            use std::os::unix::fs::OpenOptionsExt;
            let path = std::env::temp_dir().join(format!("cooper-write-{}", std::process::id()));
            // O_DSYNC: each write reaches the disk, and is charged to this process.
            let mut options = std::fs::OpenOptions::new();
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .custom_flags(0o10_000)
                .open(&path)
                .unwrap();
            (0..32).for_each(|_| file.write_all(&[7; 64 << 10]).unwrap());
            std::fs::remove_file(&path).unwrap();
        }
        other => panic!("no helper {other}"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests start themselves as helpers"
)]
fn try_helper(action: &str) -> Option<Child> {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cgroup::tests::helper_process", "--nocapture"])
        .env("COOPER_HELPER", action)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(POLL);
    }
}

fn resources(json: serde_json::Value) -> oci::LinuxResources {
    serde_json::from_value(json).unwrap()
}
