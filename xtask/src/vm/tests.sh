#!/bin/sh
# The first process of a machine without systemd: mounts what a Linux host has, runs what stands in /vm/runs, and says
# how it went in a line that xtask waits for. A run is: <suite> <tests|program|shell> <binary> <filters or arguments>

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t securityfs securityfs /sys/kernel/security 2> /dev/null
mount -t bpf bpf /sys/fs/bpf 2> /dev/null
mount --make-rshared /
ln -sfn /proc/self/fd /dev/fd
modprobe -a virtio_rng
ip link set lo up
echo cooper-vm > /proc/sys/kernel/hostname
echo 1 > /proc/sys/kernel/printk
ulimit -n 1048576 2> /dev/null

if [ "$(cat /vm/cgroups)" = v1 ]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
    for controller in $(sed -n 's/^\([a-z_]*\)\t.*\t1$/\1/p' /proc/cgroups); do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
    done
    mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd
else
    mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
fi

export RUST_BACKTRACE=1 TMPDIR=/var/tmp COOPER_VM=1 CI=true
mkdir /tmp/passed /tmp/failed
echo "vm: Linux $(uname -r), cgroup $(cat /vm/cgroups), up $(cut -d' ' -f1 /proc/uptime) s"
while read -r suite kind binary rest; do
    case $kind in
    shell)
        busybox setsid busybox cttyhack sh ;;
    program)
        # What a person asked for is shown as it comes.
        # shellcheck disable=SC2086
        if "$binary" $rest; then touch "/tmp/passed/$suite"; else echo "vm: FAILED  $suite (status $?)"; touch "/tmp/failed/$suite"; fi ;;
    tests)
        # One process for each test, as nextest does, and as many at once as there are processors.
        # shellcheck disable=SC2086
        if "$binary" --list --format terse $rest > /tmp/list 2> /tmp/output; then
            sed -n 's/: test$//p' /tmp/list | xargs -r -P "$(nproc)" -n 1 /vm/one.sh "$suite" "$binary"
        else
            echo "vm: FAILED  $suite: its tests cannot be listed"; cat /tmp/output; touch "/tmp/failed/$suite"
        fi ;;
    esac
done < /vm/runs
passed=$(ls /tmp/passed | wc -l) failed=$(ls /tmp/failed | wc -l)
echo "vm: done in $(cut -d' ' -f1 /proc/uptime) s; passed $passed, failed $failed"
busybox poweroff -f
