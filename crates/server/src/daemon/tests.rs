//! Flags, file, and their conflicts, in dockerd 28.5.2's words.

use super::flags::{FLAGS, Support, Value, from_arguments, from_file, merge, warnings};
use super::settings::Settings;
use super::*;

fn arguments(line: &str) -> Values {
    let words = std::iter::once("dockerd").chain(line.split_whitespace());
    from_arguments(words.map(OsString::from).collect()).unwrap()
}

/// What test suites and service files pass.
#[test]
fn every_flag_of_dockerd_parses() {
    let values = arguments(
        "--config-file /dev/null --data-root /d --exec-root /e --pidfile /p --containerd-namespace x \
         --containerd-plugins-namespace xp --userland-proxy=true --containerd /var/run/c.sock \
         --host unix:///tmp/x.sock --debug --storage-driver overlay2 --experimental --init --userns-remap default \
         --default-cgroupns-mode host --firewall-backend=nftables --feature a=true --iptables=false --ip6tables=0 \
         --ipv6 --fixed-cidr 10.0.0.0/24 --fixed-cidr-v6 fd00::/64 --bip 10.0.0.1/24 --bip6 fd00::1/64 -b none \
         --icc=false --ip 127.0.0.1 --ip-forward=false --ip-forward-no-drop \
         --default-address-pool base=10.0.0.0/8,size=24 --default-network-opt bridge=com.x=1 \
         --bridge-accept-fwmark 1 --allow-direct-routing --authorization-plugin p --live-restore \
         --default-ipc-mode private --default-runtime runc --default-shm-size 1m --cdi-spec-dir /c --dns 1.1.1.1 \
         --host-gateway-ip 1.2.3.4 --insecure-registry r:5000 --registry-mirror http://m --http-proxy h \
         --https-proxy h --no-proxy n --log-driver json-file --log-opt max-size=1m --log-level debug \
         --seccomp-profile builtin --exec-opt native.cgroupdriver=cgroupfs --validate --tlsverify=false \
         --tlscacert a --tlscert b --tlskey c --swarm-default-advertise-addr lo --nri-opts enable=false \
         -H tcp://127.0.0.1:0 -D --mtu -1 --add-runtime a=/b --cri-containerd",
    );
    assert_eq!(
        values["host"],
        Value::List(vec![
            "unix:///tmp/x.sock".into(),
            "tcp://127.0.0.1:0".into()
        ])
    );
    assert_eq!(values["iptables"], Value::Switch(false));
    assert_eq!(values["mtu"], Value::Number(-1));
    assert!(values.len() > 60);
}

#[test]
fn the_tutorials_forms_of_hosts_parse() {
    let values = arguments("-H=fd:// -H=tcp://0.0.0.0:2375");
    let settings = Settings::new(&values).unwrap();
    assert_eq!(
        settings.hosts,
        [
            Host::Activated,
            Host::Tcp(vec!["0.0.0.0:2375".parse().unwrap()])
        ]
    );
}

#[test]
fn only_missing_features_are_warned_about_and_once() {
    let values = arguments("--userland-proxy=false --live-restore --debug --ipv6 --tlsverify");
    assert_eq!(
        warnings(&values),
        [
            "--ipv6=true has no effect: this feature is not there yet",
            "--tlsverify=true has no effect: this feature is not there yet"
        ]
    );
}

/// The help is for people: each flag that does something, a word on it, no line wider than a terminal.
#[test]
fn the_help_says_what_each_working_flag_does() {
    let words = ["dockerd", "--help"].map(OsString::from);
    let help = from_arguments(words.to_vec()).unwrap_err().to_string();
    for flag in FLAGS {
        let shown = help.contains(&format!("--{} ", flag.long))
            || help.contains(&format!("--{}[", flag.long));
        assert_eq!(
            shown,
            matches!(flag.support, Support::Works(_)),
            "{}\n{help}",
            flag.long
        );
        if let Support::Works(text) = flag.support {
            for line in text.lines() {
                assert!(help.contains(line), "{}\n{help}", flag.long);
            }
        }
    }
    for line in help.lines() {
        assert!(line.len() <= 80, "{line}");
    }
}

