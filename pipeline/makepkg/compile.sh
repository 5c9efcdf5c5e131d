#!/bin/bash
# Runs a PKGBUILD's prepare() and build() as makepkg would, and packs what they staged.
#
# makepkg itself cannot stop between build() and package(), and images with an old userland have no
# makepkg at all. It is run in the workspace, which holds PKGBUILD (up to its package functions) and
# sources/; it leaves output/staging.tar.
set -Eeuo pipefail
shopt -s extglob
umask 022

startdir=$PWD
srcdir=$startdir/src
export CARCH=x86_64 CHOST=x86_64-pc-linux-gnu
mkdir -p "$srcdir"

cd "$srcdir"
for file in "$startdir"/sources/*; do
  ln -s "$file" .
  case $file in
    *.tar | *.tar.* | *.t?z | *.tbz2) bsdtar --no-same-owner -xf "$file" ;;
  esac
done
# makepkg does this when SOURCE_DATE_EPOCH is set, so that no rule of make depends on unpacking order.
find . -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

cd "$startdir"
set +u # PKGBUILDs are written for a shell without it
# shellcheck source=/dev/null
source PKGBUILD
if declare -F prepare > /dev/null; then
  cd "$srcdir"
  prepare
fi
cd "$srcdir"
build

cd "$srcdir"
find staging -print0 | LC_ALL=C sort -z |
  tar --create --file "$startdir/output/staging.tar" --null --no-recursion --files-from - \
    --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner
