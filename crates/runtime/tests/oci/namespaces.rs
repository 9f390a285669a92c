//! Namespaces: which are new, which are the host's, which are joined.

use std::fs;

use serde_json::json;

fn host(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}"))
        .unwrap()
        .to_string_lossy()
        .into_owned()
}

#[test]
fn listed_namespaces_are_new_and_others_are_the_hosts() {
    each!(bundle, {
        let script = "for n in mnt net uts pid ipc user cgroup; do readlink /proc/self/ns/$n; done";
        let said = bundle.says(script);
        let seen: Vec<&str> = said.lines().collect();
        for (index, kind) in ["mnt", "net", "uts", "pid", "ipc"].iter().enumerate() {
            assert_ne!(seen[index], host(kind), "{kind}");
        }
        for (index, kind) in ["user", "cgroup"].iter().enumerate() {
            assert_eq!(seen[index + 5], host(kind), "{kind}");
        }
    });
}

#[test]
fn unlisted_namespaces_are_shared() {
    each!(bundle, {
        bundle.namespaces(|all| all.retain(|one| one["type"] == "mount" || one["type"] == "pid"));
        bundle.spec.as_object_mut().unwrap().remove("hostname");
        // sysfs shows a network namespace, so it is bound where that is the host's.
        let said =
            bundle.says("for n in net uts ipc; do readlink /proc/self/ns/$n; done; hostname");
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(seen[0], host("net"));
        assert_eq!(seen[1], host("uts"));
        assert_eq!(seen[2], host("ipc"));
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(seen[3], name.trim());
    });
}

#[test]
fn the_first_process_is_pid_1_and_sees_only_its_own() {
    each!(bundle, {
        let said = bundle.says("echo $$; ls /proc | grep -c '^[0-9]*$'; cat /proc/1/comm; true");
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(seen[0], "1");
        assert!(seen[1].parse::<u32>().unwrap() <= 4, "{said}");
        assert_eq!(seen[2], "sh");
    });
}

#[test]
fn the_loopback_interface_of_a_new_network_namespace_is_up() {
    each!(bundle, {
        // A closed port answers; an interface that is down is unreachable.
        let said =
            bundle.says("ip -o addr show lo | grep -c 127.0.0.1/8; nc 127.0.0.1 9 2>&1; true");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines[0], "1", "{said}");
        assert!(lines[1].contains("refused"), "{said}");
    });
}

#[test]
fn a_new_network_namespace_has_only_loopback() {
    each!(bundle, {
        assert_eq!(bundle.says("ls /sys/class/net"), "lo");
        assert_eq!(bundle.says("cat /proc/net/dev | grep -c :"), "1");
    });
}

#[test]
fn host_and_domain_name_are_the_containers() {
    each!(bundle, {
        assert_eq!(bundle.says("hostname"), "suite");
        if bundle.runtime.is_ours() {
            // runc knows domainname only since 1.1.6.
            bundle.spec["domainname"] = json!("example");
            assert_eq!(bundle.says("cat /proc/sys/kernel/domainname"), "example");
        }
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_ne!(name.trim(), "suite");
    });
}

#[test]
fn a_cgroup_namespace_hides_the_path() {
    each!(bundle, {
        bundle.namespaces(|all| all.push(json!({"type": "cgroup"})));
        let said = bundle.says("cut -d: -f3 /proc/self/cgroup | sort -u");
        assert!(said.lines().any(|line| line == "/"), "{said}");
        assert!(!said.contains("oci-suite"), "{said}");
        let said = bundle.says("readlink /proc/self/ns/cgroup");
        assert_ne!(said, host("cgroup"));
        assert!(bundle.says("ls /sys/fs/cgroup").lines().count() > 0);
    });
}

