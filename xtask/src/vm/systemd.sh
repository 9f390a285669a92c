#!/bin/sh
# Types on a machine with systemd what tutorials tell people to type (T1, T2), and looks at what a service manager does
# to an engine: restart, reload, stop, crash, upgrade. Every `check` is one line that xtask waits for.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
passed=0 failed=0
begin=$(cut -d' ' -f1 /proc/uptime)

# check "name" command…: the command must succeed; what it printed and the service's log are shown when it does not.
check() {
    name=$1
    shift
    if "$@" > /tmp/output 2>&1; then
        passed=$((passed + 1))
        echo "vm: ok      $name"
    else
        failed=$((failed + 1))
        echo "vm: FAILED  $name"
        sed 's/^/    /' /tmp/output
        journalctl --no-pager -q -n 25 -o cat -u cooper.service -u cooper.socket | sed 's/^/    log: /'
    fi
}

# eventually command…: until it succeeds, for a minute.
eventually() {
    tries=0
    until "$@"; do
        tries=$((tries + 1))
        [ $tries -lt 300 ] || return 1
        sleep 0.2
    done
}

refused() { ! "$@"; }
api() { curl -sS --max-time 60 --unix-socket /var/run/docker.sock "$@"; }
post() { api -f -X POST -H 'Content-Type: application/json' "$@"; }
main_pid() { systemctl show -P MainPID docker.service; }
# field <container> <name>: a number or word of State, as inspect has it.
field() { api -f "http://localhost/containers/$1/json" | grep -o "\"$2\":[^,}]*" | head -n 1 | cut -d: -f2 | tr -d '"'; }
# both: the two listeners of the tutorials.
both() {
    curl -sS -f --max-time 60 http://localhost:2375/version | grep ApiVersion \
        && api -f http://localhost/version | grep ApiVersion
}
# printed <text> <command…>: the command prints a line with this text.
printed() {
    text=$1
    shift
    "$@" | tee /tmp/printed | grep -F -e "$text" || { cat /tmp/printed; return 1; }
}
same() { echo "before '$1', now '$2'"; [ -n "$1" ] && [ "$1" = "$2" ]; }
differ() { echo "before '$1', now '$2'"; [ -n "$2" ] && [ "$2" != 0 ] && [ "$1" != "$2" ]; }
# unharmed: the container from before still is what it was, inside and out.
unharmed() {
    same "$web" "$(field web Pid)" && same "$started" "$(field web StartedAt)" && [ "$(field web Running)" = true ] \
        && printed hello curl -sS --max-time 20 http://127.0.0.1:9090/index.html
}
# A container's heartbeat, one line in 0.2 s: that lines are added shows that it runs, not only that it is listed.
beating() {
    count=$(api "http://localhost/containers/beat/logs?stdout=1&tail=1" | tr -dc '0-9')
    eventually sh -c "[ \"\$(curl -sS --unix-socket /var/run/docker.sock 'http://localhost/containers/beat/logs?stdout=1&tail=1' | tr -dc 0-9)\" -gt ${count:-999999} ]"
}

echo "vm: Linux $(uname -r), $(systemctl --version | head -n 1), up $begin s"

# What a package does.
cp /vm/packaging/cooper.service /vm/packaging/cooper.socket /lib/systemd/system/
cp -P /vm/packaging/docker.service /vm/packaging/docker.socket /lib/systemd/system/
cp /vm/packaging/cooper.sysusers /usr/lib/sysusers.d/cooper.conf
ln -s cooper /usr/bin/dockerd
ln -s cooper /usr/bin/docker
systemd-sysusers
systemctl daemon-reload

check "cgroup v2 is what systemd gives" [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]
check "the units are free of mistakes" systemd-analyze verify /lib/systemd/system/cooper.service /lib/systemd/system/cooper.socket
check "the units can be enabled" systemctl enable cooper.service cooper.socket