#[test]
fn what_restricts_and_is_not_there_keeps_the_daemon_from_starting() {
    let read = |line: &str| {
        let sources = Sources {
            arguments: arguments(line),
            default_file: "/nonexistent/daemon.json".into(),
        };
        sources.read().map(|(_, values)| warnings(&values))
    };
    for line in [
        "--authorization-plugin=opa",
        "--userns-remap=default",
        "--no-new-privileges",
        "--seccomp-profile=/etc/docker/seccomp.json",
        "--selinux-enabled",
        "--default-runtime=runsc",
        "--min-api-version=1.44",
        "--rootless",
        "--tlsverify -H tcp://0.0.0.0:2376",
        "--tls -H unix:// -H tcp://127.0.0.1:2376",
    ] {
        let told = read(line).unwrap_err();
        let flag = line.split([' ', '=']).next().unwrap();
        assert!(told.starts_with(&format!("{flag}=")), "{told}");
        assert!(told.contains("this restriction is not there yet"), "{told}");
        assert!(!told.contains('\n'), "{told}");
    }
    for line in [
        "--no-new-privileges=false --tlsverify=false --tls=false -H tcp://127.0.0.1:2375",
        "--seccomp-profile=builtin",
        "--selinux-enabled=false --rootless=0",
        "--default-runtime=runc",
        "--default-runtime=io.containerd.runc.v2",
        "--userns-remap=",
    ] {
        assert_eq!(
            read(line).unwrap().len(),
            line.matches("--tls").count(),
            "{line}"
        );
    }
    assert_eq!(
        read("--seccomp-profile=unconfined").unwrap(),
        ["--seccomp-profile=unconfined has no effect: this feature is not there yet"]
    );
}

#[test]
fn an_address_open_to_everybody_is_told_loudly() {
    let open = |address: &str, networks: &[&str]| {
        let networks: Vec<_> = networks.iter().map(|text| text.parse().unwrap()).collect();
        exposure(address.parse().unwrap(), &networks)
    };
    assert_eq!(open("127.0.0.1:2375", &["0.0.0.0/0"]), None);
    assert_eq!(open("0.0.0.0:2375", &["10.0.0.0/8"]), None);
    let quiet = open("0.0.0.0:2375", &[]).unwrap();
    assert!(quiet.contains("serves this machine only"), "{quiet}");
    for networks in [&["0.0.0.0/0"][..], &["10.0.0.0/8", "::/0"]] {
        let loud = open("0.0.0.0:2375", networks).unwrap();
        assert!(
            loud.contains("EVERYBODY") && loud.contains("--allow-plaintext"),
            "{loud}"
        );
    }
}

#[test]
fn the_file_has_dockers_keys_and_words() {
    let values = from_file(
        r#"{"hosts":["unix:///a"],"debug":true,"mtu":1400,"log-opts":{"max-size":"1m"},"default-shm-size":"64M",
        "default-ulimits":{"nofile":{"Name":"nofile","Hard":2,"Soft":1}},"features":{"buildkit":true}}"#,
    )
    .unwrap();
    let settings = Settings::new(&values).unwrap();
    assert_eq!(settings.defaults.ulimits, [("nofile".to_owned(), 1, 2)]);
    assert_eq!(settings.defaults.shm_size_bytes, 64 << 20);
    assert_eq!(settings.level, tracing::Level::DEBUG);
    for (text, told) in [
        (
            r#"{"foo":1,"bar":2}"#,
            "the following directives don't match any configuration option: bar, foo",
        ),
        (
            r#"{"debug":"x"}"#,
            "invalid JSON: json: cannot unmarshal string into Go struct field Config.debug of type bool",
        ),
        (
            r#"{"mtu":"x"}"#,
            "invalid JSON: json: cannot unmarshal string into Go struct field Config.mtu of type int",
        ),
        (r#"{"debug":"#, "invalid JSON: unexpected end of JSON input"),
        (
            "[]",
            "invalid JSON: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            r#"{"group":1}"#,
            "invalid JSON: json: cannot unmarshal number into Go struct field Config.group of type string",
        ),
        (
            r#"{"log-opts":{"max-size":10}}"#,
            "invalid JSON: json: cannot unmarshal number into Go struct field Config.log-opts.max-size of type string",
        ),
        (
            r#"{"registry-mirrors":"http://x"}"#,
            "invalid JSON: json: cannot unmarshal string into Go struct field Config.registry-mirrors of type []string",
        ),
    ] {
        assert_eq!(from_file(text).unwrap_err(), told);
    }
}

