#!/bin/sh
# Process 1 of a namespace of its own: runs dockerd in FOLDER and starts it again when it ends, as a service manager
# would. While FOLDER/hold is there it does not: so a test keeps the daemon down. Killing this ends every container.
# usage: daemon.sh FOLDER CGROUP
set -u
folder=$1 cgroup=$2
# What the shell says of children that a test kills is for the log.
exec 2>>"$folder/daemon.log"
# The loopback of a new network namespace is down; either tool will do.
busybox ip link set lo up 2>/dev/null || ip link set lo up || exit 1
while :; do
    while [ -e "$folder/hold" ]; do sleep 0.05; done
    dockerd --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/docker.pid" \
        --host "unix://$folder/docker.sock" --cgroup-parent "/$cgroup" --exec-opt native.cgroupdriver=cgroupfs \
        --userland-proxy=false --log-level warn >>"$folder/dockerd.log" 2>&1 &
    wait $!
    # It would not start over the pid file of one that was killed, if another process has that number now.
    rm -f "$folder/docker.pid"
    sleep 0.1
done
