#!/bin/busybox sh
# shellcheck shell=dash
# First process of a guest whose initramfs has no driver for its disk; it ends as those of distributions do.
/bin/busybox mkdir -p /proc /sys /dev
/bin/busybox mount -t devtmpfs devtmpfs /dev
tries=0
while [ ! -b /dev/xvda ] && [ $tries -lt 5 ]; do
    tries=$((tries + 1))
    /bin/busybox sleep 1
done
if [ -b /dev/xvda ]; then
    echo 'the disk is there'
    /bin/busybox poweroff -f
fi
echo 'ERROR: device /dev/xvda not found. Skipping fsck.'
echo 'Give root password for maintenance (or press Control-D to continue): '
/bin/busybox sleep 3600
