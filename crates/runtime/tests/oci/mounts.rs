//! The root, its mounts and devices.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

/// The options of what is mounted at a path, without the file system's own.
fn options(mounts: &str, path: &str) -> Vec<String> {
    let line = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(path))
        .unwrap_or_else(|| panic!("{path} is not mounted:\n{mounts}"));
    line.split(' ')
        .nth(5)
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect()
}

fn kind(mounts: &str, path: &str) -> String {
    let line = mounts
        .lines()
        .rfind(|line| line.split(' ').nth(4) == Some(path))
        .unwrap_or_else(|| panic!("{path} is not mounted"));
    line.split(" - ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .to_owned()
}

#[test]
fn the_mounts_of_the_spec_have_their_types_and_flags() {
    each!(bundle, {
        let seen = bundle.says("cat /proc/self/mountinfo");
        for (path, filesystem, flags) in [
            ("/proc", "proc", "rw,nosuid,nodev,noexec"),
            ("/dev", "tmpfs", "rw,nosuid"),
            ("/dev/pts", "devpts", "rw,nosuid,noexec"),
            ("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
            ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec"),
            ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec"),
        ] {
            assert_eq!(kind(&seen, path), filesystem, "{path}");
            let has = options(&seen, path);
            for flag in flags.split(',') {
                assert!(
                    has.iter().any(|one| one == flag),
                    "{path} lacks {flag}: {has:?}"
                );
            }
        }
        assert!(seen.contains("mode=620,ptmxmode=666"), "{seen}");
        assert!(seen.contains("size=65536k"), "{seen}");
    });
}

#[test]
fn nothing_of_the_host_is_left_in_sight() {
    each!(bundle, {
        fs::write(bundle.path("secret"), "").unwrap();
        let seen = bundle.says("cat /proc/self/mountinfo");
        assert!(
            !seen
                .lines()
                .any(|line| line.split(' ').nth(4) == Some("/old")),
            "{seen}"
        );
        assert_eq!(bundle.says("ls -a / | grep -c secret || true"), "0");
        assert_eq!(
            bundle.says("ls /../.. | tr '\\n' ' '"),
            bundle.says("ls / | tr '\\n' ' '")
        );
        assert_eq!(bundle.says("cd /; cd ..; pwd"), "/");
    });
}

#[test]
fn the_host_sees_no_mount_of_the_container() {
    each!(bundle, {
        bundle.sleeping();
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(
            !host.contains(bundle.path("rootfs").to_str().unwrap()),
            "{host}"
        );
    });
}

#[test]
fn default_devices_and_links_are_there() {
    each!(bundle, {
        let said = bundle.says(
            "cd /dev; for d in null zero full random urandom tty; do stat -c '%n %t:%T %a %u:%g' $d; done; \
             for l in fd stdin stdout stderr ptmx; do echo $l $(readlink $l); done",
        );
        let wanted = "null 1:3 666 0:0\nzero 1:5 666 0:0\nfull 1:7 666 0:0\nrandom 1:8 666 0:0\n\
                      urandom 1:9 666 0:0\ntty 5:0 666 0:0\nfd /proc/self/fd\nstdin /proc/self/fd/0\n\
                      stdout /proc/self/fd/1\nstderr /proc/self/fd/2\nptmx pts/ptmx";
        assert_eq!(said, wanted);
        assert_eq!(
            bundle.says("head -c 4 /dev/zero | wc -c; echo x > /dev/null; echo ok"),
            "4\nok"
        );
        assert_eq!(bundle.says("echo via > /dev/stdout"), "via");
    });
}

#[test]
fn a_device_of_the_spec_is_made_with_owner_and_mode() {
    each!(bundle, {
        bundle.spec["linux"]["devices"] = json!([
            {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 1000, "gid": 7},
            {"path": "/dev/deep/pipe", "type": "p", "fileMode": 0o600},
        ]);
        assert_eq!(
            bundle.says("stat -c '%t:%T %a %u:%g' /dev/mine"),
            "1:5 640 1000:7"
        );
        assert_eq!(bundle.says("stat -c '%F %a' /dev/deep/pipe"), "fifo 600");
    });
}

#[test]
fn masked_paths_are_empty_and_unwritable() {
    each!(bundle, {
        assert_eq!(bundle.says("cat /proc/keys /proc/timer_list | wc -c"), "0");
        assert_eq!(bundle.says("ls -A /sys/firmware | wc -l"), "0");
        let said = bundle
            .says("stat -c '%t:%T' /proc/keys; touch /sys/firmware/x 2>/dev/null || echo refused");
        assert_eq!(said, "1:3\nrefused");
        let seen = bundle.says("cat /proc/self/mountinfo");
        assert_eq!(kind(&seen, "/sys/firmware"), "tmpfs");
        assert!(options(&seen, "/sys/firmware").contains(&"ro".to_owned()));
        assert!(!seen.contains("not-there"));
    });
}

#[test]
fn a_masked_path_of_the_image_is_hidden() {
    each!(bundle, {
        fs::write(bundle.root("data/secret"), "secret").unwrap();
        fs::create_dir(bundle.root("data/dir")).unwrap();
        fs::write(bundle.root("data/dir/file"), "").unwrap();
        bundle.spec["linux"]["maskedPaths"] = json!(["/data/secret", "/data/dir"]);
        assert_eq!(
            bundle.says("cat /data/secret | wc -c; ls /data/dir | wc -l"),
            "0\n0"
        );
        assert_eq!(
            fs::read_to_string(bundle.root("data/secret")).unwrap(),
            "secret"
        );
    });
}

#[test]
fn readonly_paths_keep_their_flags_and_refuse_writes() {
    each!(bundle, {
        let seen = bundle.says("cat /proc/self/mountinfo");
        for path in ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"] {
            let has = options(&seen, path);
            for flag in ["ro", "nosuid", "nodev", "noexec"] {
                assert!(has.iter().any(|one| one == flag), "{path} lacks {flag}");
            }
        }
        let said = bundle.says("(echo x > /proc/sys/kernel/hostname) 2>/dev/null || echo refused");
        assert_eq!(said, "refused");
        fs::write(bundle.root("data/file"), "kept").unwrap();
        bundle.spec["linux"]["readonlyPaths"] = json!(["/data"]);
        let said = bundle.says("(echo x > /data/file) 2>/dev/null || echo refused; cat /data/file");
        assert_eq!(said, "refused\nkept");
    });
}

#[test]
fn a_readonly_root_is_read_only_and_its_mounts_are_not() {
    each!(bundle, {
        bundle.spec["root"]["readonly"] = json!(true);
        let said = bundle.says(
            "(touch /data/x) 2>/dev/null || echo root; touch /dev/shm/x && echo shm; touch /dev/x && echo dev",
        );
        assert_eq!(said, "root\nshm\ndev");
        assert!(options(&bundle.says("cat /proc/self/mountinfo"), "/").contains(&"ro".to_owned()));
        bundle.spec["root"]["readonly"] = json!(false);
        assert_eq!(bundle.says("touch /data/x && echo writable"), "writable");
    });
}

#[test]
fn directories_and_files_are_bound() {
    each!(bundle, {
        fs::create_dir(bundle.path("volume")).unwrap();
        fs::write(bundle.path("volume/file"), "inside").unwrap();
        fs::write(bundle.path("single"), "alone").unwrap();
        let volume = bundle.path("volume");
        let single = bundle.path("single");
        bundle.mount(
            json!({"destination": "/made/for/it", "type": "bind", "source": volume,
            "options": ["rbind", "rprivate"]}),
        );
        bundle.mount(
            json!({"destination": "/etc/single", "type": "bind", "source": single,
            "options": ["bind", "ro"]}),
        );
        let said = bundle.says(
            "cat /made/for/it/file /etc/single; echo; echo new > /made/for/it/new; \
            (echo x > /etc/single) 2>/dev/null || echo refused",
        );
        assert_eq!(said, "insidealone\nrefused");
        assert_eq!(fs::read_to_string(volume.join("new")).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(&single).unwrap(), "alone");
        let seen = bundle.says("cat /proc/self/mountinfo");
        assert!(options(&seen, "/etc/single").contains(&"ro".to_owned()));
        assert!(options(&seen, "/made/for/it").contains(&"rw".to_owned()));
    });
}

#[test]
fn bind_flags_are_set() {
    each!(bundle, {
        fs::create_dir(bundle.path("volume")).unwrap();
        let volume = bundle.path("volume");
        bundle.mount(
            json!({"destination": "/flags", "type": "bind", "source": volume,
            "options": ["bind", "nosuid", "nodev", "noexec", "noatime", "ro"]}),
        );
        let has = options(&bundle.says("cat /proc/self/mountinfo"), "/flags");
        for flag in ["ro", "nosuid", "nodev", "noexec", "noatime"] {
            assert!(has.iter().any(|one| one == flag), "{flag}: {has:?}");
        }
    });
}

#[test]
fn a_missing_bind_source_is_an_error_and_leaves_nothing() {
    each!(bundle, {
        bundle.mount(
            json!({"destination": "/x", "type": "bind", "source": "/no/such/source",
            "options": ["bind"]}),
        );
        let said = bundle.run().failure();
        assert!(said.contains("/no/such/source"), "{said}");
        assert!(said.contains("no such file or directory"), "{said}");
        assert!(
            bundle
                .call(&["state", &bundle.id])
                .failure()
                .contains("does not exist")
        );
    });
}

#[test]
fn a_directory_over_a_file_is_an_error() {
    each!(bundle, {
        fs::create_dir(bundle.path("volume")).unwrap();
        let volume = bundle.path("volume");
        bundle.mount(
            json!({"destination": "/etc/passwd", "type": "bind", "source": volume,
            "options": ["bind"]}),
        );
        let said = bundle.run().failure();
        assert!(said.contains("not a directory"), "{said}");
    });
}

#[test]
fn recursive_binds_bring_what_is_below() {
    each!(bundle, {
        fs::create_dir(bundle.path("volume")).unwrap();
        let volume = bundle.path("volume");
        bundle.mount(
            json!({"destination": "/all", "type": "bind", "source": "/dev",
            "options": ["rbind", "rprivate", "ro"]}),
        );
        bundle.mount(
            json!({"destination": "/one", "type": "bind", "source": volume,
            "options": ["bind", "private"]}),
        );
        let seen = bundle.says("cat /proc/self/mountinfo");
        assert_eq!(kind(&seen, "/all/pts"), "devpts");
        assert!(options(&seen, "/all").contains(&"ro".to_owned()));
        assert!(!seen.contains(" /one/"));
    });
}

#[test]
fn propagation_of_binds_is_as_asked() {
    each!(bundle, {
        for name in ["a", "b", "c"] {
            fs::create_dir(bundle.path(name)).unwrap();
            let source = bundle.path(name);
            let options = match name {
                "a" => json!(["rbind", "rprivate"]),
                "b" => json!(["rbind", "rshared"]),
                _ => json!(["rbind", "runbindable"]),
            };
            bundle.mount(
                json!({"destination": format!("/{name}"), "type": "bind", "source": source,
                "options": options}),
            );
        }
        let seen = bundle.says("cat /proc/self/mountinfo");
        let tags = |path: &str| {
            let line = seen
                .lines()
                .rfind(|line| line.split(' ').nth(4) == Some(path))
                .unwrap();
            line.split(" - ")
                .next()
                .unwrap()
                .split(' ')
                .skip(6)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(tags("/a"), "");
        assert!(tags("/b").contains("shared:"), "{}", tags("/b"));
        assert!(tags("/c").contains("unbindable"), "{}", tags("/c"));
    });
}

#[test]
fn root_propagation_is_as_asked() {
    each!(bundle, {
        for (asked, tag) in [
            ("shared", "shared:"),
            ("private", ""),
            ("unbindable", "unbindable"),
        ] {
            if !tag.is_empty() && !bundle.runtime.is_ours() {
                // runc 1.1 gives that to the mounts it leaves behind, not to the root the spec means.
                continue;
            }
            bundle.spec["linux"]["rootfsPropagation"] = json!(asked);
            let seen = bundle.says("cat /proc/self/mountinfo");
            let line = seen
                .lines()
                .find(|line| line.split(' ').nth(4) == Some("/"))
                .unwrap();
            let tags = line
                .split(" - ")
                .next()
                .unwrap()
                .split(' ')
                .skip(6)
                .collect::<Vec<_>>()
                .join(" ");
            if tag.is_empty() {
                assert_eq!(tags, "");
            } else {
                assert!(tags.contains(tag), "{asked}: {tags}");
            }
        }
    });
}

#[test]
fn tmpfs_options_count() {
    each!(bundle, {
        bundle.mount(
            json!({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs",
            "options": ["nosuid", "size=1m", "mode=1770", "uid=1000", "gid=7"]}),
        );
        assert_eq!(bundle.says("stat -c '%a %u:%g' /scratch"), "1770 1000:7");
        let said =
            bundle.says("dd if=/dev/zero of=/scratch/x bs=1k count=2048 2>/dev/null || echo full");
        assert_eq!(said, "full");
    });
}

#[test]
fn symlinks_in_the_image_lead_nowhere_outside() {
    each!(bundle, {
        let canary = bundle.path("canary");
        fs::create_dir(&canary).unwrap();
        symlink(&canary, bundle.root("escape")).unwrap();
        symlink("../../../../../../../../", bundle.root("up")).unwrap();
        symlink("missing/target", bundle.root("dangling")).unwrap();
        fs::create_dir(bundle.path("volume")).unwrap();
        let volume = bundle.path("volume");
        for destination in ["/escape/made", "/up/made", "/dangling/made"] {
            bundle.mount(
                json!({"destination": destination, "type": "bind", "source": volume,
                "options": ["bind"]}),
            );
        }
        bundle.says("touch /up/made/file");
        assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
        assert!(volume.join("file").exists());
        assert!(!std::path::Path::new("/made").exists());
        assert!(bundle.root("made").exists());
    });
}

#[test]
fn proc_and_sys_are_not_mounted_over_links() {
    each!(bundle, {
        fs::remove_dir(bundle.root("proc")).unwrap();
        fs::create_dir(bundle.root("elsewhere")).unwrap();
        symlink("elsewhere", bundle.root("proc")).unwrap();
        let said = bundle.run().failure();
        assert!(
            said.contains("must be mounted on ordinary directory"),
            "{said}"
        );
    });
}

#[test]
fn nothing_is_bound_inside_proc() {
    each!(bundle, {
        let volume = bundle.path("volume");
        fs::create_dir(&volume).unwrap();
        bundle.mount(
            json!({"destination": "/proc/self/attr", "type": "bind", "source": volume,
            "options": ["bind"]}),
        );
        let said = bundle.run().failure();
        assert!(
            said.contains("cannot be mounted because it is inside /proc"),
            "{said}"
        );
    });
}
