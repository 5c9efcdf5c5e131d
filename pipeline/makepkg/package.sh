#!/bin/bash
# Makes packages of what compile.sh staged, with real makepkg, and prints .SRCINFO.
#
# It is run in the workspace, which holds the AUR folder's files, makepkg.conf and staging.tar; it
# leaves the packages and .SRCINFO in output/.
set -Eeuo pipefail
umask 022
# makepkg lists a package's files by LC_COLLATE=C, which a caller's LC_ALL would overrule.
unset LC_ALL

mkdir src
tar --extract --file staging.tar --directory src --preserve-permissions
rm staging.tar
for file in support/*; do
  [ -e "$file" ] || continue
  mv "$file" .
  ln -s "../${file##*/}" src/
done

makepkg --config makepkg.conf --printsrcinfo > output/.SRCINFO
makepkg --config makepkg.conf --repackage --nodeps --noconfirm
