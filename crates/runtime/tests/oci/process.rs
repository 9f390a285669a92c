//! The process: arguments, environment, directory, limits, exit codes, descriptors.

use std::fs;

use serde_json::json;

#[test]
fn exit_codes_are_the_programs() {
    each!(bundle, {
        for code in [0, 1, 42, 127, 255] {
            assert_eq!(bundle.sh(&format!("exit {code}")).code, code);
        }
        assert_eq!(
            bundle.sh("kill -9 $$; sleep 1; exit 3").code,
            3,
            "PID 1 is deaf to its own SIGKILL"
        );
    });
}

#[test]
fn arguments_and_environment_arrive_unchanged() {
    each!(bundle, {
        bundle.spec["process"]["env"] = json!([
            "PATH=/bin",
            "EMPTY=",
            "SPACED=a b  c",
            "EQUALS=a=b=c",
            "UNICODE=grüße"
        ]);
        bundle.args(&[
            "/bin/sh",
            "-c",
            "env; printf '[%s]' \"$0\" \"$@\"",
            "zero",
            "",
            "a b",
            "*",
            "ü",
        ]);
        let said = bundle.run().text();
        for line in ["EMPTY=", "SPACED=a b  c", "EQUALS=a=b=c", "UNICODE=grüße"] {
            assert!(said.lines().any(|one| one == line), "{line}: {said}");
        }
        assert!(said.ends_with("[zero][][a b][*][ü]"), "{said}");
        assert!(!said.contains("CARGO"), "{said}");
    });
}

#[test]
fn home_comes_from_the_images_passwd() {
    each!(bundle, {
        assert_eq!(bundle.says("echo $HOME"), "/root");
        bundle.spec["process"]["user"] = json!({"uid": 1000, "gid": 1000});
        assert_eq!(bundle.says("echo $HOME"), "/home/app");
        bundle.spec["process"]["user"] = json!({"uid": 4242, "gid": 1});
        assert_eq!(bundle.says("echo $HOME"), "/");
        bundle.spec["process"]["env"] = json!(["PATH=/bin", "HOME=/given"]);
        assert_eq!(bundle.says("echo $HOME"), "/given");
    });
}

#[test]
fn the_working_directory_is_set_and_made() {
    each!(bundle, {
        bundle.spec["process"]["cwd"] = json!("/tmp");
        assert_eq!(bundle.says("pwd"), "/tmp");
        bundle.spec["process"]["cwd"] = json!("/made/for/it");
        assert_eq!(bundle.says("pwd"), "/made/for/it");
        assert!(bundle.root("made/for/it").is_dir());
        bundle.spec["process"]["cwd"] = json!("tmp");
        assert!(bundle.run().failure().contains("must be an absolute path"));
    });
}

#[test]
fn a_working_directory_closed_to_the_user_is_an_error() {
    each!(bundle, {
        fs::create_dir(bundle.root("closed")).unwrap();
        fs::set_permissions(
            bundle.root("closed"),
            std::os::unix::fs::PermissionsExt::from_mode(0o700),
        )
        .unwrap();
        bundle.spec["process"]["cwd"] = json!("/closed");
        assert_eq!(bundle.says("pwd"), "/closed");
        fs::write(bundle.root("file"), "").unwrap();
        bundle.spec["process"]["cwd"] = json!("/file");
        assert!(bundle.run().failure().contains("not a directory"));
    });
}

#[test]
fn limits_are_set() {
    each!(bundle, {
        bundle.spec["process"]["rlimits"] = json!([
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_NPROC", "soft": 500, "hard": 600},
            {"type": "RLIMIT_STACK", "soft": 1_048_576, "hard": 2_097_152},
        ]);
        let said = bundle.says("cat /proc/self/limits");
        let limit = |name: &str| {
            let line = said.lines().find(|line| line.starts_with(name)).unwrap();
            let numbers: Vec<&str> = line[name.len()..].split_whitespace().collect();
            (numbers[0].to_owned(), numbers[1].to_owned())
        };
        assert_eq!(limit("Max open files"), ("100".into(), "200".into()));
        assert_eq!(limit("Max core file size"), ("0".into(), "0".into()));
        assert_eq!(limit("Max processes"), ("500".into(), "600".into()));
        assert_eq!(
            limit("Max stack size"),
            ("1048576".into(), "2097152".into())
        );
    });
}

