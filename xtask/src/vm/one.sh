#!/bin/sh
# Runs one test of the machine in a process of its own: one <suite> <binary> <test>. Its output is shown when it fails.

output=/tmp/output.$$
timeout -s KILL "$(cat /vm/timeout)" "$2" --exact "$3" --nocapture > $output 2>&1 < /dev/null
status=$?
name="$1.${2##*/}.$3"
if [ $status = 0 ]; then
    touch "/tmp/passed/$name"
    echo "vm: ok      $1: $3"
else
    touch "/tmp/failed/$name"
    { echo "vm: FAILED  $1: $3 (status $status)"; sed 's/^/    /' $output; } > $output.shown
    cat $output.shown
fi
rm -f $output $output.shown
exit 0
