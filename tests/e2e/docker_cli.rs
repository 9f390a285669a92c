//! The stock docker CLI on Cooper and on dockerd 28.5.2: status, output and error output side by side.

use std::process::Output;

use testkit::TestDaemon;

use crate::daemon;

fn docker(host: &str, arguments: &[&str]) -> Output {
    let mut command = std_command("docker");
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("DOCKER_HOST", host);
    command
        .args(arguments)
        .output()
        .expect("the docker command line; `cargo xtask test` installs it")
}

#[expect(clippy::disallowed_methods, reason = "a test runs the real client")]
fn std_command(program: &str) -> std::process::Command {
    std::process::Command::new(program)
}

/// Words that differ between any two runs (ids, times, spans), and the width of columns that follows from them.
fn normalised(bytes: &[u8]) -> String {
    const UNITS: [&str; 6] = ["second", "seconds", "minute", "minutes", "hours", "days"];
    let word = |word: &str| {
        let bare = word.trim_matches(['"', '.', ',']);
        let bare = ["sha256:", "HOSTNAME="]
            .iter()
            .find_map(|prefix| bare.strip_prefix(prefix))
            .unwrap_or(bare);
        let is_id = bare.len() >= 12 && bare.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_time = word.len() >= 20 && word.as_bytes()[4] == b'-' && word.as_bytes()[10] == b'T';
        match () {
            () if is_id => "<id>".to_owned(),
            () if is_time && !word.starts_with("0001-") => "<time>".to_owned(),
            () => word.to_owned(),
        }
    };
    let line = |line: &str| {
        let mut words: Vec<String> = Vec::new();
        for next in line.split_ascii_whitespace() {
            if UNITS.contains(&next) {
                let is_count = |word: &String| {
                    ["a", "an", "Less", "than", "About"].contains(&word.as_str())
                        || word.bytes().all(|byte| byte.is_ascii_digit())
                };
                while words.last().is_some_and(is_count) {
                    words.pop();
                }
                words.push("<span>".to_owned());
            } else {
                words.push(word(next));
            }
        }
        words.join(" ")
    };
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n")
}

/// A client with a terminal, as `script` of util-linux gives it one; nobody types.
fn terminal(host: &str, line: &str) -> Output {
    let mut command = std_command("script");
    command
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env("DOCKER_HOST", host)
        .args(["-qec", line, "/dev/null"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut child = command.spawn().expect("script of util-linux");
    // At the end of its own input `script` would type something.
    let input = child.stdin.take();
    let output = child.wait_with_output().expect("the output of script");
    drop(input);
    output
}

fn show(output: &Output) -> String {
    format!(
        "exit {:?}\n--- stdout\n{}--- stderr\n{}",
        output.status.code(),
        normalised(&output.stdout),
        normalised(&output.stderr)
    )
}

fn same(daemon: &TestDaemon, dockerd: &str, arguments: &[&str]) -> Option<String> {
    let shown = |host: &str| {
        let text = show(&docker(host, arguments));
        if arguments[0] != "top" {
            return text;
        }
        // Process ids.
        let is_number =
            |word: &str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_digit());
        let line = |line: &str| {
            let words = line.split(' ');
            let words = words.map(|word| if is_number(word) { "<pid>" } else { word });
            words.collect::<Vec<_>>().join(" ")
        };
        text.lines().map(line).collect::<Vec<_>>().join("\n")
    };
    let (theirs, ours) = (shown(dockerd), shown(&daemon.host()));
    (ours != theirs).then(|| {
        format!(
            "docker {}\n== dockerd\n{theirs}== cooper\n{ours}",
            arguments.join(" ")
        )
    })
}

/// Who a process is and what it may do.
const CAPABILITIES: &str = "id; echo $HOME; grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status";

/// An exec's user is the container's, or its own; nobody unknown is ever root.
#[test]
fn exec_behaves_as_on_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let theirs = format!("unix://{}", dockerd.socket().display());
    let name = format!("cooper-exec-{}", std::process::id());
    let differences: Vec<_> = [
        vec![
            "run",
            "-d",
            "--network=none",
            "-u1000:7",
            "--name",
            &name,
            "cooper-test/busybox",
            "sleep",
            "600",
        ],
        vec!["exec", &name, "sh", "-c", CAPABILITIES],
        vec!["exec", "-u", "0", &name, "sh", "-c", CAPABILITIES],
        vec!["exec", "-u", "5:6", &name, "sh", "-c", CAPABILITIES],
        vec!["exec", "-u", "nosuchuser", &name, "id"],
        vec!["exec", "-u", "0:nosuchgroup", &name, "id"],
        vec!["exec", "--privileged", &name, "sh", "-c", CAPABILITIES],
        vec![
            "exec",
            "-e",
            "A=b",
            "-w",
            "/tmp",
            &name,
            "sh",
            "-c",
            "echo $A; pwd; exit 3",
        ],
        vec!["exec", &name, "nope"],
        vec!["exec", "-d", &name, "true"],
        vec!["rm", "-f", &name],
    ]
    .iter()
    .filter_map(|line| same(&daemon, &theirs, line))
    .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// A container must not be able to write the binary that its first process shows.
#[test]
fn shims_and_inits_run_from_a_sealed_binary() {
    let Some(daemon) = daemon() else { return };
    let id = daemon.run(&serde_json::json!({
        "Image": "busybox", "Cmd": ["sleep", "600"],
        "HostConfig": {"NetworkMode": "none", "Init": true},
    }));
    let inspected = daemon.client().get(&format!("/containers/{id}/json"));
    let init = inspected.expect(200).json()["State"]["Pid"].to_string();
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).expect("the init runs");
    let parent = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.split(' ').nth(1));
    for pid in [init.as_str(), parent.expect("a parent")] {
        let opened = std::fs::File::options()
            .write(true)
            .open(format!("/proc/{pid}/exe"));
        let error = opened.expect_err("nobody can write our binary");
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ReadOnlyFilesystem,
            "{error}"
        );
    }
}

