#!/bin/busybox sh
# shellcheck shell=dash
# First process of the PV guest: proves that it runs in a guest of its own, and switches it off.
/bin/busybox mkdir -p /proc /sys
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
# Put together here, so that nothing else (a kernel's echo of its command line) can print it.
part=GUEST
echo "SMOKE-${part}-UP pid=$$ hypervisor=$(/bin/busybox cat /sys/hypervisor/type) uuid=$(/bin/busybox cat /sys/hypervisor/uuid)"
/bin/busybox poweroff -f