# Socket activation: the first client starts the engine.
check "the socket is there before the engine" systemctl start docker.socket
check "it belongs to the group docker" [ "$(stat -c '%a %U %G' /run/docker.sock)" = "660 root docker" ]
check "nothing runs yet" [ "$(main_pid)" = 0 ]
check "the first request starts the engine" printed ApiVersion api -f http://localhost/version
check "the service says that it is ready" eventually systemctl is-active docker.service
check "its own socket is there too" curl -sS -f --unix-socket /run/cooper/cooper.sock http://localhost/_ping

# Containers that everything below must leave alone.
check "an image is loaded" post -H 'Content-Type: application/x-tar' --data-binary @/vm/busybox.tar 'http://localhost/images/load?quiet=1'
check "a server with limits and a published port is created" post 'http://localhost/containers/create?name=web' -d '{
    "Image": "busybox", "Cmd": ["sh", "-c", "echo hello > /index.html; exec httpd -f -p 80 -h /"],
    "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "9090"}]}, "Memory": 67108864, "PidsLimit": 50, "NanoCpus": 500000000}}'
check "it starts" post http://localhost/containers/web/start
check "a container that counts is created" post 'http://localhost/containers/create?name=beat' -d '{
    "Image": "busybox", "Cmd": ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; usleep 200000; done"],
    "HostConfig": {"NetworkMode": "none"}}'
check "it starts and counts" post http://localhost/containers/beat/start
web=$(field web Pid) started=$(field web StartedAt)
id=$(field web Id)
limits() {
    for pair in memory.max=67108864 pids.max=50 "cpu.max=50000 100000"; do
        same "${pair#*=}" "$(cat "/sys/fs/cgroup/cooper/$id/${pair%%=*}")" || return 1
    done
}
check "the published port answers" eventually printed hello curl -sS --max-time 5 http://127.0.0.1:9090/index.html
check "limits stand in the container's cgroup" limits
check "the container is outside of the service's cgroup" printed "/cooper/$id" cat "/proc/$web/cgroup"

# Delegation: the engine and its shims are in the service's group, which systemd leaves to them.
shim=$(cut -d' ' -f4 "/proc/$web/stat")
check "the unit's group is delegated" same yes "$(systemctl show -P Delegate docker.service)"
check "the shim is in the service's cgroup" printed /system.slice/cooper.service cat "/proc/$shim/cgroup"

# Docker's own command line, Debian 12's, which speaks 1.41; and docker-py. A group beside Cooper's and systemd's.
check "docker version" printed "API version:       1.41" docker version
check "docker run --rm" printed hello docker run --rm --network none busybox echo hello
check "docker run -d with limits, weight and a parent" docker run -d --name cli --network none --memory 64m --memory-swap 64m \
    --cpus 0.5 --pids-limit 50 --blkio-weight 300 --cgroup-parent /beside/cooper busybox sh -c 'echo begun; exec sleep 600'
cli=$(field cli Pid) cli_id=$(field cli Id)
aside=/sys/fs/cgroup/beside/cooper/$cli_id
check "it is below the parent that was named" printed "/beside/cooper/$cli_id" cat "/proc/$cli/cgroup"
aside_limits() {
    for pair in memory.max=67108864 memory.swap.max=0 pids.max=50 "cpu.max=50000 100000" "io.weight=default 2930"; do
        same "${pair#*=}" "$(cat "$aside/${pair%%=*}")" || return 1
    done
}
check "its limits stand there" aside_limits
check "docker ps" printed cli docker ps --filter name=cli --format '{{.Names}} {{.Status}}'
check "docker logs" eventually printed begun docker logs cli
check "docker exec sees its own group alone" printed 0::/ docker exec cli cat /proc/self/cgroup
check "docker exec sees the limit" printed 67108864 docker exec cli cat /sys/fs/cgroup/memory.max
check "docker pause" docker pause cli
check "the kernel says that it is frozen" printed "frozen 1" cat "$aside/cgroup.events"
check "docker exec is refused meanwhile" refused docker exec cli true
check "docker unpause" docker unpause cli
check "the kernel says that it is not" printed "frozen 0" cat "$aside/cgroup.events"
check "docker top" printed 'sleep 600' docker top cli
check "systemd reads its units again" systemctl daemon-reload
check "limits beside Cooper's group outlive that" aside_limits
check "docker stop" docker stop -t 1 cli
check "docker inspect tells the exit code" printed 137 docker inspect --format '{{.State.ExitCode}}' cli
check "docker rm" docker rm cli
check "its cgroup is gone" refused [ -e "$aside" ]
cat > /tmp/client.py << 'END'
import docker
client = docker.from_env()
assert client.ping()
one = client.containers.run("busybox", ["sh", "-c", "echo from py; exec sleep 600"], detach=True,
                            network_mode="none", mem_limit="32m", pids_limit=20)
