#!/bin/busybox sh
# shellcheck shell=dash
# First process of the guest that starts with the host: runs until it is told to shut down, and says so then.
/bin/busybox mkdir -p /proc /sys /sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
# What the kernel runs when xl asks for a shutdown.
{
    echo '#!/bin/busybox sh'
    echo '/bin/busybox echo "SMOKE-GUEST-DOWN in order" > /dev/console'
    echo '/bin/busybox poweroff -f'
} > /sbin/poweroff
/bin/busybox chmod 755 /sbin/poweroff
echo "SMOKE-GUEST-UP uuid=$(/bin/busybox cat /sys/hypervisor/uuid)"
# Without a program for each tick: starting one costs an emulated machine most of a second.
/bin/busybox mkfifo /nothing
exec 3<> /nothing
tick=0
while :; do
    tick=$((tick + 1))
    echo "SMOKE-GUEST-TICK $tick"
    # shellcheck disable=SC3045 # busybox has it
    read -r -t 5 _ <&3
done
