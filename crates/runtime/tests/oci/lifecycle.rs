//! create, start, state, kill, delete: the order of things and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::support::wait_until;

#[test]
fn a_container_goes_from_created_to_stopped() {
    each!(bundle, {
        bundle.args(&["/bin/sh", "-c", "echo ran; sleep 300"]);
        assert_eq!(bundle.create().code, 0);
        let state = bundle.state();
        assert_eq!(state["status"], "created");
        assert_eq!(state["id"], json!(bundle.id));
        assert_eq!(state["pid"], json!(bundle.pid()));
        assert!(state["ociVersion"].as_str().unwrap().starts_with("1."));
        assert_eq!(
            state["bundle"],
            json!(bundle.path("").canonicalize().unwrap())
        );
        assert_eq!(bundle.output(), "", "the program waits for its start");
        bundle.start().text();
        assert_eq!(bundle.status(), "running");
        wait_until("output", || bundle.output() == "ran\n");
        bundle.call(&["kill", &bundle.id, "KILL"]).text();
        bundle.await_status("stopped");
        bundle.call(&["delete", &bundle.id]).text();
        assert!(
            bundle
                .call(&["state", &bundle.id])
                .failure()
                .contains("does not exist")
        );
    });
}

#[test]
fn a_container_starts_once() {
    each!(bundle, {
        bundle.sleeping();
        let said = bundle.start().failure();
        assert!(
            said.contains("cannot start an already running container"),
            "{said}"
        );
        bundle.call(&["kill", &bundle.id, "9"]).text();
        bundle.await_status("stopped");
        let said = bundle.start().failure();
        assert!(
            said.contains("cannot start a container that has stopped"),
            "{said}"
        );
    });
}

#[test]
fn a_name_is_taken_once() {
    each!(bundle, {
        bundle.sleeping();
        let said = bundle.call(&["create", &bundle.id]).failure();
        assert!(
            said.contains("already exists") || said.contains("exists"),
            "{said}"
        );
        assert_eq!(bundle.status(), "running");
    });
}

#[test]
fn signals_reach_the_first_process() {
    each!(bundle, {
        let script = "trap 'echo usr1' USR1; trap 'echo term; exit 7' TERM; echo up; while :; do sleep 0.05; done";
        bundle.args(&["/bin/sh", "-c", script]);
        assert_eq!(bundle.create().code, 0);
        bundle.start().text();
        wait_until("the traps", || bundle.output() == "up\n");
        bundle.call(&["kill", &bundle.id, "SIGUSR1"]).text();
        wait_until("usr1", || bundle.output() == "up\nusr1\n");
        bundle.call(&["kill", &bundle.id, "10"]).text();
        wait_until("10", || bundle.output() == "up\nusr1\nusr1\n");
        bundle.call(&["kill", &bundle.id]).text();
        bundle.await_status("stopped");
        assert_eq!(bundle.output(), "up\nusr1\nusr1\nterm\n");
    });
}

#[test]
fn killing_what_does_not_run_is_refused() {
    each!(bundle, {
        assert!(
            bundle
                .call(&["kill", &bundle.id, "TERM"])
                .failure()
                .contains("does not exist")
        );
        bundle.sleeping();
        let said = bundle.call(&["kill", &bundle.id, "NOPE"]).failure();
        assert!(said.contains("signal"), "{said}");
        assert_eq!(bundle.status(), "running");
        bundle.call(&["kill", &bundle.id, "KILL"]).text();
        bundle.await_status("stopped");
        let said = bundle.call(&["kill", &bundle.id, "TERM"]).failure();
        assert!(said.contains("not running"), "{said}");
    });
}

#[test]
fn a_created_container_can_be_killed_and_deleted() {
    each!(bundle, {
        assert_eq!(bundle.create().code, 0);
        let pid = bundle.pid();
        bundle.call(&["kill", &bundle.id, "KILL"]).text();
        bundle.await_status("stopped");
        bundle.call(&["delete", &bundle.id]).text();
        assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists());
    });
}

#[test]
fn deleting_a_running_container_needs_force() {
    each!(bundle, {
        bundle.sleeping();
        let said = bundle.call(&["delete", &bundle.id]).failure();
        assert!(said.contains("is not stopped"), "{said}");
        assert_eq!(bundle.status(), "running");
        let pid = bundle.pid();
        bundle.call(&["delete", "--force", &bundle.id]).text();
        wait_until("its end", || {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |text| text.contains(") Z "))
        });
    });
}

#[test]
fn deleting_nothing_by_force_is_fine_and_else_refused() {
    each!(bundle, {
        assert_eq!(bundle.call(&["delete", "--force", "suite-no-such"]).code, 0);
        assert!(
            bundle
                .call(&["delete", "suite-no-such"])
                .failure()
                .contains("does not exist")
        );
    });
}

