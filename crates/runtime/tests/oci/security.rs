//! What a container must not get at: seccomp, our own binary, keyrings, descriptors as directories.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::{Bundle, Ended, wait_until};

#[test]
fn seccomp_refuses_what_the_policy_denies() {
    each!(bundle, {
        bundle.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
                {"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"},
            ],
        });
        let script = "grep -E '^Seccomp:' /proc/self/status | awk '{print $2}'; \
                      mkdir /tmp/d 2>&1 | grep -o 'not supported'; touch /tmp/f && echo touch";
        assert_eq!(bundle.says(script), "2\nnot supported\ntouch");
        bundle.sleeping();
        assert_eq!(bundle.exec_says(script), "2\nnot supported\ntouch");
    });
}

#[test]
fn seccomp_works_with_no_new_privileges_and_without_capabilities() {
    each!(bundle, {
        bundle.spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        bundle.spec["process"]["capabilities"] = json!({});
        let script = "grep -E '^Seccomp:' /proc/self/status | awk '{print $2}'; \
                      mkdir /tmp/d 2>/dev/null || echo refused";
        assert_eq!(bundle.says(script), "2\nrefused");
        bundle.spec["process"]["noNewPrivileges"] = json!(true);
        assert_eq!(bundle.says(script), "2\nrefused");
    });
}

#[test]
fn without_a_policy_there_is_no_seccomp() {
    each!(bundle, {
        assert_eq!(
            bundle.says("grep -E '^Seccomp:' /proc/self/status | awk '{print $2}'"),
            "0"
        );
    });
}

/// CVE-2019-5736: the runtime's binary, seen from inside as a process's `exe`, must not be writable. While it runs it
/// never is (ETXTBSY), so the container opens it, and writes when the runtime has ended.
fn opens_the_runtime_and_writes_later(bundle: &mut Bundle, executed: &str) {
    bundle.own_program();
    let mut all = runtime::capabilities::DOCKER_DEFAULT.to_vec();
    all.push("CAP_SYS_PTRACE");
    for set in ["bounding", "effective", "permitted"] {
        bundle.spec["process"]["capabilities"][set] = json!(all);
    }
    // Whatever enters is stopped where it stands, looked at, and let go.
    let script = "while ! test -e /tmp/go; do kill -STOP -1; for p in /proc/[0-9]*; do t=$(readlink $p/exe); \
                  case \"$t\" in /bin/busybox|'') ;; *) \
                  (: < $p/exe) && exec 9< $p/exe && echo \"$t\" > /tmp/seen ;; esac; done; kill -CONT -1; done; \
                  (: >> /proc/self/fd/9) && echo WRITABLE || echo refused";
    bundle.args(&["/bin/sh", "-c", script]);
    assert_eq!(bundle.create().code, 0);
    bundle.start().text();
    let program = bundle.program().to_owned();
    let before = fs::read(&program).unwrap();
    let seen = bundle.root("tmp/seen");
    wait_until("the runtime to be seen from inside", || {
        // What it ends with is of no interest: it was stopped in between.
        drop(bundle.exec(&[executed]));
        seen.exists()
    });
    fs::write(bundle.root("tmp/go"), "").unwrap();
    bundle.await_status("stopped");
    assert_eq!(
        bundle.output(),
        "refused\n",
        "{:?}",
        fs::read_to_string(seen)
    );
    assert!(fs::read(program).unwrap() == before);
}

#[test]
fn the_runtimes_binary_cannot_be_written_from_inside() {
    each!(bundle, {
        opens_the_runtime_and_writes_later(&mut bundle, "/bin/true")
    });
}

/// The program is the runtime's own binary: what runs then is not writable either.
#[test]
fn an_entry_point_of_proc_self_exe_gives_no_write_access() {
    each!(bundle, {
        opens_the_runtime_and_writes_later(&mut bundle, "/proc/self/exe")
    });
}

