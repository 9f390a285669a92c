//! What a limit does to the processes under it.

use super::*;

#[test]
fn the_memory_limit_kills_and_is_counted() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("memory");
    let limits = serde_json::json!({ "memory": { "limit": 32 << 20, "swap": 64 << 20, "reservation": 16 << 20 } });
    group.get().apply(&resources(limits)).unwrap();
    let mut child = helper("hog");
    group.get().join(child.id()).unwrap();
    let (status, output) = wait(&mut child);
    assert!(
        !status.success() && !output.contains("has"),
        "{status} {output}"
    );
    assert_eq!(group.get().oom_kills().unwrap(), 1);
    let memory = group.get().stats().unwrap().memory.unwrap();
    assert_eq!((memory.limit, memory.oom_kills), (32 << 20, 1));
    assert!(memory.failcnt > 0);
    assert!(
        memory
            .max_usage
            .is_none_or(|max| (20 << 20..=32 << 20).contains(&max)),
        "{memory:?}"
    );
    let key = if version() == Version::V1 {
        "total_rss"
    } else {
        "anon"
    };
    assert!(memory.stats.contains_key(key), "{memory:?}");
}

#[test]
fn memory_limits_change_on_a_live_group() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("live");
    // (memory, memory and swap) in MiB: up, down, swap only, and none.
    for (limit, both) in [
        (64, 128),
        (256, 512),
        (16, 32),
        (300, 300),
        (8, 300),
        (-1, -1),
        (64, 64),
    ] {
        let bytes = |mib: i64| if mib < 0 { -1 } else { mib << 20 };
        let limits =
            serde_json::json!({ "memory": { "limit": bytes(limit), "swap": bytes(both) } });
        group
            .get()
            .apply(&resources(limits))
            .unwrap_or_else(|error| panic!("{limit} {both}: {error}"));
        let found = match version() {
            Version::V1 => group.file("memory", "memory.memsw.limit_in_bytes"),
            Version::V2 => group.file("memory", "memory.swap.max"),
        };
        let wanted = match (version(), both) {
            (Version::V1, -1) => "9223372036854771712".to_owned(),
            (Version::V2, -1) => "max".to_owned(),
            (Version::V1, both) => bytes(both).to_string(),
            (Version::V2, both) => bytes(both - limit).to_string(),
        };
        assert_eq!(found, wanted, "{limit} {both}");
    }
}

#[test]
fn the_pids_limit_stops_forks() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("pids");
    group
        .get()
        .apply(&resources(serde_json::json!({ "pids": { "limit": 6 } })))
        .unwrap();
    let mut child = helper("fork");
    group.get().join(child.id()).unwrap();
    assert_eq!(group.get().stats().unwrap().pids.unwrap().limit, Some(6));
    let (_, output) = wait(&mut child);
    let forked: u32 = output
        .lines()
        .find_map(|line| line.strip_prefix("forked "))
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..6).contains(&forked), "{forked} children within 6 tasks");
    group
        .get()
        .apply(&resources(serde_json::json!({ "pids": { "limit": -1 } })))
        .unwrap();
    assert_eq!(
        group.get().stats().unwrap().pids.unwrap(),
        Pids {
            current: 0,
            limit: None
        }
    );
}

