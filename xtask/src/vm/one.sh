#!/bin/sh
# Runs one test of the machine in a process of its own: one.sh <suite> <binary> <test>. Its output is shown when it
# fails.

output=/tmp/output.$$
begin=$(cut -d' ' -f1 /proc/uptime)
timeout -s KILL "$(cat /vm/timeout)" "$2" --exact "$3" --nocapture > $output 2>&1 < /dev/null
status=$?
took=$(cut -d' ' -f1 /proc/uptime | awk -v begin="$begin" '{ printf "%.1f", $1 - begin }')
name="$1.${2##*/}.$3"
if [ $status = 0 ]; then
    touch "/tmp/passed/$name"
    echo "vm: ok      $1: $3 ($took s)"
else
    touch "/tmp/failed/$name"
    { echo "vm: FAILED  $1: $3 (status $status, $took s)"; sed 's/^/    /' $output; } > $output.shown
    cat $output.shown
fi
rm -f $output $output.shown
exit 0
