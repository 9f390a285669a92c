//! Overlays by each way the kernel can be told about them, by a process with one thread.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use sys::overlay::{Method, Request};

use crate::ready;

pub(crate) fn every_overlay_method_gives_the_same_root() {
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

pub(crate) fn a_hundred_and_twenty_eight_layers_work_by_the_oldest_method() {
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
