"""The package on a host that has no Xen yet: installed, and set up as the page says, up to the restart."""

from __future__ import annotations

import itertools
import re

from pipeline.smoke.case import Case, Host, Tier, end
from pipeline.smoke.errors import (
    CheckFailedError,
    InfrastructureError,
    NoMenuEntryError,
    UnitFailedError,
)

SERVICES = ("xenstored.service", "xenconsoled.service", "xendomains.service")
XEN_OPTIONS = "dom0_mem=512M,max:512M console=com1 com1=115200,8n1 loglvl=info guest_loglvl=info"
DOM0_OPTIONS = "console=hvc0 panic=5 systemd.show_status=1 quiet"
GUEST = "smoke-auto"
DISK = "/dev/vda"
_PACKAGES = "/dev/vdb"
_UEFI = "/boot/efi/EFI/BOOT"


async def up(host: Host) -> str:
    """The host is up, as it was before anybody thought of Xen."""
    await host.machine.wait_ready(host.limits.boot)
    state = await host.run("systemctl is-system-running --wait", host.limits.boot)
    if state.output.strip() != "running":
        failed = await host.run("systemctl --failed --plain --no-legend")
        raise CheckFailedError(f"The host is {state.output.strip()}.", hint=failed.output)
    return "running, without Xen"


async def packages(host: Host) -> str:
    """``pacman -U`` installs the packages."""
    # What they depend on is there under Debian's names, of which this pacman knows nothing.
    output = await host.succeed(
        "set -e; mkdir -p /root/packages; cd /root/packages\n"
        f"tar -xf {_PACKAGES}\n"
        "pacman --upgrade --noconfirm --noprogressbar $(cat assumed) *.pkg.tar*\n"
        "pacman --query --owns /boot/xen.gz",
        host.limits.xl * 2,
    )
    host.keep("pacman.log", output)
    await _alone(host)
    return "installed"


async def _alone(host: Host) -> None:
    """See that xl uses the package's libraries. Raises InfrastructureError."""
    used = "ldd /usr/bin/xl | sed -n 's/.*libxen.* => \\(.*\\) (.*/\\1/p'"
    owners = await host.run(
        f"{used} | xargs readlink --canonicalize | xargs pacman --query --owns", host.limits.xl
    )
    if owners.status != 0:
        raise InfrastructureError("The host has libraries of another Xen.", hint=end(owners.output))


async def unaltered(host: Host) -> str:
    """Every file of the packages is on the host as the packages have it."""
    output = (await host.run("pacman --query --check --check $(pacman -Qq) 2>&1", host.limits.xl)).output
    host.keep("pacman.log", output)
    altered = re.findall(r"^warning: \S+ /(.*) \((.*)\)$", output, re.MULTILINE)
    if altered or re.search(r"\b[1-9]\d* (altered|missing) file", output):
        path, how = altered[0] if altered else (None, "")
        raise CheckFailedError(f"pacman finds altered files: /{path} ({how}).", hint=end(output), file=path)
    return "pacman -Qkk finds nothing altered"


async def without_xen(host: Host) -> str:
    """Before Xen is started, ``xl list`` fails at once, and xen-doctor says why."""
    plain = await host.run("xl list", host.limits.xl)
    doctor = await host.run("xen-doctor", host.limits.xl)
    host.keep("xen-doctor.log", f"{plain.output}\n{doctor.output}")
    if plain.status == 0:
        raise CheckFailedError("xl list succeeds without Xen.", hint=end(plain.output), file="usr/bin/xl")
    # 127: packages that were built elsewhere may have none.
    if doctor.status != 127 and (doctor.status != 1 or "started without Xen" not in doctor.output):
        raise CheckFailedError(
            "xen-doctor does not see that Xen is missing.", hint=end(doctor.output), file="usr/bin/xen-doctor"
        )
    return plain.output.strip().splitlines()[0]


async def enabled(host: Host) -> str:
    """``systemctl enable`` takes the services of the page."""
    units = " ".join(SERVICES)
    # One at a time would reload systemd's units each time.
    output = (
        await host.run(f"systemctl enable {units}; systemctl is-enabled {units}", host.limits.xl)
    ).output
    host.keep("systemctl.log", output)
    states = output.strip().splitlines()[-len(SERVICES) :]
    for unit, state in itertools.zip_longest(SERVICES, states, fillvalue="unknown"):
        if state != "enabled":
            raise UnitFailedError(
                f"systemctl enable leaves {unit} {state}.",
                hint=end(output),
                file=f"usr/lib/systemd/system/{unit}",
            )
    return f"{', '.join(SERVICES)} enabled"


