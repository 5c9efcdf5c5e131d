#!/bin/sh
# The hands of the test in dom0: takes commands over a virtio-serial port and answers each.
# Asked:    run ID BYTES BASE64-OF-COMMAND
# Answered: done ID EXIT-STATUS TRUNCATED(0|1) BASE64-OF-OUTPUT
# A request with the ID of the one before is answered again from memory, not run again.
#
# agent NUMBER     serve the port smoke.agentNUMBER; two run, so that one can look after the other
# agent describe   list the processes of the first one's command: number, program, state, arguments
# agent stop       kill them; fails where the first one is gone
umask 022
first=/run/smoke/agent0

# The fields of a process after its name, which may hold anything: state is 1, session 4.
field() {
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # shellcheck disable=SC2086
    set -- "$2" ${stat##*) }
    shift "$1"
    echo "$1"
}

of_session() {
    for process in /proc/[0-9]*; do
        pid=${process#/proc/}
        if [ "$(field "$pid" 4)" = "$1" ]; then echo "$pid"; fi
    done
}

case $1 in
describe)
    for pid in $(of_session "$(cat $first/session)"); do
        printf '%s %s %s %s\n' "$pid" "$(readlink "/proc/$pid/exe")" "$(field "$pid" 1)" \
            "$(tr '\0' ' ' <"/proc/$pid/cmdline" | head -c 200)"
    done
    exit 0
    ;;
stop)
    for pid in $(of_session "$(cat $first/session)"); do kill -KILL "$pid"; done
    if kill -0 "$(cat $first/pid)"; then exit 0; fi
    exit 1
    ;;
esac

name=smoke.agent$1
work=/run/smoke/agent$1
mkdir -p "$work"
echo $$ >"$work/pid"

find_port() {
    for file in /sys/class/virtio-ports/*/name; do
        if [ "$(cat "$file" 2>/dev/null)" = "$name" ]; then
            port=/dev/$(basename "$(dirname "$file")")
            return 0
        fi
    done
    return 1
}

until find_port; do sleep 0.1; done

answer() {
    # The port must be closed in the child: a daemon that it leaves behind would keep it open.
    printf '%s' "$3" | base64 -d >"$work/command" 3>&-
    # shellcheck disable=SC2016
    setsid /bin/bash -c 'echo $$ >"$1/session"; exec /bin/bash "$1/command"' bash "$work" \
        </dev/null >"$work/output" 2>&1 3>&- &
    wait $!
    status=$?
    truncated=0
    if [ "$(stat -c %s "$work/output")" -gt "$2" ]; then truncated=1; fi
    {
        printf 'done %s %s %s ' "$1" "$status" "$truncated"
        head -c "$2" "$work/output" | base64 -w 0
        printf '\n'
    } >"$work/reply" 3>&-
}

last=
# When the host goes away, reading ends; the port is opened anew, for the next host to come.
while :; do
    exec 3<>"$port"
    echo "ready" >&3
    while read -r verb id bytes command <&3; do
        [ "$verb" = run ] || continue
        if [ "$id" != "$last" ]; then
            answer "$id" "$bytes" "$command"
            last=$id
        fi
        cat "$work/reply" >&3
    done
    exec 3>&-
    sleep 0.2
done