#[test]
fn run_behaves_as_on_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let host = format!("unix://{}", dockerd.socket().display());
    let run = |rest: &[&'static str]| [&["run", "--rm", "--network", "none"], rest].concat();
    let lines = [
        run(&["cooper-test/busybox", "echo", "hello"]),
        run(&[
            "cooper-test/busybox",
            "sh",
            "-c",
            "echo out; echo err >&2; exit 3",
        ]),
        run(&["cooper-test/busybox", "nope"]),
        run(&["cooper-test/busybox", "/etc"]),
        run(&["--init", "cooper-test/busybox", "sh", "-c", "exit 4"]),
        run(&["-u", "1000:1000", "cooper-test/busybox", "id"]),
        run(&["-u", "www-data", "cooper-test/busybox", "id"]),
        run(&["-u", "nosuchuser", "cooper-test/busybox", "id"]),
        run(&["-u", "root:nosuchgroup", "cooper-test/busybox", "id"]),
        run(&["-u", "4294967296", "cooper-test/busybox", "id"]),
        run(&[
            "-u",
            "7",
            "--group-add",
            "9",
            "cooper-test/busybox",
            "sh",
            "-c",
            CAPABILITIES,
        ]),
        run(&["--group-add", "nosuchgroup", "cooper-test/busybox", "id"]),
        run(&["cooper-test/busybox", "sh", "-c", CAPABILITIES]),
        run(&["-w", "/new/dir", "cooper-test/busybox", "pwd"]),
        run(&["-e", "A=b c", "cooper-test/busybox", "sh", "-c", "echo $A"]),
        run(&["--read-only", "cooper-test/busybox", "touch", "/x"]),
        run(&["--hostname", "cask", "cooper-test/busybox", "hostname"]),
        run(&[
            "--memory",
            "64m",
            "cooper-test/busybox",
            "cat",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        ]),
        run(&["--name", "bad/name", "cooper-test/busybox", "true"]),
        vec!["inspect", "nope"],
        vec!["rm", "nope"],
        vec!["stop", "nope"],
        vec!["logs", "nope"],
    ];
    let differences: Vec<_> = lines
        .iter()
        .filter_map(|line| same(&daemon, &host, line))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// Options of `run` that need no network, and what shows them in the container.
const OPTIONS: &[(&str, &str)] = &[
    ("--user 0", "ls -l /.dockerenv | cut -c1-10,40-"),
    ("-w / -e PATH=bin:/bin", "echo reached"),
    ("-w /bin -e PATH=bin:/bin", "echo reached"),
    ("--cap-drop ALL", CAPABILITIES),
    ("--cap-add NET_ADMIN --cap-drop CHOWN", CAPABILITIES),
    ("--privileged", CAPABILITIES),
    ("--cap-add NOPE", "true"),
    ("--security-opt no-new-privileges", CAPABILITIES),
    (
        "--tmpfs /scratch:size=1m",
        "grep scratch /proc/mounts; touch /scratch/x",
    ),
    ("--ulimit nofile=99:100", "ulimit -n; ulimit -Hn"),
    (
        "--cpus 0.5",
        "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us",
    ),
    (
        "--memory 64m --memory-swap 64m",
        "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
    ),
    ("--memory 1m", "true"),
    ("--pids-limit 50", "cat /sys/fs/cgroup/pids/pids.max"),
    (
        "--read-only --tmpfs /tmp",
        "touch /x; touch /tmp/x && echo ok",
    ),
    (
        "--hostname cask --domainname cellar",
        "hostname; cat /etc/hostname; hostname -f",
    ),
    ("--shm-size 1m", "df -k /dev/shm | tail -1"),
    ("--add-host a.example:10.1.2.3", "cat /etc/hosts"),
    (
        "--sysctl net.ipv4.ip_forward=1",
        "cat /proc/sys/net/ipv4/ip_forward",
    ),
    ("--oom-score-adj 77", "cat /proc/self/oom_score_adj"),
    ("--device /dev/fuse", "ls -l /dev/fuse | cut -c1-10"),
    ("--entrypoint /bin/echo", "words"),
    ("--env-file /dev/null -e X= -e PATH=/bin", "env | sort"),
    ("--label a=b --stop-signal INT --stop-timeout 3", "true"),
    ("--init", "cat /proc/1/comm; ps -o comm"),
    (
        "--pid host",
        "set -- /proc/[0-9]*; test $# -gt 5 && echo many",
    ),
    ("--ipc none", "ls /dev/shm"),
    (
        "",
        "ls -l /dev | cut -c1-10,57-; ls /proc/self/ns; cat /proc/self/mountinfo | cut -d' ' -f5 | sort",
    ),
    (
        "",
        "cat /proc/mounts | cut -d' ' -f2,3 | sort; cat /proc/self/limits; umask; pwd",
    ),
    (
        "",
        "cat /etc/hosts | head -5; cat /proc/keys; cat /proc/timer_list; ls /sys/firmware",
    ),
    ("", "kill -9 $$"),
    ("", "kill -TERM $$; echo survived"),
];

/// Every option of `run` that needs no network, and what it changes in the container.
#[test]
fn options_of_run_behave_as_on_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let host = format!("unix://{}", dockerd.socket().display());
    let mut differences = Vec::new();
    for (words, script) in OPTIONS {
        let mut line = vec!["run", "--rm", "--network", "none"];
        line.extend(words.split_ascii_whitespace());
        line.push("cooper-test/busybox");
        if words.starts_with("--entrypoint") {
            line.push(script);
        } else {
            line.extend(["sh", "-c", script]);
        }
        differences.extend(same(&daemon, &host, &line));
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// One container through every verb.
#[test]
fn verbs_behave_as_on_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let host = format!("unix://{}", dockerd.socket().display());
    let name = format!("cooper-verbs-{}", std::process::id());
    let run = "run -d --network none --name NAME --label verbs=1 cooper-test/busybox sh -c";
    let script = "trap 'echo asked; exit 3' TERM; echo bad >&2; usleep 300000; echo one; echo two; sleep 600 & wait";
    let lines = [
        "ps -a --filter name=NAME --format {{.Names}}|{{.Status}}|{{.Command}}|{{.Ports}}|{{.Networks}}|{{.Image}}",
        "ps --filter label=verbs=1 --filter status=running -q",
        "inspect -f {{.State.Status}}|{{.State.ExitCode}}|{{.Config.Cmd}}|{{.HostConfig.NetworkMode}}|{{.Path}} NAME",
        "exec NAME cat /proc/1/comm",
        "top NAME -o pid,args",
        "top NAME -eo comm",
        "top NAME -o pid,nosuchcolumn",
        "top NAME -o pid,stat,wchan,args",
        "top NAME f",
        "port NAME",
        "port NAME 80",
        "pause NAME",
        "pause NAME",
        "exec NAME true",
        "ps --filter name=NAME --format {{.Status}}",
        "unpause NAME",
        "unpause NAME",
        "rename NAME NAME-b",
        "inspect -f {{.Name}} NAME",
        "rename NAME-b NAME",
        "rename NAME NAME",
        "run --rm --network none --name NAME cooper-test/busybox true",
        "logs NAME",
        "logs --tail 1 NAME",
        "logs -t --tail 1 NAME",
        "rm NAME",
        "stop -t 5 NAME",
        "stop NAME",
        "ps -a --filter name=NAME --format {{.Status}}",
        "wait NAME",
        "kill NAME",
        "top NAME",
        "exec NAME true",
        "attach NAME",
        "logs -f NAME",
        "restart -t 1 NAME",
        "kill -s KILL NAME",
        "wait NAME",
        "kill -s NOPE NAME",
        "inspect -f {{.State.ExitCode}}|{{.RestartCount}} NAME",
        "start -a nope",
        "rm NAME",
        "ps -a --filter name=NAME -q",
        "images cooper-test/busybox",
        "images --format {{.Repository}}:{{.Tag}} cooper-test/*",
        "tag cooper-test/busybox cooper-test/NAME:x",
        "images -q cooper-test/NAME",
        "rmi cooper-test/NAME:x",
        "rmi cooper-test/NAME:x",
        "image inspect -f {{.Id}}|{{.Config.Cmd}}|{{.Os}} cooper-test/busybox",
        "tag nope x",
        "ps --filter nope=1",
        "version --format {{.Server.APIVersion}}|{{.Server.Os}}|{{.Server.Arch}}",
        "info --format {{.OSType}}|{{.Driver}}|{{.CgroupVersion}}|{{.LoggingDriver}}|{{.NCPU}}|{{.MemTotal}}",
        "network inspect nope",
        "volume inspect nope",
    ];
    let mut differences = Vec::new();
    let mut begin: Vec<&str> = run
        .split(' ')
        .map(|word| if word == "NAME" { &name } else { word })
        .collect();
    begin.push(script);
    differences.extend(same(&daemon, &host, &begin));
    for at in [&host, &daemon.host()] {
        testkit::wait_until(
            "the container's words",
            std::time::Duration::from_secs(10),
            || {
                let logs = docker(at, &["logs", &name]);
                (logs.stdout == b"one\ntwo\n" && logs.stderr == b"bad\n").then_some(())
            },
        );
    }
    // `ps f` looks at processes with a terminal, and fails when the whole machine has none: here is one.
    let terminal = format!("cooper-terminal-{}", std::process::id());
    let holding = ["run", "-dt", "--network=none", "--name", &terminal];
    let holding = [&holding[..], &["cooper-test/busybox", "sleep", "600"]].concat();
    assert!(docker(&daemon.host(), &holding).status.success());
    for line in lines {
        let line = line.replace("NAME", &name);
        let words: Vec<&str> = line.split(' ').collect();
        differences.extend(same(&daemon, &host, &words));
    }
    let events = ["events", "--since", "1h", "--until", "0s", "--filter"];
    let filter = format!("container={name}");
    let format = ["--format", "{{.Type}} {{.Action}}"];
    let line = [&events[..], &[filter.as_str()], &format[..]].concat();
    differences.extend(same(&daemon, &host, &line));
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn terminals_behave_as_on_dockerd() {
    let Some(daemon) = daemon() else { return };
    let Some(dockerd) = crate::reference(&daemon) else {
        return;
    };
    let host = format!("unix://{}", dockerd.socket().display());
    let name = format!("cooper-tty-{}", std::process::id());
    let lines = [
        "docker run -it --rm --network none cooper-test/busybox sh -c 'tty; test -t 0 && echo yes; exit 4'",
        "docker run -t --rm --network none cooper-test/busybox sh -c 'echo $TERM; ls -l /dev/console | cut -c1-10'",
        "echo words | docker run -i --rm --network none cooper-test/busybox cat",
        "docker run -d --network none --name NAME cooper-test/busybox sleep 600",
        "docker exec -it NAME sh -c 'tty; stty size | wc -w; exit 5'",
        "echo words | docker exec -i NAME cat",
        "docker rm -f NAME",
    ];
    let mut differences = Vec::new();
    for line in lines {
        let line = line.replace("NAME", &name);
        let theirs = show(&terminal(&host, &line));
        let ours = show(&terminal(&daemon.host(), &line));
        if ours != theirs {
            differences.push(format!("{line}\n== dockerd\n{theirs}== cooper\n{ours}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}
