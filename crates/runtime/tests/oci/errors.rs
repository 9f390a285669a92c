//! Programs that cannot be run, and specs that cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

#[test]
fn a_missing_program_reads_as_everywhere() {
    each!(bundle, {
        let said = bundle.args(&["nope"]).run().failure();
        assert!(
            said.contains("exec: \"nope\": executable file not found in $PATH"),
            "{said}"
        );
        let said = bundle.args(&["/nope"]).run().failure();
        assert!(
            said.contains("exec: \"/nope\": stat /nope: no such file or directory"),
            "{said}"
        );
        let said = bundle.args(&["./nope"]).run().failure();
        assert!(
            said.contains("exec: \"./nope\": stat ./nope: no such file or directory"),
            "{said}"
        );
        let said = bundle.args(&[""]).run().failure();
        assert!(
            said.contains("executable file not found in $PATH"),
            "{said}"
        );
    });
}

#[test]
fn what_is_no_program_is_permission_denied() {
    each!(bundle, {
        let said = bundle.args(&["/etc/passwd"]).run().failure();
        assert!(
            said.contains("exec: \"/etc/passwd\": permission denied"),
            "{said}"
        );
        // Go before 1.20 has "permission denied" alone for a directory, later ones say what it is first.
        let said = bundle.args(&["/tmp"]).run().failure();
        assert!(
            said.contains("exec: \"/tmp\": ") && said.contains("permission denied"),
            "{said}"
        );
    });
}

#[test]
fn the_search_path_is_the_containers() {
    each!(bundle, {
        fs::create_dir(bundle.root("own")).unwrap();
        fs::write(bundle.root("own/tool"), "#!/bin/sh\necho mine $0\n").unwrap();
        fs::set_permissions(bundle.root("own/tool"), fs::Permissions::from_mode(0o755)).unwrap();
        bundle.spec["process"]["env"] = json!(["PATH=/nowhere:/own:/bin"]);
        assert_eq!(bundle.args(&["tool"]).run().text(), "mine /own/tool");
        bundle.spec["process"]["env"] = json!(["PATH=/nowhere"]);
        let said = bundle.args(&["tool"]).run().failure();
        assert!(said.contains("not found in $PATH"), "{said}");
        // A file that is not executable does not end the search.
        fs::create_dir(bundle.root("first")).unwrap();
        fs::write(bundle.root("first/tool"), "").unwrap();
        bundle.spec["process"]["env"] = json!(["PATH=/first:/own:/bin"]);
        assert_eq!(bundle.args(&["tool"]).run().text(), "mine /own/tool");
    });
}

#[test]
fn a_program_only_others_may_run_is_denied_to_a_user() {
    each!(bundle, {
        fs::write(bundle.root("bin/rootly"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(bundle.root("bin/rootly"), fs::Permissions::from_mode(0o700)).unwrap();
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        bundle.spec["process"]["capabilities"] = json!({});
        let said = bundle.args(&["/bin/rootly"]).run();
        assert_ne!(said.code, 0);
        assert!(said.err.contains("permission denied"), "{said:?}");
    });
}

#[test]
fn a_program_the_kernel_refuses_says_so_on_its_own_error_stream() {
    each!(bundle, {
        for (name, content, text) in [
            ("bad", "#!/nope\n", "no such file or directory"),
            ("format", "garbage", "exec format error"),
        ] {
            fs::write(bundle.root(name), content).unwrap();
            fs::set_permissions(bundle.root(name), fs::Permissions::from_mode(0o755)).unwrap();
            let ended = bundle.args(&[&format!("/{name}")]).run();
            assert_ne!(ended.code, 0);
            assert!(ended.err.contains(text), "{ended:?}");
            if bundle.runtime.is_ours() {
                assert_eq!(ended.code, 255);
                assert_eq!(ended.err, format!("exec /{name}: {text}\n"));
            }
        }
    });
}

#[test]
fn a_failed_create_leaves_no_container() {
    each!(bundle, {
        bundle.args(&["/nope"]);
        assert_ne!(bundle.create().code, 0);
        assert!(
            bundle
                .call(&["state", &bundle.id])
                .failure()
                .contains("does not exist")
        );
        assert_eq!(bundle.says("echo again"), "again");
    });
}

#[test]
fn a_bundle_without_spec_or_root_is_refused() {
    each!(bundle, {
        let said = bundle.call(&["run", &bundle.id]).failure();
        assert!(said.contains("config.json not found"), "{said}");
        bundle.spec["root"]["path"] = json!("missing");
        assert_ne!(bundle.run().code, 0);
        bundle.spec["root"]["path"] = json!("rootfs");
        bundle.spec["process"]["args"] = json!([]);
        assert_ne!(bundle.run().code, 0);
        fs::write(bundle.path("config.json"), "{ nonsense").unwrap();
        assert_ne!(bundle.call(&["run", &bundle.id]).code, 0);
    });
}

#[test]
fn bad_names_are_refused() {
    each!(bundle, {
        fs::write(bundle.path("config.json"), bundle.spec.to_string()).unwrap();
        for name in ["../escape", "a/b", "sp ace", ".."] {
            let said = bundle.call(&["create", name]).failure();
            assert!(said.contains("invalid"), "{name}: {said}");
        }
    });
}

#[test]
fn errors_are_logged_as_json_for_the_caller() {
    each!(bundle, {
        bundle.args(&["nope"]);
        fs::write(bundle.path("config.json"), bundle.spec.to_string()).unwrap();
        let log = bundle.path("log.json");
        let ended = bundle.call(&[
            "--log",
            log.to_str().unwrap(),
            "--log-format",
            "json",
            "run",
            &bundle.id,
        ]);
        assert_ne!(ended.code, 0);
        let text = fs::read_to_string(&log).unwrap();
        let last: serde_json::Value = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
            .rfind(|line| line["level"] == "error")
            .unwrap();
        assert!(
            last["msg"]
                .as_str()
                .unwrap()
                .contains("executable file not found in $PATH")
        );
        assert!(last["time"].as_str().is_some());
    });
}
