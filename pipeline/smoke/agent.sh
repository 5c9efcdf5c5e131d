#!/bin/sh
# The hands of the test in dom0: takes commands over a virtio-serial port and answers each.
# Asked:    run ID SECONDS BYTES BASE64-OF-COMMAND
# Answered: done ID EXIT-STATUS TRUNCATED(0|1) BASE64-OF-OUTPUT
# A request with the ID of the one before is answered again from memory, not run again.
umask 022
work=/run/smoke
mkdir -p "$work"
echo $$ >"$work/agent.pid"

find_port() {
    for name in /sys/class/virtio-ports/*/name; do
        if [ "$(cat "$name" 2>/dev/null)" = smoke.agent ]; then
            port=/dev/$(basename "$(dirname "$name")")
            return 0
        fi
    done
    return 1
}

until find_port; do sleep 0.1; done

answer() {
    # The port must be closed in the child: a daemon that it leaves behind would keep it open.
    printf '%s' "$4" | base64 -d >"$work/command" 3>&-
    timeout "$2" /bin/bash "$work/command" </dev/null >"$work/output" 2>&1 3>&-
    status=$?
    truncated=0
    if [ "$(stat -c %s "$work/output")" -gt "$3" ]; then truncated=1; fi
    {
        printf 'done %s %s %s ' "$1" "$status" "$truncated"
        head -c "$3" "$work/output" | base64 -w 0
        printf '\n'
    } >"$work/reply" 3>&-
}

last=
# When the host goes away, reading ends; the port is opened anew, for the next host to come.
while :; do
    exec 3<>"$port"
    echo "ready" >&3
    while read -r verb id seconds bytes command <&3; do
        [ "$verb" = run ] || continue
        if [ "$id" != "$last" ]; then
            answer "$id" "$seconds" "$bytes" "$command"
            last=$id
        fi
        cat "$work/reply" >&3
    done
    exec 3>&-
    sleep 0.2
done