said = one.exec_run("cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max")
assert tuple(said) == (0, b"33554432\n20\n"), said
one.pause(); one.reload(); assert one.status == "paused", one.status
one.unpause(); one.reload(); assert one.status == "running", one.status
assert any("sleep 600" in " ".join(row) for row in one.top()["Processes"]), one.top()
one.kill()
assert one.wait()["StatusCode"] == 137
assert one.logs() == b"from py\n", one.logs()
one.remove()
END
check "a program with docker-py" python3 /tmp/client.py

# T1: the ExecStart of the tutorials, in a drop-in and in the unit's own file; the first as of 2017, the second of 2015.
mkdir -p /etc/systemd/system/docker.service.d
cat > /etc/systemd/system/docker.service.d/override.conf << 'END'
[Service]
ExecStart=
ExecStart=/usr/bin/dockerd -H=fd:// -H=tcp://0.0.0.0:2375
END
check "T1: systemctl daemon-reload" systemctl daemon-reload
check "T1: service docker restart" service docker restart
check "T1: ps -ef | grep docker" printed '/usr/bin/dockerd -H=fd:// -H=tcp://0.0.0.0:2375' sh -c 'ps -ef | grep docker'
check "T1: both listeners answer" both
check "T1: containers were left alone" unharmed
sed -i 's|^ExecStart=/.*|ExecStart=/usr/bin/dockerd -H unix:///var/run/docker.sock -H tcp://0.0.0.0:2375|' /etc/systemd/system/docker.service.d/override.conf
systemctl daemon-reload
check "T1: the socket named by its path, without fd://" systemctl restart docker
check "T1: both listeners answer, without fd://" both
check "T1: systemd's socket is still systemd's" systemctl is-active docker.socket
rm /etc/systemd/system/docker.service.d/override.conf
cp /lib/systemd/system/cooper.service /tmp/kept
sed -i --follow-symlinks 's|^ExecStart=.*|ExecStart=/usr/bin/docker daemon -H=fd:// -H=tcp://0.0.0.0:2375|' /lib/systemd/system/docker.service
systemctl daemon-reload
check "T1: systemctl restart docker" systemctl restart docker
check "T1: ps -ef | grep docker, docker daemon" printed '/usr/bin/docker daemon -H=fd:// -H=tcp://0.0.0.0:2375' sh -c 'ps -ef | grep docker'
check "T1: both listeners answer, docker daemon" both
check "T1: containers were left alone, docker daemon" unharmed
cp /tmp/kept /lib/systemd/system/cooper.service

# T2: the options in /etc/default/docker, which the shipped service reads.
echo "DOCKER_OPTS='-H tcp://0.0.0.0:2375 -H unix:///var/run/docker.sock'" > /etc/default/docker
check "T2: systemctl daemon-reload" systemctl daemon-reload
before=$(main_pid)
check "T2: service docker restart" service docker restart
check "T2: it is another process" differ "$before" "$(main_pid)"
check "T2: both listeners answer" both
check "T2: running containers survive the restart" unharmed
check "T2: and go on working" beating
check "systemctl restart cooper" systemctl restart cooper
check "containers survive it" unharmed
check "their shims are the same" same "$shim" "$(cut -d' ' -f4 "/proc/$web/stat")"
check "and still in the service's cgroup" printed /system.slice/cooper.service cat "/proc/$shim/cgroup"
check "limits outlive daemon-reload and restart" limits

