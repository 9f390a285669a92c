//! Containers through every verb, their streams, and a client at a terminal.

use super::super::normal::Normal;
use super::{Allowed, LAYOUT, Scene, nothing, row};

/// Process ids beside what is usual.
const PROCESSES: &[Normal] = &[Normal::Columns, Normal::Processes];

/// One container through every verb.
pub(super) const VERBS: Scene = Scene {
    name: "verbs",
    prepare: nothing,
    rows: &[
        row(
            "docker run -d --name {name} --label verbs={name} {image} sh -c \"trap 'echo asked; exit 3' TERM; echo bad >&2; usleep 300000; echo one; echo two; sleep 600 & wait\"",
        ),
        row(
            "for i in $(seq 50); do test $(docker logs {name} 2>&1 | wc -l) = 3 && break; sleep 0.1; done",
        ),
        row("docker ps -a --filter label=verbs={name}"),
        row(
            "docker ps -a --no-trunc --filter label=verbs={name} --format '{{.Names}}|{{.Status}}|{{.Command}}|{{.Ports}}|{{.Networks}}|{{.Image}}|{{.Labels}}|{{.Mounts}}|{{.LocalVolumes}}'",
        ),
        row("docker ps --filter label=verbs={name} --filter status=running -q"),
        row(
            "docker inspect -f '{{.State.Status}}|{{.State.ExitCode}}|{{.Config.Cmd}}|{{.HostConfig.NetworkMode}}|{{.Path}}' {name}",
        ),
        row("docker exec {name} cat /proc/1/comm"),
        row("docker top {name}").but(PROCESSES),
        row("docker top {name} -o pid,args").but(PROCESSES),
        row("docker top {name} -eo comm").but(PROCESSES),
        row("docker top {name} -o pid,nosuchcolumn").but(PROCESSES),
        row("docker top {name} -o pid,stat,wchan,args").but(PROCESSES),
        row("docker top {name} f").but(PROCESSES),
        row("docker port {name}"),
        row("docker port {name} 80"),
        row("docker pause {name}"),
        row("docker pause {name}"),
        row("docker exec {name} true"),
        row("docker ps --filter name={name} --format '{{.Status}}'"),
        row("docker unpause {name}"),
        row("docker unpause {name}"),
        row("docker rename {name} {name}-b"),
        row("docker inspect -f '{{.Name}}' {name}-b"),
        row("docker rename {name}-b {name}"),
        row("docker rename {name} {name}"),
        row("docker run --rm --name {name} {image} true"),
        row("docker logs {name}"),
        row("docker logs --tail 1 {name}"),
        row("docker logs -t --tail 1 {name}"),
        row("docker rm {name}"),
        row("docker stop -t 5 {name}"),
        row("docker stop {name}"),
        row("docker ps -a --filter name={name} --format '{{.Status}}'"),
        row("docker wait {name}"),
        row("docker kill {name}"),
        row("docker top {name}"),
        row("docker exec {name} true"),
        row("docker attach {name}"),
        row("docker logs -f {name}"),
        row("docker restart -t 1 {name}"),
        row("docker wait {name} & sleep 0.2; docker kill -s KILL {name}; wait")
            .but(&[Normal::Order]),
        row("docker wait {name}"),
        row("docker kill -s NOPE {name}"),
        row("docker inspect -f '{{.State.ExitCode}}|{{.RestartCount}}' {name}"),
        row("docker start -a nope"),
        row("docker rm {name}"),
        row("docker ps -a --filter label=verbs={name}"),
        row("docker inspect nope"),
        row("docker rm nope"),
        row("docker stop nope"),
        row("docker logs nope"),
        row("docker attach nope"),
        row(
            "docker events --since 1h --until=-1s --filter container={name} --format '{{.Type}} {{.Action}}'",
        ),
        row("docker events --since 1h --until=-1s --filter container={name}"),
    ],
};

/// Followed logs and attached clients of containers that run.
pub(super) const STREAMS: Scene = Scene {
    name: "streams",
    prepare: nothing,
    rows: &[
        row(
            "docker run -d --name {name} {image} sh -c 'echo one; while ! test -e /go; do usleep 50000; done; echo two; echo bad >&2; exit 3'",
        ),
        row("docker logs -f {name} & docker exec {name} touch /go; wait $!"),
        row("docker logs -ft {name}"),
        row("docker wait {name}; docker rm {name}"),
        row(
            "docker run -di --name {name} {image} sh -c 'while read word; do test $word = quit && exit 6; echo got $word; echo bad $word >&2; done; exit 7'",
        ),
        row("(echo one; sleep 1; echo quit) | docker attach {name}"),
        row("docker logs {name}"),
        row("docker attach {name}"),
        row("printf 'two\\nquit\\n' | docker start -ai {name}"),
        row("docker rm -f {name}"),
        row(
            "printf 'one\\ntwo\\n' | docker run -i --rm {image} sh -c 'while read word; do echo got $word; done; exit 7'",
        ),
        row("docker run -a stderr --rm {image} sh -c 'echo out; echo err >&2'"),
        row(
            "docker run --sig-proxy=true --rm --name {name} {image} sh -c \"trap 'echo asked; exit 5' TERM; echo ready; while :; do usleep 50000; done\" > {dir}/out & for i in $(seq 100); do grep -qs ready {dir}/out && break; sleep 0.1; done; kill -TERM $!; wait $!; echo $?; cat {dir}/out",
        ),
    ],
};

