#!/bin/bash
# Unpacks packages into one root, checks the syntax of their shell scripts and their systemd units,
# and writes what it finds to output/findings: code, path and message, parted by tabs.
set -Eeuo pipefail

mkdir root
for package in packages/*; do
  bsdtar --no-same-owner -xf "$package" -C root --exclude .MTREE --exclude .BUILDINFO --exclude .PKGINFO
  if [ -e root/.INSTALL ]; then
    name=${package##*/}
    mv root/.INSTALL "root/$name.INSTALL"
    bash -n "root/$name.INSTALL" 2> errors ||
      printf 'script-syntax\t.INSTALL\t%s: %s\n' "$name" "$(tr '\n\t' '  ' < errors)" >> output/findings
  fi
done

find root -type f -print0 | LC_ALL=C sort -z > all
while IFS= read -r -d '' file; do
  IFS= read -r -n 64 line < "$file" 2> /dev/null || true
  case $line in
    '#!'*/bash* | '#!'*/sh | '#!'*/sh\ *)
      bash -n "$file" 2> errors ||
        printf 'script-syntax\t%s\t%s\n' "${file#root/}" "$(tr '\n\t' '  ' < errors)" >> output/findings
      ;;
  esac
done < all 2> /dev/null

units=(root/usr/lib/systemd/system/*.*)
[ -e "${units[0]}" ] || exit 0
for unit in "${units[@]}"; do
  # Anything said is a finding: verify ends with 0 after most of its complaints.
  systemd-analyze verify --man=no --root="$PWD/root" "${unit#root}" > said 2>&1 || true
  grep -F -- "${unit##*/}" said > errors || true
  if [ -s errors ]; then
    printf 'unit\t%s\t%s\n' "${unit#root/}" "$(tr '\n\t' '  ' < errors)" >> output/findings
  fi
done
