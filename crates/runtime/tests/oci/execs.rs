//! Further processes in a container that runs.

use std::fs;

use serde_json::json;

use super::support::wait_until;

#[test]
fn an_exec_is_in_every_namespace_of_the_container() {
    each!(bundle, {
        bundle.sleeping();
        let said = bundle.exec_says(
            "for n in mnt net uts pid ipc user cgroup; do readlink /proc/self/ns/$n; done",
        );
        for (seen, kind) in said
            .lines()
            .zip(["mnt", "net", "uts", "pid", "ipc", "user", "cgroup"])
        {
            let theirs = fs::read_link(format!("/proc/{}/ns/{kind}", bundle.pid())).unwrap();
            assert_eq!(seen, theirs.to_string_lossy(), "{kind}");
        }
        assert_eq!(bundle.exec_says("hostname"), "suite");
        assert_eq!(bundle.exec_says("cat /proc/1/comm"), "sleep");
    });
}

#[test]
fn exit_codes_and_streams_of_an_exec() {
    each!(bundle, {
        bundle.sleeping();
        for code in [0, 3, 255] {
            assert_eq!(
                bundle
                    .exec(&["/bin/sh", "-c", &format!("exit {code}")])
                    .code,
                code
            );
        }
        assert_eq!(bundle.exec(&["/bin/sh", "-c", "kill -9 $$"]).code, 137);
        let ended = bundle.exec(&["/bin/sh", "-c", "echo out; echo err >&2"]);
        assert_eq!(ended.out, "out\n");
        assert!(ended.err.contains("err"));
    });
}

#[test]
fn directory_environment_and_user_of_an_exec() {
    each!(bundle, {
        bundle.sleeping();
        let id = bundle.id.clone();
        assert_eq!(
            bundle
                .call(&["exec", "--cwd", "/tmp", &id, "/bin/pwd"])
                .text(),
            "/tmp"
        );
        let said = bundle
            .call(&[
                "exec",
                "--env",
                "ADDED=yes",
                &id,
                "/bin/sh",
                "-c",
                "echo $ADDED $PATH",
            ])
            .text();
        assert_eq!(said, "yes /usr/local/bin:/usr/bin:/bin");
        let said = bundle
            .call(&[
                "exec",
                "--user",
                "1000:7",
                &id,
                "/bin/sh",
                "-c",
                "id -u; id -g",
            ])
            .text();
        assert_eq!(said, "1000\n7");
        let said = bundle
            .call(&["exec", "--cwd", "/nodir", &id, "/bin/pwd"])
            .failure();
        assert!(said.contains("no such file or directory"), "{said}");
    });
}

#[test]
fn a_process_file_is_taken_whole() {
    each!(bundle, {
        bundle.sleeping();
        let mut process = bundle.spec["process"].clone();
        process["args"] = json!([
            "/bin/sh",
            "-c",
            "id -u; pwd; echo $ONLY; grep NoNewPrivs /proc/self/status"
        ]);
        process["user"] = json!({"uid": 1000, "gid": 1000});
        process["cwd"] = json!("/tmp");
        process["env"] = json!(["PATH=/bin", "ONLY=this"]);
        process["noNewPrivileges"] = json!(true);
        fs::write(bundle.path("process.json"), process.to_string()).unwrap();
        let said = bundle
            .call(&["exec", "--process", "process.json", &bundle.id])
            .text();
        assert_eq!(said, "1000\n/tmp\nthis\nNoNewPrivs:\t1");
    });
}

#[test]
fn a_missing_program_in_an_exec() {
    each!(bundle, {
        bundle.sleeping();
        let ended = bundle.exec(&["nope"]);
        assert_eq!(ended.code, 255);
        assert!(
            ended
                .err
                .contains("exec: \"nope\": executable file not found in $PATH"),
            "{ended:?}"
        );
        let ended = bundle.exec(&["/etc/passwd"]);
        assert_eq!(ended.code, 255);
        assert!(ended.err.contains("permission denied"), "{ended:?}");
        assert_eq!(bundle.status(), "running");
    });
}

#[test]
fn a_detached_exec_has_a_pid_file() {
    each!(bundle, {
        bundle.sleeping();
        let id = bundle.id.clone();
        let status = bundle
            .command(&[
                "exec",
                "--detach",
                "--pid-file",
                "exec.pid",
                &id,
                "/bin/sleep",
                "200",
            ])
            .stdout(fs::File::create(bundle.path("detached")).unwrap())
            .stderr(fs::File::create(bundle.path("detached.err")).unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        let pid: u32 = fs::read_to_string(bundle.path("exec.pid"))
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        wait_until("the program", || {
            fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap() == "/bin/sleep\x00200\x00"
        });
        assert_eq!(bundle.exec_says("ps | grep -c '[s]leep 200'"), "1");
    });
}

#[test]
fn an_exec_needs_a_running_container() {
    each!(bundle, {
        assert!(
            bundle
                .exec(&["/bin/true"])
                .failure()
                .contains("does not exist")
        );
        bundle.args(&["/bin/true"]);
        assert_eq!(bundle.create().code, 0);
        bundle.start().text();
        bundle.await_status("stopped");
        let said = bundle.exec(&["/bin/true"]).failure();
        assert!(said.contains("stopped"), "{said}");
    });
}

#[test]
fn an_exec_inherits_the_limits_of_the_spec() {
    each!(bundle, {
        bundle.spec["process"]["rlimits"] =
            json!([{"type": "RLIMIT_CORE", "soft": 512, "hard": 1024}]);
        bundle.spec["process"]["oomScoreAdj"] = json!(55);
        bundle.sleeping();
        assert_eq!(
            bundle.exec_says("ulimit -c; ulimit -Hc; cat /proc/self/oom_score_adj"),
            "1\n2\n55"
        );
    });
}