#[test]
fn namespaces_are_joined_by_path() {
    each!(bundle, {
        bundle.sleeping();
        let pid = bundle.pid();
        let mut second = super::support::Bundle::new(&bundle.runtime);
        second.namespaces(|all| {
            for one in all.iter_mut() {
                let file = match one["type"].as_str().unwrap() {
                    "network" => "net",
                    "ipc" => "ipc",
                    "uts" => "uts",
                    _ => continue,
                };
                one["path"] = json!(format!("/proc/{pid}/ns/{file}"));
            }
        });
        second.spec.as_object_mut().unwrap().remove("hostname");
        let said = second
            .says("for n in net ipc uts pid mnt; do readlink /proc/self/ns/$n; done; hostname");
        let seen: Vec<&str> = said.lines().collect();
        for (index, kind) in ["net", "ipc", "uts", "pid", "mnt"].iter().enumerate() {
            let theirs = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_eq!(seen[index] == theirs.to_string_lossy(), index < 3, "{kind}");
        }
        assert_eq!(seen[5], "suite");
    });
}

#[test]
fn a_pid_namespace_is_joined_by_path() {
    each!(bundle, {
        bundle.sleeping();
        let pid = bundle.pid();
        let mut second = super::support::Bundle::new(&bundle.runtime);
        second.namespaces(|all| {
            for one in all.iter_mut().filter(|one| one["type"] == "pid") {
                one["path"] = json!(format!("/proc/{pid}/ns/pid"));
            }
        });
        let said = second
            .says("cat /proc/1/comm; readlink /proc/self/ns/pid; test $$ -ne 1 && echo other");
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(seen[0], "sleep");
        let theirs = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
        assert_eq!(seen[1], theirs.to_string_lossy());
        assert_eq!(seen[2], "other");
    });
}

#[test]
fn a_user_namespace_maps_ids() {
    each!(bundle, {
        bundle.namespaces(|all| all.push(json!({"type": "user"})));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        bundle.spec["linux"]["uidMappings"] = map.clone();
        bundle.spec["linux"]["gidMappings"] = map;
        own(&bundle.path("rootfs"));
        let said = bundle.says(
            "id -u; id -g; awk '{print $1,$2,$3}' /proc/self/uid_map; awk '{print $1,$2,$3}' /proc/self/gid_map; \
             readlink /proc/self/ns/user; echo x > /dev/null && echo null; stat -c %F /dev/zero; hostname; \
             touch /tmp/made && echo made; ls -d /proc/self",
        );
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(&seen[..4], ["0", "0", "0 100000 65536", "0 100000 65536"]);
        assert_ne!(seen[4], host("user"));
        assert_eq!(
            &seen[5..],
            [
                "null",
                "character special file",
                "suite",
                "made",
                "/proc/self"
            ]
        );
        let made = fs::metadata(bundle.root("tmp/made")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 100_000);
    });
}

#[test]
fn an_exec_enters_the_user_namespace_too() {
    each!(bundle, {
        bundle.namespaces(|all| all.push(json!({"type": "user"})));
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        bundle.spec["linux"]["uidMappings"] = map.clone();
        bundle.spec["linux"]["gidMappings"] = map;
        own(&bundle.path("rootfs"));
        bundle.sleeping();
        let script = "id -u; awk '{print $2}' /proc/self/uid_map; readlink /proc/self/ns/user";
        let said = bundle.exec_says(script);
        let theirs = fs::read_link(format!("/proc/{}/ns/user", bundle.pid())).unwrap();
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(seen, ["0", "100000", &theirs.to_string_lossy()]);
    });
}

fn own(path: &std::path::Path) {
    std::os::unix::fs::lchown(path, Some(100_000), Some(100_000)).unwrap();
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).unwrap() {
            own(&entry.unwrap().path());
        }
    }
}

#[test]
fn a_namespace_twice_or_a_missing_path_is_refused() {
    each!(bundle, {
        bundle.namespaces(|all| all.push(json!({"type": "pid"})));
        let said = bundle.run().failure();
        assert!(said.contains("duplicated ns"), "{said}");
        bundle.namespaces(|all| {
            all.pop();
            all.retain(|one| one["type"] != "network");
            all.push(json!({"type": "network", "path": "/proc/0/ns/net"}));
        });
        let said = bundle.run().failure();
        assert!(said.contains("/proc/0/ns/net"), "{said}");
    });
}
