//! `run` and `exec` with their options, and what shows them inside the container.

use super::{Normal, Scene, nothing, row};

/// Who a process is and what it may do.
macro_rules! rights {
    ($line:literal) => {
        concat!(
            $line,
            " sh -c 'id; echo $HOME; grep -E \"Cap|NoNewPrivs|Seccomp:\" /proc/self/status'"
        )
    };
}

/// `docker run --rm` of the test image, with options before and a command after it.
macro_rules! run {
    ($options:literal, $command:literal) => {
        row(concat!("docker run --rm ", $options, " {image} ", $command))
    };
}

/// On the default bridge, where nothing else is said.
pub(super) const RUN: Scene = Scene {
    name: "run",
    prepare: nothing,
    rows: &[
        run!("", "echo hello"),
        run!("", "sh -c 'echo out; echo err >&2; exit 3'"),
        run!("", "nope"),
        run!("", "/etc"),
        run!("--init", "sh -c 'exit 4'"),
        run!("-u 1000:1000", "id"),
        run!("-u www-data", "id"),
        run!("-u nosuchuser", "id"),
        run!("-u root:nosuchgroup", "id"),
        run!("-u 4294967296", "id"),
        row(rights!("docker run --rm -u 7 --group-add 9 {image}")),
        run!("--group-add nosuchgroup", "id"),
        row(rights!("docker run --rm {image}")),
        run!("-w /new/dir", "pwd"),
        run!("-e 'A=b c'", "sh -c 'echo $A'"),
        run!("--read-only", "touch /x"),
        run!("--hostname cask", "hostname"),
        run!(
            "--memory 64m",
            "cat /sys/fs/cgroup/memory/memory.limit_in_bytes"
        ),
        run!("--name bad/name", "true"),
        run!(
            "",
            "sh -c 'ip -o -4 addr show eth0 | cut -d/ -f1; ip route | head -1; ping -c1 -W5 $(ip route | head -1 | cut \"-d \" -f3) | grep -c \"1 packets received\"'"
        ),
        run!("--network none", "ls /sys/class/net"),
        run!("--network nope", "true"),
        row("echo words | docker run --rm -i {image} cat"),
        row("docker run --rm nosuchimage-{name}:x true").but(&[]),
        row(
            "docker run --rm -d --name {name}-d {image} sh -c 'sleep 600 & wait' && docker inspect -f '{{.State.Status}} {{.HostConfig.AutoRemove}}' {name}-d && docker rm -f {name}-d",
        ),
        row("docker create --name {name}-c {image} sh -c 'echo made; exit 8'"),
        row("docker start -a {name}-c"),
        row("docker rm {name}-c"),
    ],
};

/// An exec's user is the container's, or its own; nobody unknown is ever root.
pub(super) const EXEC: Scene = Scene {
    name: "exec",
    prepare: nothing,
    rows: &[
        row("docker run -d -u1000:7 --name {name} {image} sleep 600"),
        row(rights!("docker exec {name}")),
        row(rights!("docker exec -u 0 {name}")),
        row(rights!("docker exec -u 5:6 {name}")),
        row("docker exec -u nosuchuser {name} id"),
        row("docker exec -u 0:nosuchgroup {name} id"),
        row(rights!("docker exec --privileged {name}")),
        row("docker exec -e A=b -w /tmp {name} sh -c 'echo $A; pwd; exit 3'"),
        row("docker exec {name} nope"),
        row("docker exec -d {name} true"),
        row("docker exec -w /nope {name} true"),
        row("echo words | docker exec -i {name} cat"),
        row("docker rm -f {name}"),
    ],
};