/// Files as people have them: dockerd's own documentation, Docker Desktop, the NVIDIA toolkit, proxies, Kubernetes.
/// Which keys there are was compared with `dockerd --validate` 28.5.2.
#[test]
fn files_of_dockerd_start_the_daemon() {
    let read = |text: &str| {
        let values = from_file(text).map_err(|told| format!("{text}: {told}"))?;
        Settings::new(&values).map_err(|told| format!("{text}: {told}"))?;
        flags::refuse_restrictions(&values, flags::Tcp::None)?;
        Ok::<_, String>(warnings(&values))
    };
    for (text, warned) in [
        (
            r#"{"proxies":{"http-proxy":"http://p:3128","https-proxy":"http://p:3128","no-proxy":"localhost"}}"#,
            3,
        ),
        (
            r#"{"builder":{"gc":{"enabled":true,"defaultKeepStorage":"20GB"}},"experimental":false,"features":{"buildkit":true}}"#,
            3,
        ),
        (
            r#"{"default-runtime":"runc","runtimes":{"nvidia":{"path":"nvidia-container-runtime","runtimeArgs":[]}}}"#,
            1,
        ),
        (
            r#"{"exec-opts":["native.cgroupdriver=systemd"],"log-driver":"json-file","log-opts":{"max-size":"100m"},"storage-driver":"overlay2"}"#,
            1,
        ),
        (
            r#"{"default-address-pools":[{"base":"10.10.0.0/16","size":24}],"live-restore":true,"userland-proxy":false,
            "default-ulimits":{"nofile":{"Name":"nofile","Hard":64000,"Soft":64000}},"allow-nondistributable-artifacts":[]}"#,
            0,
        ),
        (
            r#"{"hosts":null,"debug":null,"mtu":null,"log-opts":null,"group":null,"builder":null,"runtimes":null,"selinux-enabled":null}"#,
            0,
        ),
        ("null", 0),
    ] {
        assert_eq!(read(text).map(|told| told.len()), Ok(warned), "{text}");
    }
    let unknown = "the following directives don't match any configuration option: ";
    for (text, told) in [
        (r#"{"nope":null}"#, format!("{unknown}nope")),
        (r#"{"proxies":{"foo":"x"}}"#, format!("{unknown}foo")),
        (r#"{"proxies":"x"}"#, format!("{unknown}proxies")),
        (
            r#"{"builder":5}"#,
            "invalid JSON: json: cannot unmarshal number into Go struct field Config.builder of type config.BuilderConfig"
                .to_owned(),
        ),
        (r#"{"default-shm-size":null}"#, "invalid JSON: invalid size: \"null\"".to_owned()),
    ] {
        assert_eq!(from_file(text).unwrap_err(), told);
    }
}

#[test]
fn a_log_driver_that_is_not_there_is_warned_of_once_and_stood_in_for() {
    let read = |text: &str| Settings::new(&from_file(text).unwrap());
    let settings = read(
        r#"{"log-driver":"syslog","log-opts":{"syslog-address":"udp://1.2.3.4:1111","tag":"{{.Name}}"}}"#,
    )
    .unwrap();
    assert_eq!(
        settings.warnings,
        [
            "--log-driver=syslog has no effect: this log driver is not there yet, and containers that name none log to \
          json-file; left out with it: --log-opt syslog-address"
        ]
    );
    assert_eq!(settings.defaults.log_driver, "json-file");
    assert_eq!(settings.defaults.log_options.len(), 1);
    for driver in ["json-file", "local", "none", ""] {
        let settings = read(&format!(r#"{{"log-driver":"{driver}"}}"#)).unwrap();
        assert!(settings.warnings.is_empty(), "{driver}");
    }
    // moby `daemon/logs.go`, `defaultLogConfig`.
    assert_eq!(
        read(r#"{"log-driver":"json-file","log-opts":{"foo":"1"}}"#)
            .err()
            .as_deref(),
        Some("failed to set log opts: unknown log opt 'foo' for json-file log driver")
    );
}

/// Recorded from `dockerd --validate`, after its "merged configuration validation … failed: ".
#[test]
fn values_that_cannot_be_meant_are_refused() {
    for (text, told) in [
        (
            r#"{"registry-mirrors":["foo"]}"#,
            "invalid mirror: no scheme specified for \"foo\": must use either 'https://' or 'http://'",
        ),
        (r#"{"labels":["a"]}"#, "bad attribute format: a"),
        // Ours: containers of dockerd's are in the group that it is told, too, but nothing of its own is.
        (
            r#"{"cgroup-parent":"/"}"#,
            "invalid cgroup-parent \"/\": it must name a group below the top one, such as /cooper",
        ),
        (
            r#"{"cgroup-parent":"/a/../.."}"#,
            "invalid cgroup-parent \"/a/../..\": it must name a group below the top one, such as /cooper",
        ),
        (r#"{"log-level":"nope"}"#, "invalid logging level: nope"),
        (r#"{"mtu":-5}"#, "invalid default MTU: -5"),
        (
            r#"{"default-ipc-mode":"x"}"#,
            "default IPC mode setting (x) is invalid; use \"shareable\" or \"private\"",
        ),
        (
            r#"{"default-cgroupns-mode":"x"}"#,
            "invalid default cgroup namespace (x): use \"host\" or \"private\"",
        ),
        (
            r#"{"max-concurrent-downloads":-1}"#,
            "invalid max concurrent downloads: -1",
        ),
        (r#"{"dns-search":["a b"]}"#, "a b is not a valid domain"),
        (r#"{"dns":["x"]}"#, "invalid IP address: x"),
    ] {
        let values = from_file(text).unwrap();
        assert_eq!(
            Settings::new(&values).err().as_deref(),
            Some(told),
            "{text}"
        );
    }
}

#[test]
fn what_stands_in_both_is_a_conflict() {
    let both =
        |line: &str, file: &str| merge(&arguments(line), from_file(file).unwrap()).unwrap_err();
    let head =
        "the following directives are specified both as a flag and in the configuration file: ";
    assert_eq!(
        both("-H tcp://1.2.3.4:1", r#"{"hosts":["unix:///tmp/x.sock"]}"#),
        format!("{head}hosts: (from flag: [tcp://1.2.3.4:1], from file: [unix:///tmp/x.sock])")
    );
    assert_eq!(
        both("--debug --label c=d", r#"{"debug":true,"labels":["a=b"]}"#),
        format!(
            "{head}debug: (from flag: true, from file: true), labels: (from flag: [c=d], from file: [a=b])"
        )
    );
    assert_eq!(
        both("--log-opt c=d", r#"{"log-opts":{"a":"b"}}"#),
        format!("{head}log-opts: (from flag: map[c:d], from file: map[a:b])")
    );
}

#[test]
fn bad_values_are_refused_with_the_files_name() {
    let read = |line: &str| {
        let sources = Sources {
            arguments: arguments(line),
            default_file: "/nonexistent/daemon.json".into(),
        };
        sources.read().map(|_| ())
    };
    assert_eq!(read(""), Ok(()));
    assert_eq!(
        read("--config-file /nonexistent/x.json").unwrap_err(),
        "unable to configure the Docker daemon with file /nonexistent/x.json: \
         open /nonexistent/x.json: no such file or directory"
    );
    assert_eq!(
        read("--log-level x").unwrap_err(),
        "invalid logging level: x"
    );
    assert_eq!(
        read("--config-file /dev/null --log-level x").unwrap_err(),
        "unable to configure the Docker daemon with file /dev/null: merged configuration validation from file \
         and command line flags failed: invalid logging level: x"
    );
    assert!(
        read("-H foo://x")
            .unwrap_err()
            .ends_with("invalid bind address (foo://x): unsupported proto 'foo'")
    );
    assert!(read("--allow-plaintext 10.0.0.0/99").is_err());
}

#[test]
fn groups_are_found_by_name() {
    let groups = "root:x:0:\ndocker:x:998:a,b\n";
    assert_eq!(group_number(groups, "docker"), Some(998));
    assert_eq!(group_number(groups, "dock"), None);
}

#[tokio::test]
async fn a_path_that_the_service_manager_holds_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let (real, link) = (directory.path().join("run"), directory.path().join("var"));
    std::fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(real.join("docker.sock")).unwrap();
    let mut held = vec![Listener::activated(socket.into()).unwrap()];
    let (path, mut listeners) = (link.join("docker.sock"), Vec::new());
    let refused = || -> Result<Listener, String> { panic!("the socket is there") };
    listen_unix(&path, &mut listeners, &mut held, refused).unwrap();
    assert_eq!((listeners.len(), held.len()), (1, 0));
    // Named a second time it is the same one.
    listen_unix(&path, &mut listeners, &mut held, refused).unwrap();
    assert_eq!(listeners.len(), 1);
    let other = real.join("other.sock");
    let bind = || Listener::unix(&other, None).map_err(|error| error.to_string());
    listen_unix(&other, &mut listeners, &mut held, bind).unwrap();
    listen_unix(&link.join("other.sock"), &mut listeners, &mut held, refused).unwrap();
    assert_eq!(listeners.len(), 2);
}