/// CVE-2024-21626: a descriptor of the runtime's, or of who called it, as the working directory.
#[test]
fn no_descriptor_serves_as_a_working_directory() {
    each!(bundle, {
        let canary = bundle.path("canary");
        fs::write(&canary, "the host's").unwrap();
        let up = format!("../../../../../../../..{}", canary.display());
        let script = format!("pwd; cat {up}");
        let numbers = 3..12;
        let refused = |ended: Ended, number: i32| {
            let out = format!("{}{}", ended.out, ended.err);
            assert!(!out.contains("the host's"), "{number}: {ended:?}");
            assert!(
                !ended.out.starts_with("(unreachable)"),
                "{number}: {ended:?}"
            );
        };
        for number in numbers.clone() {
            bundle.spec["process"]["cwd"] = json!(format!("/proc/self/fd/{number}"));
            bundle.args(&["/bin/sh", "-c", &script]);
            refused(bundle.run_with_the_hosts_root(), number);
        }
        bundle.spec["process"]["cwd"] = json!("/");
        bundle.sleeping();
        for number in numbers {
            let directory = format!("/proc/self/fd/{number}");
            let arguments = ["exec", "--cwd", &directory, &bundle.id, "/bin/cat", &up];
            let ended = bundle.call_with_the_hosts_root(&arguments);
            assert_ne!(ended.code, 0, "{number}: {ended:?}");
            refused(ended, number);
        }
        // The canary would have been seen by this way up.
        let way = Path::new("/proc/self/cwd").join(&up);
        assert_eq!(fs::read_to_string(way).unwrap(), "the host's");
    });
}

/// Where there is no AppArmor and no SELinux: who asked for either is not left without a word.
#[test]
fn a_profile_or_label_that_cannot_be_had_is_an_error() {
    each!(bundle, {
        bundle.spec["process"]["apparmorProfile"] = json!("no-such-profile");
        let said = bundle.sh("true").failure();
        assert!(
            said.contains(
                "unable to apply apparmor profile: apparmor failed to apply profile: write"
            ),
            "{said}"
        );
        bundle.spec["process"]["apparmorProfile"] = json!("");
        if Path::new("/sys/fs/selinux/enforce").exists() {
            continue;
        }
        bundle.spec["process"]["selinuxLabel"] = json!("system_u:system_r:svirt_lxc_net_t:s0");
        let said = bundle.sh("true").failure();
        let words =
            "selinux label is specified in config, but selinux is disabled or not supported";
        assert!(said.contains(words), "{said}");
        bundle.spec["process"]["selinuxLabel"] = json!("");
        bundle.spec["linux"]["mountLabel"] = json!("system_u:object_r:svirt_sandbox_file_t:s0");
        let said = bundle.sh("true").failure();
        assert!(said.contains("error mounting"), "{said}");
    });
}

#[test]
fn the_container_has_a_session_keyring_of_its_own() {
    each!(bundle, {
        let script = "test -r /proc/keys && cat /proc/keys | wc -l";
        bundle.spec["linux"]["maskedPaths"] = json!([]);
        let keys = bundle.says("cat /proc/keys");
        assert!(keys.contains("_ses"), "{keys}");
        assert!(!bundle.says(script).is_empty());
    });
}

#[test]
fn terminals_and_devices_that_were_not_given_cannot_be_opened() {
    each!(bundle, {
        let said = bundle.says(
            "mknod /tmp/disk b 254 0 && (head -c 1 /tmp/disk >/dev/null) 2>/dev/null || echo refused; \
             mknod /tmp/kmsg c 1 11 && (head -c 1 /tmp/kmsg >/dev/null) 2>/dev/null || echo refused; \
             mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero | wc -c",
        );
        assert_eq!(said, "refused\nrefused\n1");
    });
}

#[test]
fn a_giant_or_special_passwd_does_not_hang_the_start() {
    each!(bundle, {
        fs::remove_file(bundle.root("etc/passwd")).unwrap();
        if bundle.runtime.is_ours() {
            let giant = fs::File::create(bundle.root("etc/passwd")).unwrap();
            giant.set_len(10 << 30).unwrap();
            assert_eq!(bundle.says("echo $HOME"), "/");
            fs::remove_file(bundle.root("etc/passwd")).unwrap();
        }
        std::os::unix::fs::symlink("/dev/null", bundle.root("etc/passwd")).unwrap();
        assert_eq!(bundle.says("echo $HOME"), "/");
    });
}
