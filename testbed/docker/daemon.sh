#!/bin/sh
# Process 1 of a namespace of its own: runs dockerd in FOLDER and starts it again when it ends, as a service manager
# would. While FOLDER/hold is there it does not: so a test keeps the daemon down. Killing this ends every container.
# usage: daemon.sh FOLDER CGROUP
set -u
folder=$1 cgroup=$2
# What the shell says of children that a test kills is for the log.
exec 2>>"$folder/daemon.log"
# Either tool will do.
ip_link() { busybox ip link "$@" 2>/dev/null || ip link "$@"; }
# The loopback of a new network namespace is down.
ip_link set lo up || exit 1
# A second engine runs, and is started again, as long as FOLDER/second/arguments is there: a word of its own in each line.
while :; do
    while [ ! -e "$folder/second/arguments" ]; do sleep 0.1; done
    set --
    while read -r word; do set -- "$@" "$word"; done <"$folder/second/arguments"
    dockerd --data-root "$folder/second/data" --exec-root "$folder/second/exec" --pidfile "$folder/second/docker.pid" \
        --host "unix://$folder/second/docker.sock" --cgroup-parent "/$cgroup" --exec-opt native.cgroupdriver=cgroupfs \
        --log-level warn "$@" >>"$folder/second/dockerd.log" 2>&1
    rm -f "$folder/second/docker.pid"
done &
while :; do
    while [ -e "$folder/hold" ]; do sleep 0.05; done
    # A daemon that was killed in the middle of a start leaves interfaces, with addresses that the next one gives away
    # again. Whatever else it left running, the next one ends.
    for link in /sys/class/net/veth*; do [ -e "$link" ] && ip_link delete "${link##*/}"; done
    dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/docker.pid" \
        --host "unix://$folder/docker.sock" --cgroup-parent "/$cgroup" --exec-opt native.cgroupdriver=cgroupfs \
        --userland-proxy=false --log-level warn >>"$folder/dockerd.log" 2>&1 &
    wait $!
    # It would not start over the pid file of one that was killed, if another process has that number now.
    rm -f "$folder/docker.pid"
    sleep 0.1
done