async def menu(host: Host) -> str:
    """``grub-mkconfig`` makes an entry that starts Xen, by the package's 09_xen."""
    await host.succeed(f"grub-install {DISK}", host.limits.xl)
    made = await host.run(
        f"sed -i 's/^XEN_CMDLINE=.*/XEN_CMDLINE=\"{XEN_OPTIONS}\"/' /etc/xen/grub.conf\n"
        "grub-mkconfig -o /boot/grub/grub.cfg",
        host.limits.xl,
    )
    part = "sed -n '/BEGIN .*09_xen/,/END .*09_xen/p' /boot/grub/grub.cfg"
    menu = (await host.run(part)).output
    host.keep("grub-mkconfig.log", made.output)
    host.keep("grub.cfg", menu)
    if made.status != 0:
        raise NoMenuEntryError(f"grub-mkconfig ended with exit status {made.status}.", hint=end(made.output))
    loads = re.findall(r"^\s*(multiboot2?|module2?) (?:--\S+ )?(\S+)", menu, re.MULTILINE)
    if not any(kind.startswith("multiboot") and path.endswith("/xen.gz") for kind, path in loads):
        raise NoMenuEntryError(
            "09_xen has put nothing into GRUB's menu that loads Xen.", hint=end(made.output + menu)
        )
    if not any(path.endswith("/vmlinuz-linux") for _, path in loads):
        raise NoMenuEntryError("GRUB's entry for Xen has no kernel of dom0.", hint=end(menu))
    return f"{loads[0][0]} /boot/xen.gz, {len(loads) - 1} modules"


async def uefi(host: Host) -> str:
    """xen.efi and its configuration go to the system partition, with dom0's kernel and initramfs."""
    await host.succeed(
        "set -e; mount /boot/efi\n"
        f"mkdir -p {_UEFI}\n"
        f"cp /usr/lib/xen/efi/xen.efi {_UEFI}/BOOTX64.EFI\n"
        f"cp /boot/vmlinuz-linux /boot/initramfs-linux.img {_UEFI}/\n"
        "root=$(findmnt -n -o UUID /)\n"
        f"cat > {_UEFI}/BOOTX64.cfg <<END\n"
        f"[global]\ndefault=arch\n[arch]\noptions={XEN_OPTIONS}\n"
        f"kernel=vmlinuz-linux root=UUID=$root rw {DOM0_OPTIONS}\nramdisk=initramfs-linux.img\nEND\n"
        "umount /boot/efi",
        host.limits.xl,
    )
    return "BOOTX64.EFI is the package's xen.efi"


async def set_up(host: Host) -> str:
    """A bridge for the guests, a guest that starts with the host, and a log of the guests' consoles."""
    output = await host.succeed(
        "set -e; from=/usr/share/doc/xen/examples/network\n"
        "[ -d $from ] || from=/usr/lib/smoke/network\n"
        "cp $from/* /etc/systemd/network/\n"
        f"ln -s /usr/lib/smoke/guest/auto.xl /etc/xen/auto/{GUEST}.cfg\n"
        "echo XENCONSOLED_LOG=guest >> /etc/conf.d/xenconsoled\n"
        "echo $from"
    )
    return f"xenbr0 by the files of {output.strip()}; {GUEST} linked into /etc/xen/auto"


async def restart(host: Host) -> str:
    """The host restarts: the machine resets, as a real one would."""
    await host.succeed("(sleep 0.5; systemctl reboot) >/dev/null 2>&1 &")
    left = await host.machine.wait_exit(host.limits.power_off)
    if left.status != 0 or left.reason != "guest-reset":
        raise CheckFailedError(f"QEMU ended with return code {left.status}, reason {left.reason}.")
    return "shut down, and reset"


CASES = (
    Case("plain-host", "a host with systemd is up, without Xen", up, Tier.FULL, vital=True),
    Case("pacman", "pacman -U installs the packages", packages, Tier.FULL, vital=True),
    Case("pacman-check", "pacman finds every file as it should be", unaltered, Tier.FULL),
    Case("without-xen", "without Xen, xl list says so and xen-doctor why", without_xen, Tier.FULL),
    Case("enable", "systemctl enable takes the services", enabled, Tier.FULL, vital=True),
    Case("grub-menu", "grub-mkconfig makes an entry for Xen", menu, Tier.FULL, vital=True),
    Case("uefi-files", "xen.efi goes to the system partition", uefi, Tier.FULL, vital=True),
    Case("set-up", "bridge, autostart and consoles are set up", set_up, Tier.FULL, vital=True),
    Case("restart", "the host restarts", restart, Tier.FULL, vital=True),
)
"""In order, on one machine; the last one ends it."""