#[test]
fn the_oom_score_is_set() {
    each!(bundle, {
        bundle.spec["process"]["oomScoreAdj"] = json!(321);
        assert_eq!(bundle.says("cat /proc/self/oom_score_adj"), "321");
        bundle.spec["process"]["oomScoreAdj"] = json!(999);
        assert_eq!(bundle.says("cat /proc/self/oom_score_adj"), "999");
    });
}

#[test]
fn umask_is_022_unless_given() {
    each!(bundle, {
        assert_eq!(bundle.says("umask"), "0022");
        bundle.spec["process"]["user"]["umask"] = json!(0o077);
        assert_eq!(
            bundle.says("umask; touch /tmp/f; stat -c %a /tmp/f"),
            "0077\n600"
        );
    });
}

#[test]
fn sysctls_of_own_namespaces_are_set_and_others_refused() {
    each!(bundle, {
        bundle.spec["linux"]["sysctl"] = json!({
            "net.ipv4.ip_forward": "1", "kernel.shmmax": "123456", "fs.mqueue.queues_max": "77",
            "net.ipv4.ping_group_range": "0 0",
        });
        let said = bundle.says(
            "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmax fs/mqueue/queues_max net/ipv4/ping_group_range",
        );
        assert_eq!(
            said.split_whitespace().collect::<Vec<_>>(),
            ["1", "123456", "77", "0", "0"]
        );
        for key in ["kernel.panic", "vm.swappiness", "kernel.core_pattern"] {
            bundle.spec["linux"]["sysctl"] = json!({key: "1"});
            let said = bundle.run().failure();
            assert!(
                said.contains("not in a separate kernel namespace"),
                "{key}: {said}"
            );
        }
        bundle.namespaces(|all| all.retain(|one| one["type"] != "network"));
        bundle.spec["linux"]["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
        let said = bundle.run().failure();
        assert!(said.contains("net.ipv4.ip_forward"), "{said}");
    });
}

#[test]
fn no_descriptor_of_the_runtime_leaks() {
    each!(bundle, {
        let script = "for f in /proc/self/fd/*; do echo ${f##*/}; done";
        // 3 is the directory the shell itself reads.
        let wanted = "0\n1\n2\n3";
        assert_eq!(bundle.says(script), wanted);
        bundle.sleeping();
        assert_eq!(bundle.exec_says(script), wanted);
        assert_eq!(bundle.exec_says("ls /proc/1/fd | tr '\\n' ' '"), "0 1 2");
    });
}

#[test]
fn preserved_descriptors_arrive() {
    each!(bundle, {
        bundle.args(&["/bin/sh", "-c", "cat <&3; ls /proc/$$/fd | wc -l"]);
        fs::write(bundle.path("config.json"), bundle.spec.to_string()).unwrap();
        fs::write(bundle.path("given"), "through 3\n").unwrap();
        let outer = bundle.command(&["run", "--preserve-fds", "1", &bundle.id]);
        let line = std::iter::once(outer.get_program())
            .chain(outer.get_args())
            .map(|word| format!("'{}'", word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ");
        #[expect(clippy::disallowed_methods, reason = "a shell opens descriptor 3")]
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", &format!("exec {line} 3<given")])
            .current_dir(bundle.path("."))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.starts_with("through 3\n"), "{output:?}");
    });
}

#[test]
fn the_process_leads_a_session_and_has_default_signals() {
    each!(bundle, {
        let said = bundle
            .says("awk '{print $1, $5, $6}' /proc/1/stat; grep -E '^Sig(Blk|Ign)' /proc/1/status");
        let seen: Vec<&str> = said.lines().collect();
        assert_eq!(seen[0], "1 1 1");
        assert!(seen[1].ends_with("0000000000000000"), "{said}");
    });
}

#[test]
fn standard_input_is_the_callers() {
    each!(bundle, {
        bundle.args(&["/bin/cat"]);
        fs::write(bundle.path("config.json"), bundle.spec.to_string()).unwrap();
        fs::write(bundle.path("input"), "fed").unwrap();
        let output = bundle
            .command(&["run", &bundle.id])
            .stdin(fs::File::open(bundle.path("input")).unwrap())
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "fed");
    });
}

#[test]
fn output_and_error_stay_apart() {
    each!(bundle, {
        let ended = bundle.sh("echo out; echo err >&2");
        assert_eq!(ended.out, "out\n");
        assert!(ended.err.contains("err\n"));
    });
}
