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
    '#!'*/bash* | '#!'*/sh | '#!'*/sh\ * | '#!'*/env\ bash* | '#!'*/env\ sh | '#!'*/env\ sh\ *)
      bash -n "$file" 2> errors ||
        printf 'script-syntax\t%s\t%s\n' "${file#root/}" "$(tr '\n\t' '  ' < errors)" >> output/findings
      ;;
  esac
done < all 2> /dev/null

# Drops complaints about commands that packages like coreutils have; this system has them too.
without_dependencies() {
  local line
  while IFS= read -r line; do
    if [[ $line =~ \ Command\ (/[^ ]+)\ is\ not\ executable ]] && [ -x "${BASH_REMATCH[1]}" ]; then
      continue
    fi
    printf '%s\n' "$line"
  done
}

units=(root/usr/lib/systemd/system/*.*)
[ -e "${units[0]}" ] || exit 0
# The units of systemd itself, which every service depends on; those of the packages stay.
cp -dR --no-clobber /usr/lib/systemd/system/. root/usr/lib/systemd/system/
canary=root/usr/lib/systemd/system/canary.service
printf '[Service]\nType=nonsense\nExecStart=/bin/true\n' > "$canary"
for unit in "$canary" "${units[@]}"; do
  # Anything said is a finding: verify ends with 0 after most of its complaints.
  systemd-analyze verify --man=no --root="$PWD/root" "/${unit#root/}" > said 2>&1 || true
  grep -F -- "${unit##*/}" said | without_dependencies > errors || true
  if [ "$unit" = "$canary" ]; then
    # Where this host's walls keep it from working, nothing that it says or does not say counts.
    grep -q nonsense errors || {
      cat said
      exit 1
    }
    rm "$canary"
  elif [ -s errors ]; then
    printf 'unit\t%s\t%s\n' "${unit#root/}" "$(tr '\n\t' '  ' < errors)" >> output/findings
  fi
done
