#!/bin/busybox sh
# shellcheck shell=dash
# First process of a Linux guest, in its ramdisk and again on its disk. Says what it runs in, and does what the
# kernel's command line asks for: smoke=off switches the guest off, smoke=stay keeps a shell on the console.
bb=/bin/busybox
$bb mkdir -p /proc /sys /dev /new /etc /tmp /run
$bb mount -t proc proc /proc 2>/dev/null
$bb mount -t sysfs sysfs /sys 2>/dev/null
$bb mount -t devtmpfs devtmpfs /dev 2>/dev/null
export PATH=/bin:/usr/bin
[ -e /bin/sh ] || $bb --install -s /bin

option() {
    # shellcheck disable=SC2013 # Words are what it has.
    for word in $(cat /proc/cmdline); do
        case $word in "$1="*) echo "${word#*=}" ;; esac
    done
}

if [ -e /modules.order ]; then
    while read -r module; do
        insmod "/modules/$module.ko" || echo "smoke-guest: module $module: not loaded"
    done </modules.order
fi

device=$(option root)
if [ -n "$device" ] && [ -e /modules.order ]; then
    tries=0
    while [ ! -b "$device" ] && [ $tries -lt 100 ]; do tries=$((tries + 1)); sleep 0.1; done
    mount -t ext4 "$device" /new || echo "smoke-guest: $device: not mounted"
    exec switch_root /new /sbin/init
fi

if [ -e /sys/class/net/eth0 ]; then
    ip link set lo up
    ip link set eth0 up
    address=$(option address)
    if [ -n "$address" ]; then ip addr add "$address" dev eth0; fi
fi

# Put together here, so that nothing else (a kernel's echo of its command line) can print it.
part=GUEST
echo "SMOKE-${part}-UP pid=$$ hypervisor=$(cat /sys/hypervisor/type) uuid=$(cat /sys/hypervisor/uuid)" \
    "machine=$(uname -m) root=${device:-ramdisk}"
if [ "$(option smoke)" = stay ]; then
    echo 'echo "$@"' >/bin/say
    while :; do setsid cttyhack sh; done
fi
sync
poweroff -f