#[test]
fn the_quota_throttles() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("cpu");
    let limits = serde_json::json!({ "cpu": { "shares": 512, "quota": 10_000, "period": 100_000, "cpus": "0" } });
    group.get().apply(&resources(limits)).unwrap();
    let mut child = helper("spin");
    group.get().join(child.id()).unwrap();
    go(&mut child);
    until("it is throttled", || {
        group.get().stats().unwrap().cpu.throttled_periods >= 3
    });
    let cpu = group.get().stats().unwrap().cpu;
    assert!(
        cpu.throttled_ns > 0 && cpu.periods >= cpu.throttled_periods && cpu.total_ns > 0,
        "{cpu:?}"
    );
    assert_eq!(cpu.per_cpu_ns.is_empty(), version() == Version::V2);
    // A live change in both directions, with quota and period bound to each other.
    for (quota, period) in [
        (200_000, 1_000_000),
        (1000, 1000),
        (50_000, 100_000),
        (-1, 100_000),
    ] {
        let limits = serde_json::json!({ "cpu": { "quota": quota, "period": period } });
        group.get().apply(&resources(limits)).unwrap();
    }
    match version() {
        Version::V1 => {
            assert_eq!(group.file("cpu", "cpu.cfs_quota_us"), "-1");
            assert_eq!(group.file("cpu", "cpu.shares"), "512");
        }
        Version::V2 => {
            assert_eq!(group.file("cpu", "cpu.max"), "max 100000");
            assert_eq!(group.file("cpu", "cpu.weight"), "59");
        }
    }
    assert_eq!(group.file("cpuset", "cpuset.cpus"), "0");
    group.get().kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn device_rules_deny_and_change() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("devices");
    let null =
        serde_json::json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" });
    let zero =
        serde_json::json!({ "allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm" });
    let none = serde_json::json!({ "allow": false, "access": "rwm" });
    let tries = |action: &str| {
        let mut child = helper(action);
        group.get().join(child.id()).unwrap();
        let (_, output) = wait(&mut child);
        output.contains("true")
    };
    assert!(tries("open-zero"), "before any rule");
    for (rules, null_opens, zero_opens) in [
        (vec![&none, &null], true, false),
        (vec![&none, &null, &zero], true, true),
        (vec![&none, &zero], false, true),
        (vec![&none], false, false),
        (
            vec![&serde_json::json!({ "allow": true, "access": "rwm" })],
            true,
            true,
        ),
        (vec![&none, &null], true, false),
    ] {
        group
            .get()
            .apply(&resources(serde_json::json!({ "devices": rules })))
            .unwrap();
        assert_eq!(
            (tries("open-null"), tries("open-zero")),
            (null_opens, zero_opens),
            "{rules:?}"
        );
    }
}

#[test]
fn what_the_host_lacks_is_said() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("lacks");
    let limits = resources(
        serde_json::json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
    );
    match (group.get().apply(&limits), has_controller("hugetlb")) {
        (Ok(()), true) => {
            let file = if version() == Version::V1 {
                "hugetlb.2MB.limit_in_bytes"
            } else {
                "hugetlb.2MB.max"
            };
            assert_eq!(group.file("hugetlb", file), "4194304");
        }
        (Err(Error::Unsupported { what }), false) => {
            assert!(what.contains("hugetlb.2MB"), "{what}")
        }
        (applied, has) => panic!("{applied:?} with hugetlb {has}"),
    }
    assert!(has_controller("memory") && has_controller("devices") && has_controller("freezer"));
    assert!(!has_controller("nonsense"));
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    if !testkit::is_root() {
        return;
    }
    let group = Group::new("sense");
    let apply = |json| group.get().apply(&resources(json)).unwrap_err();
    let devices = serde_json::json!([{ "allow": true, "type": "c", "access": "x" }]);
    assert!(matches!(
        apply(serde_json::json!({ "devices": devices })),
        Error::Invalid { .. }
    ));
    if version() == Version::V1 {
        assert_eq!(
            apply(serde_json::json!({ "cpu": { "shares": 1 } })).to_string(),
            "invalid cpu shares: the minimum allowed cpu-shares is 2"
        );
        assert!(matches!(
            apply(serde_json::json!({ "memory": { "swappiness": 101 } })),
            Error::Invalid { .. }
        ));
        assert!(matches!(
            apply(serde_json::json!({ "unified": { "memory.max": "1" } })),
            Error::Unsupported { .. }
        ));
    } else {
        assert!(matches!(
            apply(serde_json::json!({ "unified": { "../cgroup.procs": "1" } })),
            Error::Invalid { .. }
        ));
        assert!(matches!(
            apply(serde_json::json!({ "unified": { "cgroup.kill": "1" } })),
            Error::Invalid { .. }
        ));
    }
    let error = apply(serde_json::json!({ "cpu": { "cpus": "9999" } }));
    assert!(
        error.raw_os_error().is_some() && error.to_string().contains("cpuset.cpus"),
        "{error}"
    );
}
