//! Users, groups and capabilities, in a container's first process and in an exec alike.

use runtime::capabilities::DOCKER_DEFAULT;
use serde_json::json;

/// Docker's default set, as `/proc/<pid>/status` shows it.
const DEFAULT: &str = "00000000a80425fb";
const NONE: &str = "0000000000000000";

const SCRIPT: &str = "grep -E '^Cap' /proc/self/status | awk '{print $2}' | tr '\\n' ' '";

#[test]
fn root_has_exactly_the_capabilities_of_the_spec() {
    each!(bundle, {
        let wanted = format!("{NONE} {DEFAULT} {DEFAULT} {DEFAULT} {NONE}");
        assert_eq!(bundle.says(SCRIPT), wanted);
        bundle.sleeping();
        assert_eq!(bundle.exec_says(SCRIPT), wanted);
    });
}

#[test]
fn a_user_has_the_bounding_set_alone() {
    each!(bundle, {
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        bundle.spec["process"]["capabilities"] = json!({"bounding": DOCKER_DEFAULT});
        let wanted = format!("{NONE} {NONE} {NONE} {DEFAULT} {NONE}");
        assert_eq!(bundle.says(SCRIPT), wanted);
        bundle.sleeping();
        assert_eq!(bundle.exec_says(SCRIPT), wanted);
    });
}

#[test]
fn permitted_capabilities_of_a_user_do_not_survive_execve() {
    each!(bundle, {
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        let wanted = format!("{NONE} {NONE} {NONE} {DEFAULT} {NONE}");
        assert_eq!(bundle.says(SCRIPT), wanted);
        bundle.sleeping();
        assert_eq!(bundle.exec_says(SCRIPT), wanted);
    });
}

#[test]
fn ambient_capabilities_reach_a_user() {
    each!(bundle, {
        let one = json!(["CAP_NET_BIND_SERVICE"]);
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        bundle.spec["process"]["capabilities"] = json!({
            "bounding": one, "effective": one, "permitted": one, "inheritable": one, "ambient": one,
        });
        let bit = "0000000000000400";
        assert_eq!(
            bundle.says(SCRIPT),
            format!("{bit} {bit} {bit} {bit} {bit}")
        );
        bundle.sleeping();
        assert_eq!(
            bundle.exec_says(SCRIPT),
            format!("{bit} {bit} {bit} {bit} {bit}")
        );
    });
}

#[test]
fn inheritable_alone_stays_inheritable() {
    each!(bundle, {
        bundle.spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"],
            "inheritable": ["CAP_CHOWN"],
        });
        // Root's execve raises permitted to the bounding set and what is inheritable.
        let said = bundle.says(SCRIPT);
        assert_eq!(
            said,
            format!("0000000000000001 0000000000000021 0000000000000021 0000000000000021 {NONE}")
        );
    });
}

#[test]
fn no_capability_at_all() {
    each!(bundle, {
        bundle.spec["process"]["capabilities"] = json!({});
        assert_eq!(bundle.says(SCRIPT), [NONE; 5].join(" "));
        assert_eq!(
            bundle.says("hostname other 2>/dev/null || echo refused"),
            "refused"
        );
    });
}

#[test]
fn what_is_missing_cannot_be_done() {
    each!(bundle, {
        assert_eq!(
            bundle.says("hostname other 2>/dev/null || echo refused"),
            "refused"
        );
        assert_eq!(
            bundle.says("mount -t tmpfs x /tmp 2>/dev/null || echo refused"),
            "refused"
        );
        assert_eq!(
            bundle.says("touch /tmp/f && chown 5:6 /tmp/f 2>/dev/null; stat -c %u:%g /tmp/f"),
            "5:6"
        );
        bundle.spec["process"]["capabilities"]["bounding"] = json!(["CAP_KILL"]);
        bundle.spec["process"]["capabilities"]["effective"] = json!(["CAP_KILL"]);
        bundle.spec["process"]["capabilities"]["permitted"] = json!(["CAP_KILL"]);
        assert_eq!(
            bundle.says("touch /tmp/g; chown 5:6 /tmp/g 2>/dev/null || echo refused"),
            "refused"
        );
    });
}

#[test]
fn user_group_and_groups_are_set() {
    each!(bundle, {
        bundle.spec["process"]["user"] =
            json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 29]});
        let script =
            "id -u; id -g; grep -E '^(Uid|Gid|Groups)' /proc/self/status | awk '{$1=\"\"; print}'";
        let said = bundle.says(script);
        let seen: Vec<&str> = said.lines().map(str::trim).collect();
        assert_eq!(
            seen,
            [
                "1000",
                "1001",
                "1000 1000 1000 1000",
                "1001 1001 1001 1001",
                "5 29"
            ]
        );
        bundle.sleeping();
        let said = bundle.exec_says(script);
        let seen: Vec<&str> = said.lines().map(str::trim).collect();
        assert_eq!(
            seen,
            [
                "1000",
                "1001",
                "1000 1000 1000 1000",
                "1001 1001 1001 1001",
                "5 29"
            ]
        );
    });
}

#[test]
fn the_callers_groups_do_not_come_along() {
    each!(bundle, {
        assert_eq!(
            bundle.says("grep ^Groups /proc/self/status | awk '{$1=\"\"; print}'"),
            ""
        );
    });
}

#[test]
fn no_new_privileges_is_set_only_when_asked() {
    each!(bundle, {
        let script = "grep NoNewPrivs /proc/self/status | awk '{print $2}'";
        assert_eq!(bundle.says(script), "0");
        bundle.spec["process"]["noNewPrivileges"] = json!(true);
        assert_eq!(bundle.says(script), "1");
        bundle.sleeping();
        assert_eq!(bundle.exec_says(script), "1");
    });
}

#[test]
fn an_exec_as_another_user_has_no_more_than_that() {
    each!(bundle, {
        bundle.sleeping();
        let said = bundle
            .call(&[
                "exec",
                "--user",
                "1000:1001",
                &bundle.id,
                "/bin/sh",
                "-c",
                &format!("id -u; id -g; {SCRIPT}"),
            ])
            .text();
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(&seen[..2], ["1000", "1001"]);
        let sets: Vec<&str> = seen[2].split_whitespace().collect();
        assert_eq!(
            (sets[0], sets[2], sets[4]),
            (NONE, NONE, NONE),
            "inheritable, effective, ambient"
        );
        assert_eq!(sets[3], DEFAULT);
    });
}

/// A policy that denies setgroups must not leave the process with the caller's groups.
#[test]
fn groups_that_cannot_be_given_up_are_an_error() {
    each!(bundle, {
        bundle.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["setgroups"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
        let ended = bundle.sh("id -G");
        assert_ne!(ended.code, 0, "{ended:?}");
        assert_eq!(ended.out, "");
    });
}