# Reload is SIGHUP: no restart, and the file is read again.
before=$(main_pid)
mkdir -p /etc/cooper
echo '{"debug": true}' > /etc/cooper/daemon.json
check "systemctl reload docker" systemctl reload docker
check "a reload reads the configuration again" eventually sh -c 'journalctl --no-pager -q -o cat -u cooper.service | grep "Got signal to reload configuration"'
check "a reload keeps the process" same "$before" "$(main_pid)"
check "a reload leaves containers alone" unharmed

# Stopped: containers and ports go on, the run directory stays, and the next client brings the engine back.
check "systemctl stop docker" systemctl stop docker.service
check "the engine is gone" [ ! -e "/proc/$before" ]
check "its containers are not" [ -e "/proc/$web/exe" ]
check "a published port answers without the engine" printed hello curl -sS --max-time 20 http://127.0.0.1:9090/index.html
check "the run directory is kept" [ -S "/run/cooper/containers/$id/shim.sock" ]
check "the socket is kept" systemctl is-active docker.socket
check "the next request starts the engine again" printed ApiVersion api -f http://localhost/version
check "containers are adopted after a stop" unharmed
check "an adopted container goes on working" beating

# Killed: systemd starts it again by itself.
before=$(main_pid)
kill -9 "$before"
killed() { pid=$(main_pid); [ "$pid" != 0 ] && [ "$pid" != "$before" ] && systemctl -q is-active docker.service; }
check "systemd starts a killed engine again" eventually killed
check "containers are adopted after kill -9" unharmed

# Upgraded: the program is replaced under running shims.
cp /usr/bin/cooper /usr/bin/cooper.new && mv /usr/bin/cooper.new /usr/bin/cooper
check "the service restarts on a new program" systemctl restart docker
check "containers are adopted by the new program" unharmed
exec_in() {
    exec_id=$(post http://localhost/containers/web/exec -d '{"Cmd": ["cat", "/index.html"], "AttachStdout": true}' | grep -o '[0-9a-f]\{64\}') \
        && printed hello post "http://localhost/exec/$exec_id/start" -d '{"Detach": false}' --output -
}
check "exec in a container whose shim runs the old program" exec_in

# Limits are enforced: more memory than allowed ends with OOMKilled.
check "a container that wants too much is created" post 'http://localhost/containers/create?name=greedy' -d '{
    "Image": "busybox", "Cmd": ["sh", "-c", "tail /dev/zero"],
    "HostConfig": {"NetworkMode": "none", "Memory": 16777216, "MemorySwap": 16777216}}'
check "it starts all the same" post http://localhost/containers/greedy/start
check "it ends with 137" printed '"StatusCode":137' post http://localhost/containers/greedy/wait
check "and is reported as killed for want of memory" [ "$(field greedy OOMKilled)" = true ]

# Nothing is left when all is removed.
clean() { for one in web beat greedy; do api -f -X DELETE "http://localhost/containers/$one?force=1&v=1" || return 1; done; }
check "everything can be removed" clean
check "no process is left" eventually refused pgrep -x 'httpd|usleep'
check "no cgroup is left" eventually refused [ -e "/sys/fs/cgroup/cooper/$id" ]
check "no cgroup beside it is left but the parent" refused ls /sys/fs/cgroup/beside/cooper/*/cgroup.procs
check "no run directory is left" eventually refused [ -e "/run/cooper/containers/$id" ]
check "the service was never stopped by a failure" refused sh -c "systemctl --failed --no-legend | grep -e cooper -e docker"

echo "vm: done in $(cut -d' ' -f1 /proc/uptime) s; passed $passed, failed $failed"
