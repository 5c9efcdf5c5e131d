#!/bin/busybox sh
# shellcheck shell=dash
# First process of the installed host: loads what its root file system needs, mounts it, and goes on there.
/bin/busybox mkdir -p /proc /sys /dev /new
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do
    /bin/busybox insmod "/modules/$module"
done < /modules/order

for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in
    root=*) root=${word#root=} ;;
    esac
done
tries=0
until device=$(/bin/busybox findfs "$root" 2> /dev/null) || [ -b "${device:=$root}" ]; do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then
        echo "initramfs: there is no $root"
        exec /bin/busybox reboot -f
    fi
    /bin/busybox sleep 0.1
done
/bin/busybox mount -t ext4 -o rw "$device" /new
for folder in dev sys proc; do
    /bin/busybox mount -o move /$folder /new/$folder
done
exec /bin/busybox switch_root /new /sbin/init
