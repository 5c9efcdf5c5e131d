"""The page's common errors, made on purpose: what the user sees, and what xen-doctor says about it."""

from __future__ import annotations

from pipeline.smoke.case import Case, Host, end
from pipeline.smoke.errors import CheckFailedError, NotApplicableError
from pipeline.smoke.guest import Guest

_DOCTOR = "usr/bin/xen-doctor"


async def diagnose(host: Host, *expected: str, config: str = "") -> str:
    """Run xen-doctor, on a guest's configuration too, and return its line with the first of the words.

    Raises CheckFailedError where one of them is not in a problem that it tells of.
    """
    reply = await host.run(f"xen-doctor {config}", host.limits.xl)
    host.keep("xen-doctor.log", host.logs.get("xen-doctor.log", "") + reply.output)
    problems = [line for line in reply.output.splitlines() if line.startswith("problem: ")]
    for words in expected:
        if reply.status != 1 or not any(words in line for line in problems):
            raise CheckFailedError(
                f"xen-doctor does not say {words!r} (exit status {reply.status}).",
                hint=end(reply.output),
                file=_DOCTOR,
            )
    return next(line for line in problems if expected[0] in line)


async def _fails(host: Host, command: str) -> str:
    reply = await host.run(command, host.limits.xl)
    if reply.status == 0:
        raise CheckFailedError(f"`{command}` succeeds, although it cannot.", hint=end(reply.output))
    return reply.output


async def needs_doctor(host: Host) -> None:
    """Raise NotApplicableError for a package without xen-doctor: one that was built elsewhere, perhaps."""
    if (await host.run("command -v xen-doctor")).status != 0:
        raise NotApplicableError("The package has no xen-doctor.")


async def in_dom0(host: Host) -> str:
    """``xl list`` without a driver; xenfs not mounted; no bridge; rules of xend: each has a remedy."""
    await needs_doctor(host)
    sound = await host.run("xen-doctor", host.limits.xl)
    if "/dev/xen" in sound.output or "xenfs" in sound.output or "xl list" in sound.output:
        raise CheckFailedError(
            "xen-doctor finds faults where none are.", hint=end(sound.output), file=_DOCTOR
        )
    await host.succeed(
        "mkdir -p /run/faults /etc/udev/rules.d; umount -l /proc/xen; ip link del xenbr0\n"
        "mv /dev/xen/privcmd /run/faults/\n"
        "echo 'RUN+=\"socket:/org/xen/xend/udev_event\"' > /etc/udev/rules.d/xend.rules"
    )
    host.keep("xl.log", await _fails(host, "xl list"))
    await diagnose(
        host,
        "modprobe xen-privcmd",
        "xenfs is not mounted on /proc/xen",
        "there is no bridge xenbr0",
        "rm /etc/udev/rules.d/xend.rules",
    )
    return "no driver, no xenfs, no bridge, rules of xend"


async def in_configurations(host: Host) -> str:
    """``xl create`` with a kernel that is not there, and with initrd in the place of ramdisk."""
    await needs_doctor(host)
    guest = Guest.linux("smoke-initrd", "smoke=off")
    await guest.write(host)
    await host.succeed(
        "mkdir -p /run/faults; cd /run/faults\n"
        'echo \'name = "a"\nkernel = "/mnt/arch/boot/x86_64/vmlinuz"\' > no-kernel.cfg\n'
        f"sed 's/^ramdisk/initrd/' {guest.file} > initrd.cfg; grep -q initrd initrd.cfg"
    )
    host.keep("xl.log", await _fails(host, "xl create /run/faults/no-kernel.cfg"))
    await diagnose(host, "there is no /mnt/arch/boot/x86_64/vmlinuz", config="/run/faults/no-kernel.cfg")
    # xl takes the setting without a word.
    await host.succeed("xl create -n /run/faults/initrd.cfg", host.limits.xl)
    await diagnose(host, "call it ramdisk", config="/run/faults/initrd.cfg")
    return "a missing kernel, and initrd for ramdisk"


async def on_a_host(host: Host) -> str:
    """udev fails to execute a rule of xend, a service does not start with the host, another has died."""
    await needs_doctor(host)
    output = await host.succeed(
        'echo \'SUBSYSTEM=="net", RUN+="socket:/org/xen/xend/udev_event"\' > /etc/udev/rules.d/xend.rules\n'
        "udevadm control --reload; udevadm trigger --action=change /sys/class/net/lo; udevadm settle\n"
        "systemctl --quiet disable xendomains.service; systemctl stop xenconsoled.service\n"
        "journalctl --boot --no-pager --quiet --unit systemd-udevd.service | grep udev_event",
        host.limits.xl,
    )
    host.keep("udev.log", output)
    await diagnose(
        host,
        "rm /etc/udev/rules.d/xend.rules",
        "systemctl enable --now xendomains.service",
        "xenconsoled.service is enabled, but inactive",
    )
    await host.succeed(
        "rm /etc/udev/rules.d/xend.rules; udevadm control --reload\n"
        "systemctl --quiet enable xendomains.service; systemctl start xenconsoled.service",
        host.limits.xl,
    )
    return "each diagnosed, with its remedy"


async def at_the_prompt(host: Host) -> str:
    """A guest without xen-blkfront waits for ctrl-d, and xen-doctor says what it lacks."""
    await needs_doctor(host)
    console = "/var/log/xen/console/guest-smoke-stuck.log"
    output = await host.succeed(
        "set -e; truncate -s 1M /var/lib/smoke-stuck.img; xl create /usr/lib/smoke/guest/stuck.xl\n"
        f"for i in $(seq 60); do ! grep -qs Control-D {console} || break; sleep 1; done; cat {console}",
        host.limits.xl,
        waits=True,
    )
    host.keep("console.log", output)
    if "Control-D" not in output:
        raise CheckFailedError("The guest has not come to the prompt of its initramfs.", hint=end(output))
    found = await diagnose(host, "lacks xen-blkfront")
    await host.succeed("xl destroy smoke-stuck", host.limits.xl)
    return found.removeprefix("problem: ").partition(":")[0]


CASES = (
    Case("errors-dom0", "what is wrong in dom0 is diagnosed", in_dom0),
    Case("errors-configuration", "what is wrong in a guest's configuration is diagnosed", in_configurations),
)
