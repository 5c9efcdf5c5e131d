#!/bin/bash
# Installs packages into a new root with pacman, and takes out what differs from one host or day to the next.
# Run as root of a user, mount, process and network namespace of its own.
#
# usage: arch.sh FOLDER SECONDS
# FOLDER holds pacman.conf, databases/, packages/ and targets; it gets root/ and installed. SECONDS since 1970
# take the place of every date in a file.
set -Eeuo pipefail
umask 022
cd "$1"
epoch=$2
root=$PWD/root

mkdir -p root/{dev,proc} root/var/lib/pacman
cp -R databases root/var/lib/pacman/sync
# Scriptlets run chrooted, and expect what every system has there.
mount -t tmpfs -o mode=755 none root/dev
for name in null zero full random urandom; do
  touch "root/dev/$name"
  mount --bind "/dev/$name" "root/dev/$name"
done
mount -t proc proc root/proc

pacman=(pacman --root "$root" --dbpath "$root/var/lib/pacman" --config "$PWD/pacman.conf"
  --cachedir "$PWD/packages" --gpgdir /nonexistent --hookdir /nonexistent --logfile /dev/null
  --noconfirm --color never)
begin=$EPOCHREALTIME
mapfile -t targets < targets
"${pacman[@]}" --sync --noprogressbar "${targets[@]}"
printf 'pacman took %s us\n' $((${EPOCHREALTIME/./} - ${begin/./}))
"${pacman[@]}" --query > installed
umount --recursive root/dev root/proc

cd root
# When a package was installed, and when a password was set.
sed -i "/^%INSTALLDATE%$/{n;s/.*/$epoch/}" var/lib/pacman/local/*/desc
for file in etc/shadow etc/shadow-; do
  if [ -e "$file" ]; then
    sed -i -E "s/^([^:]*:[^:]*:)[0-9]+:/\1$((epoch / 86400)):/" "$file"
  fi
done
# Databases of the snapshot, caches, logs, keys and seeds. An old Python's byte code holds the times of
# the files it was compiled from.
rm -rf var/lib/pacman/sync var/cache/* var/log/* var/tmp/* tmp/* run/* etc/pacman.d/gnupg root/.gnupg \
  etc/.updated var/.updated etc/.pwd.lock etc/{passwd,group,shadow,gshadow}- \
  usr/share/info/dir var/lib/systemd/{random-seed,catalog/database} etc/udev/hwdb.bin usr/lib/udev/hwdb.bin \
  etc/ssl/certs/java etc/ca-certificates/extracted/java-cacerts.jks
find . -xdev '(' -name __pycache__ -o -name '*.py[co]' ')' -prune -exec rm -r {} +
# Made at random, or links, which are no files of this image's to write through.
rm -f etc/{machine-id,resolv.conf,hostname,hosts} var/lib/dbus/machine-id
# sudo, for one, is not readable; a user who is not root could neither hash nor remove it.
find . -xdev -type d ! -perm -u=rwx -exec chmod u+rwx {} + , -type f ! -perm -u=r -exec chmod u+r {} +
mkdir -p etc usr/local/bin
: > etc/machine-id
: > etc/resolv.conf
printf 'xen-build\n' > etc/hostname
printf '127.0.0.1 localhost xen-build\n' > etc/hosts
# A login shell has these in its PATH, and pod2man is one of them; a job has not.
for program in usr/bin/{core,vendor,site}_perl/*; do
  if [ -x "$program" ] && [ ! -e "usr/local/bin/${program##*/}" ]; then
    ln -s "/$program" usr/local/bin/
  fi
done
# The engines run commands as this user; the folder is where they mount the workspace. A docker volume
# takes its owner from the folder that it covers.
printf 'builder:x:1000:1000:builder:/build:/usr/bin/nologin\n' >> etc/passwd
printf 'builder:x:1000:\n' >> etc/group
mkdir -p build
chown 1000:1000 build
chmod 755 build .