/// Every option of `run` that needs no network.
pub(super) const FIRST: Scene = Scene {
    name: "options",
    prepare: nothing,
    rows: &[
        run!("--user 0", "sh -c 'ls -l /.dockerenv | cut -c1-10,40-'"),
        run!("-w / -e PATH=bin:/bin", "sh -c 'echo reached'"),
        run!("-w /bin -e PATH=bin:/bin", "sh -c 'echo reached'"),
        row(rights!("docker run --rm --cap-drop ALL {image}")),
        row(rights!(
            "docker run --rm --cap-add NET_ADMIN --cap-drop CHOWN {image}"
        )),
        row(rights!("docker run --rm --privileged {image}")),
        run!("--cap-add NOPE", "true"),
        row(rights!(
            "docker run --rm --security-opt no-new-privileges {image}"
        )),
        run!(
            "--tmpfs /scratch:size=1m",
            "sh -c 'grep scratch /proc/mounts; touch /scratch/x'"
        ),
        run!("--ulimit nofile=99:100", "sh -c 'ulimit -n; ulimit -Hn'"),
        run!(
            "--cpus 0.5",
            "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu/cpu.cfs_period_us"
        ),
        run!(
            "--memory 64m --memory-swap 64m",
            "cat /sys/fs/cgroup/memory/memory.memsw.limit_in_bytes"
        ),
        run!("--memory 1m", "true"),
        run!("--pids-limit 50", "cat /sys/fs/cgroup/pids/pids.max"),
        run!(
            "--read-only --tmpfs /tmp",
            "sh -c 'touch /x; touch /tmp/x && echo ok'"
        ),
        run!(
            "--hostname cask --domainname cellar",
            "sh -c 'hostname; cat /etc/hostname; hostname -f'"
        ),
        run!("--shm-size 1m", "sh -c 'df -k /dev/shm | tail -1'"),
        run!("--add-host a.example:10.1.2.3", "cat /etc/hosts"),
        run!(
            "--sysctl net.ipv4.ip_forward=1",
            "cat /proc/sys/net/ipv4/ip_forward"
        ),
    ],
};

/// More of them, and what a container finds when nothing is said.
pub(super) const SECOND: Scene = Scene {
    name: "options2",
    prepare: nothing,
    rows: &[
        run!("--oom-score-adj 77", "cat /proc/self/oom_score_adj"),
        run!("--device /dev/fuse", "sh -c 'ls -l /dev/fuse | cut -c1-10'"),
        run!("--entrypoint /bin/echo", "words"),
        run!(
            "--env-file /dev/null -e X= -e PATH=/bin",
            "sh -c 'env | sort'"
        ),
        run!("--label a=b --stop-signal INT --stop-timeout 3", "true"),
        run!("--init", "sh -c 'cat /proc/1/comm; ps -o comm'"),
        run!(
            "--pid host",
            "sh -c 'set -- /proc/[0-9]*; test $# -gt 5 && echo many'"
        ),
        run!("--ipc none", "ls /dev/shm"),
        run!(
            "",
            "sh -c 'ls -l /dev | cut -c1-10,57-; ls /proc/self/ns; cut \"-d \" -f5 /proc/self/mountinfo | sort'"
        ),
        run!(
            "",
            "sh -c 'cut \"-d \" -f2,3 /proc/mounts | sort; cat /proc/self/limits; umask; pwd'"
        ),
        run!(
            "",
            "sh -c 'head -5 /etc/hosts; cat /proc/keys; cat /proc/timer_list; ls /sys/firmware'"
        ),
        run!("", "sh -c 'kill -9 $$'"),
        run!("", "sh -c 'kill -TERM $$; echo survived'"),
        row("docker run --rm -t {image} sh -c 'echo $TERM; ls -l /dev/console | cut -c1-10'"),
        row(
            "docker run --network none --name {name} --cidfile {dir}/id {image} true; test $(docker inspect -f {{.Id}} {name}) = $(cat {dir}/id) && echo same",
        ),
        row("docker run --network none --name {name} {image} true"),
        row("docker rm {name}"),
        row("docker run --nosuchflag {image} true").but(&[Normal::Columns]),
    ],
};