#[test]
fn the_death_of_pid_1_takes_everything_along() {
    each!(bundle, {
        bundle.args(&["/bin/sh", "-c", "sleep 299 & echo up; sleep 300"]);
        assert_eq!(bundle.create().code, 0);
        bundle.start().text();
        wait_until("the child", || bundle.output() == "up\n");
        bundle.call(&["kill", &bundle.id, "KILL"]).text();
        bundle.await_status("stopped");
        bundle.call(&["delete", &bundle.id]).text();
    });
}

#[test]
fn annotations_are_in_the_state() {
    each!(bundle, {
        bundle.spec["annotations"] = json!({"org.example.key": "value"});
        bundle.sleeping();
        assert_eq!(bundle.state()["annotations"]["org.example.key"], "value");
    });
}

fn hook(bundle: &super::support::Bundle, name: &str) -> serde_json::Value {
    let script = bundle.path(&format!("{name}.sh"));
    let log = bundle.path("hooks.log");
    let text = format!(
        "#!/bin/sh\nread -r state\necho \"$state\" > {0}/{name}.json\necho {name} $1 $KEY >> {1}\n",
        bundle.path("").display(),
        log.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    json!([{"path": script, "args": ["hook", "argument"], "env": ["KEY=given", "PATH=/usr/bin:/bin"]}])
}

#[test]
fn hooks_run_in_order_with_the_state() {
    each!(bundle, {
        let mut hooks = json!({});
        for name in ["prestart", "createRuntime", "poststart", "poststop"] {
            hooks[name] = hook(&bundle, name);
        }
        bundle.spec["hooks"] = hooks;
        bundle.sleeping();
        let log = || fs::read_to_string(bundle.path("hooks.log")).unwrap_or_default();
        let line = |name: &str| format!("{name} argument given\n");
        wait_until("poststart", || {
            log() == line("prestart") + &line("createRuntime") + &line("poststart")
        });
        bundle.call(&["delete", "--force", &bundle.id]).text();
        wait_until("poststop", || log().ends_with(&line("poststop")));
        let state = |name: &str| -> serde_json::Value {
            serde_json::from_str(&fs::read_to_string(bundle.path(name)).unwrap()).unwrap()
        };
        assert_eq!(state("createRuntime.json")["id"], json!(bundle.id));
        assert_eq!(state("createRuntime.json")["pid"], json!(bundle.pid()));
        if bundle.runtime.is_ours() {
            // runc 1.1 still says "created" there.
            assert_eq!(state("poststart.json")["status"], "running");
        }
        assert_eq!(state("poststop.json")["status"], "stopped");
    });
}

#[test]
fn a_start_hook_runs_inside() {
    each!(bundle, {
        bundle.spec["hooks"] = json!({"startContainer": [
            {"path": "/bin/sh", "args": ["sh", "-c", "echo $(hostname) > /tmp/hooked"]},
        ]});
        assert_eq!(bundle.says("cat /tmp/hooked"), "suite");
    });
}

#[test]
fn a_failing_hook_stops_the_create() {
    each!(bundle, {
        bundle.spec["hooks"] = json!({"createRuntime": [{"path": "/bin/false"}]});
        let said = bundle.run().failure();
        assert!(said.contains("hook"), "{said}");
        assert!(
            bundle
                .call(&["state", &bundle.id])
                .failure()
                .contains("does not exist")
        );
    });
}

/// The environment in a spec is full of secrets.
#[test]
fn the_state_is_not_for_others_to_read() {
    each!(bundle, {
        bundle.sleeping();
        let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode();
        let directory = bundle.path("state").join(&bundle.id);
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(mode(&path) & 0o044, 0, "{}", path.display());
        }
        assert_eq!(mode(&directory) & 0o066, 0);
        assert_eq!(mode(&bundle.path("state")) & 0o066, 0);
    });
}

#[test]
fn a_terminal_that_nobody_takes_leaves_no_container() {
    each!(bundle, {
        bundle.spec["process"]["terminal"] = json!(true);
        bundle.args(&["/bin/sleep", "300"]);
        let said = bundle.create().failure();
        assert!(said.contains("cannot allocate tty"), "{said}");
        let nobody = bundle.path("nobody.sock");
        let arguments = [
            "create",
            "--console-socket",
            nobody.to_str().unwrap(),
            &bundle.id,
        ];
        let said = bundle.call(&arguments).failure();
        assert!(!said.is_empty());
        assert_ne!(bundle.call(&["state", &bundle.id]).code, 0);
    });
}
