#!/bin/sh
# First process of the test host: does by hand what the package's units do on a real one.
export PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin
say() { echo "smoke: $*" >/dev/console; }

/bin/busybox mkdir -p /proc /sys /dev /run /tmp /var/log/xen /var/lib/xen /var/lib/xenstored /var/log/xen/console /var/lib/xen/dump
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
/bin/busybox --install -s
exec </dev/console >/dev/console 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
# The qemu of Debian 13 reserves 384 MiB for the guest's memory that it may map, and uses little of it.
echo 1 >/proc/sys/vm/overcommit_memory
# Xen's locking.sh opens these; without them it loops until libxl gives up.
ln -sfn /proc/self/fd /dev/fd
ln -sfn fd/0 /dev/stdin
ln -sfn fd/1 /dev/stdout
ln -sfn fd/2 /dev/stderr
[ -e /var/run ] || ln -s ../run /var/run
mkdir -p /run/xen /run/xenstored /run/smoke /run/lock
[ -e /var/lock ] || ln -s ../run/lock /var/lock
hostname smoke
# Not /dev/console: no session can have that as its terminal.
console=/dev/$(tr ' ' '\n' </sys/class/tty/console/active | tail -n 1)
say "first process"

while read -r module; do
    insmod "/usr/lib/smoke/modules/$module.ko" || say "module $module: not loaded"
done </usr/lib/smoke/modules.order

# A shell for who sits at the console, once they press Enter; the agent has no part in it.
# shellcheck disable=SC2094 # It is a terminal, and no file that would be cut short.
(while read -r _; do setsid -c sh -i <"$console" >"$console" 2>&1; done <"$console") &
if [ -b /dev/vda ]; then
    mount -t ext4 -o ro /dev/vda /drive || say "drive: not mounted"
    # Programs that look for their files from where they are themselves.
    while read -r path; do mount -o bind "/drive/$path" "/$path"; done </usr/lib/smoke/mounts
fi

# The agent comes before the services, so that a service that hangs can be looked at.
/usr/lib/smoke/agent 0 &
/usr/lib/smoke/agent 1 &

# shellcheck source=/dev/null
. /usr/lib/smoke/programs
say services
note() { echo "$2" >"/run/smoke/$1"; say "$1: $2"; }

mount -t xenfs xenfs /proc/xen
note xenfs $?

# Nothing can be started after what failed; the agents stay, and tell.
fail() {
    note "$1" "$2"
    note services failed
    while :; do sleep 60; done
}

# What a suite brings along is the fourth drive (prepare.py).
if [ -b /dev/vdd ]; then
    mount -t ext4 -o ro /dev/vdd /usr/lib/smoke/goods
    status=$?
    [ $status = 0 ] || fail goods $status
fi

timeout 20 "$OXENSTORED" --pid-file /run/xen/xenstored.pid
status=$?
[ $status = 0 ] || fail xenstored $status
tries=0
while [ ! -S /run/xenstored/socket ] && [ $tries -lt 600 ]; do
    tries=$((tries + 1))
    sleep 0.1
    if [ -s /run/xen/xenstored.pid ] && ! kill -0 "$(cat /run/xen/xenstored.pid)"; then fail xenstored gone; fi
done
[ -S /run/xenstored/socket ] || fail xenstored silent
note xenstored 0

if [ -n "$XEN_INIT_DOM0" ]; then
    timeout 20 "$XEN_INIT_DOM0"
    note init-dom0 $?
else
    # Xen 4.4 and older: the unit of xenstored writes the name itself.
    timeout 20 "$XENSTORE_WRITE" /local/domain/0/name Domain-0 domid 0
    note init-dom0 $?
fi

# With a shell between: busybox's timeout becomes the program itself, and in Xen 4.2 it would not go to
# the background as a child of the first process.
/bin/sh -c 'timeout 20 "$@"; exit $?' sh "$XENCONSOLED" --log=all --pid-file=/run/xen/xenconsoled.pid
note xenconsoled $?

ip link set lo up
# Without an address other than its own, the qemu of Xen 4.2 finds none to listen on for VNC, and ends.
ip link add name xenbr0 type bridge && ip addr add 10.77.0.1/24 dev xenbr0 && ip link set xenbr0 up
note xenbr0 $?

note services "done"
wait
# Not reached while the agent lives; the first process must never end.
while :; do sleep 60; done