/// After its prompt the shell asks the terminal where the cursor is.
const PROMPT: &str = "\u{1b}[6n";

/// As with nobody who types, and as somebody does.
pub(super) const TERMINALS: Scene = Scene {
    name: "terminals",
    prepare: nothing,
    rows: &[
        row("docker run -it --rm {image} sh -c 'tty; test -t 0 && echo yes; exit 4'").at_terminal(&[]),
        row("docker run -t --rm {image} sh -c 'echo $TERM; ls -l /dev/console | cut -c1-10'").at_terminal(&[]),
        row("stty rows 21 cols 77; docker run -it --rm {image} sh").at_terminal(&[
            (PROMPT, "stty size; exit 9\r"),
        ]),
        row("echo words | docker run -i --rm {image} cat").at_terminal(&[]),
        row("docker run -d --name {name} {image} sleep 600"),
        row("docker exec -it {name} sh -c 'tty; stty size | wc -w; exit 5'").at_terminal(&[]),
        row("docker exec -it {name} sh").at_terminal(&[(PROMPT, "echo typed\r"), (PROMPT, "exit 3\r")]),
        row("echo words | docker exec -i {name} cat").at_terminal(&[]),
        row("docker rm -f {name}"),
        row("docker run -dit --name {name} {image} sh -c 'while :; do echo tick; read -t 1 word && break; done; echo got $word; exit 7'"),
        row("docker attach {name}").at_terminal(&[("tick", "\u{10}\u{11}")]).but(REPEATS),
        row("docker attach --detach-keys=ctrl-x {name}").at_terminal(&[("tick", "\u{18}")]).but(REPEATS),
        row("docker ps --filter name={name} --format '{{.Status}}'"),
        row("docker attach {name}").at_terminal(&[("tick", "hello\r")]).but(REPEATS),
        row("docker attach {name}").at_terminal(&[]),
        row("docker rm {name}"),
        row("docker run -it --rm {image} sh -c 'trap \"echo asked; exit 2\" INT; echo ready; while :; do usleep 50000; done'").at_terminal(&[("ready", "\u{3}")]),
        row("docker exec -it {name} true").at_terminal(&[]),
    ],
};

const REPEATS: &[Normal] = &[Normal::Repeats];

/// Where the container's network namespace is found: its own, while it runs.
const SANDBOX: Allowed = Allowed {
    place: "/0/NetworkSettings/SandboxKey",
    because: "section 3: nothing of ours stands in the host's mount table",
};

/// Of a container that does not run.
const IDLE: &[Allowed] = &[LAYOUT];

/// Of one that runs.
const RUNNING: &[Allowed] = &[LAYOUT, SANDBOX];

/// Of one that runs on the default bridge.
const BRIDGED: &[Allowed] = &[
    LAYOUT,
    SANDBOX,
    Allowed {
        place: "/0/NetworkSettings/IPPrefixLen",
        because: "decision 19: a bridge and a subnet of its own",
    },
    Allowed {
        place: "/0/NetworkSettings/Networks/bridge/IPPrefixLen",
        because: "decision 19: a bridge and a subnet of its own",
    },
];

/// Every field of one container, made with nothing said and with much said, before, in and after its run.
pub(super) const INSPECT: Scene = Scene {
    name: "inspect",
    prepare: nothing,
    rows: &[
        row("docker create --name {name} {image} sh -c 'sleep 600'"),
        row("docker inspect {name}").json().allow(IDLE),
        row("docker start {name}"),
        row("docker inspect {name}").json().allow(BRIDGED),
        row("docker kill {name}; docker wait {name}"),
        row("docker inspect {name}").json().allow(IDLE),
        row("docker inspect --size -f '{{.SizeRw}} {{.SizeRootFs}}' {name}"),
        row("docker rm {name}"),
        row(
            "docker run -dit --name {name} --init -u 5:6 -w /tmp -e A=b -p 127.0.0.1:{port}:80 -v {name}:/named --tmpfs /scratch --memory 64m --cpus 0.5 --pids-limit 50 --read-only --cap-add NET_ADMIN --cap-drop CHOWN --hostname cask --add-host a:10.0.0.1 --dns 10.0.0.2 --label a=b --restart on-failure:3 --stop-signal INT --stop-timeout 3 --ulimit nofile=99:100 --shm-size 1m --oom-score-adj 77 --security-opt no-new-privileges --log-opt max-size=1m {image} sh -c 'sleep 600'",
        ),
        row("docker inspect {name}").json().allow(BRIDGED),
        row("docker rm -fv {name}; docker volume rm {name}"),
        row("docker run -d --name {name} --network none {image} sleep 600"),
        row("docker inspect {name}").json().allow(RUNNING),
        row("docker rm -f {name}"),
    ],
};
