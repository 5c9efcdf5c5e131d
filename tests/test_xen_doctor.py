"""xen-doctor, run on hosts that are laid out here, one mistake each.

`xl` and `systemctl` have stand-ins; the smoke tests run it beside the real ones.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "package" / "xen-doctor"
XL = """#!/bin/sh
case $1 in
list) [ ! -e "$HOST/xl-fails" ] || { echo 'libxl: error: cannot open libxc handle' >&2; exit 1; }
    printf 'Name ID\\nDomain-0 0\\n'; cat "$HOST/guests" 2> /dev/null ;;
info) echo "virt_caps : $(cat "$HOST/caps")" ;;
esac
exit 0
"""
SYSTEMCTL = """#!/bin/sh
[ "$1" != --quiet ] || shift
case $1 in
is-enabled) ! grep -qx "$2" "$HOST/disabled" ;;
is-active) ! grep -qx "$2" "$HOST/dead" || { echo failed; exit 3; } ;;
esac
"""
TOOLS = ("awk", "cat", "grep", "gzip", "ls", "sed", "sh", "tail", "timeout", "tr", "xz", "zstd")


@dataclass
class Host:
    """A sound host of Xen, below a folder."""

    root: Path

    def __post_init__(self) -> None:
        for path, text in {
            "sys/hypervisor/type": "xen\n",
            "proc/xen/capabilities": "control_d\n",
            "proc/filesystems": "nodev\txenfs\n",
            "proc/cpuinfo": "flags : fpu svm\n",
            "boot/grub/grub.cfg": "multiboot2 /boot/xen.gz placeholder\n",
            "sys/class/net/xenbr0/operstate": "up\n",
            "host/caps": "pv hvm hap\n",
            "host/disabled": "",
            "host/dead": "",
        }.items():
            self.write(path, text)
        for path in (
            *("dev/xen/evtchn", "dev/xen/privcmd", "dev/xen/gntdev"),
            *("sys/bus/xen-backend/drivers/vbd", "sys/bus/xen-backend/drivers/vif"),
            *("sys/class/net/xenbr0/bridge", "etc/xen/auto", "run/systemd/system"),
        ):
            (self.root / path).mkdir(parents=True)
        # Not what else this machine has: a qemu, say.
        for name in TOOLS:
            if found := shutil.which(name):
                (self.root / "bin").mkdir(exist_ok=True)
                (self.root / "bin" / name).symlink_to(found)
        for name, text in (("xl", XL), ("systemctl", SYSTEMCTL)):
            self.write(f"bin/{name}", text)
            (self.root / "bin" / name).chmod(0o755)

    def write(self, path: str, text: str | bytes) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    def remove(self, path: str) -> None:
        file = self.root / path
        file.rmdir() if file.is_dir() else file.unlink()

    def run(self, *arguments: str | Path) -> tuple[int, list[str]]:
        """Return the exit status and the findings."""
        environment = {
            "PATH": f"{self.root}/bin",
            "HOST": str(self.root / "host"),
            "XEN_DOCTOR_ROOT": str(self.root),
        }
        done = subprocess.run(
            ["/bin/sh", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stderr == "" or done.returncode == 2, done.stderr
        return done.returncode, done.stdout.splitlines()

    def finds(self, *arguments: str | Path) -> str:
        """Return the one problem that there must be."""
        status, lines = self.run(*arguments)
        assert status == 1
        problems = [line for line in lines if line.startswith("problem: ")]
        assert len(problems) == 1, lines
        return problems[0]

    def guest(self, **settings: str) -> Path:
        """Write a guest's configuration, and the files that a sound one names."""
        self.write("boot/guest", "")
        self.write("boot/initramfs", gzip.compress(b"kernel/drivers/block/xen-blkfront.ko"))
        self.write("var/disk", "")
        usual = {
            "kernel": '"/boot/guest"',
            "ramdisk": '"/boot/initramfs"',
            "disk": '["file:/var/disk,xvda,w"]',
        }
        lines = [f"{name} = {value}\n" for name, value in {**usual, **settings}.items()]
        return self.write("guest.cfg", "".join(lines))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_sound_host(host: Host) -> None:
    """False alarms teach people to look away."""
    assert host.run() == (0, ["nothing is wrong"])
    assert host.run(host.guest()) == (0, ["nothing is wrong"])


def test_started_without_xen(host: Host) -> None:
    """The wiki's first common error: `xl list` complains, because the wrong entry was chosen."""
    host.remove("sys/hypervisor/type")
    found = host.finds()
    assert "started without Xen" in found
    assert "choose the entry with Xen" in found
    host.write("boot/grub/grub.cfg", "linux /boot/vmlinuz-linux\n")
    assert "grub-mkconfig -o /boot/grub/grub.cfg" in host.finds()


def test_services_are_looked_at_without_xen_too(host: Host) -> None:
    """Otherwise the host would have to be restarted twice."""
    host.remove("sys/hypervisor/type")
    host.write("host/disabled", "xendomains.service\n")
    _, lines = host.run()
    assert any("xendomains.service does not start with the host" in line for line in lines)
    assert not any("is enabled, but" in line for line in lines)


def test_in_a_guest(host: Host) -> None:
    """xl in a guest fails with messages of libxl that do not say so."""
    host.write("proc/xen/capabilities", "\n")
    assert "this is a guest" in host.finds()


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ("proc/xen/capabilities", "systemctl start proc-xen.mount"),
        ("dev/xen/evtchn", "modprobe xen-evtchn"),
        ("dev/xen/privcmd", "modprobe xen-privcmd"),
        ("dev/xen/gntdev", "modprobe xen-gntdev"),
        (
            "sys/bus/xen-backend/drivers/vbd",
            "disks, because the driver xen-blkback is not loaded: modprobe xen-blkback",
        ),
        ("sys/bus/xen-backend/drivers/vif", "network cards, because the driver xen-netback"),
        ("sys/class/net/xenbr0/bridge", "no bridge xenbr0"),
    ],
)
def test_what_is_missing(host: Host, gone: str, expected: str) -> None:
    """libxl names the call that failed, not the module or the mount that is missing."""
    host.remove(gone)
    assert expected in host.finds()


def test_the_bridge_of_xl_conf(host: Host) -> None:
    """One whose bridge has another name is not told to make xenbr0."""
    host.write("etc/xen/xl.conf", '#vif.default.bridge="no"\nvif.default.bridge="br9"\n')
    assert "no bridge br9" in host.finds()


@pytest.mark.parametrize("unit", ["xenstored", "xenconsoled", "xendomains"])
def test_services(host: Host, unit: str) -> None:
    """A service that was started by hand is gone after the next start of the host."""
    host.write("host/disabled", f"{unit}.service\n")
    assert f"systemctl enable --now {unit}.service" in host.finds()
    host.write("host/disabled", "")
    host.write("host/dead", f"{unit}.service\n")
    found = host.finds()
    assert f"{unit}.service is enabled, but failed" in found
    assert f"journalctl -b -u {unit}.service" in found


def test_daemons_without_systemd(host: Host) -> None:
    """The daemons count, whatever starts them."""
    host.remove("run/systemd/system")
    _, lines = host.run()
    assert len(lines) == 2
    host.write("proc/17/comm", "oxenstored\n")
    host.write("proc/18/comm", "xenconsoled\n")
    assert host.run()[0] == 0


def test_xl_fails_for_another_reason(host: Host) -> None:
    """What this program does not know must not be called sound."""
    host.write("host/xl-fails", "")
    assert "xl list fails (libxl: error: cannot open libxc handle)" in host.finds()


def test_rules_of_xend(host: Host) -> None:
    """The wiki's fourth common error: udev fails to execute the socket of xend."""
    rule = 'SUBSYSTEM=="pci", RUN+="socket:/org/xen/xend/udev_event"\n'
    host.write("etc/udev/rules.d/xend.rules", rule)
    assert "rm /etc/udev/rules.d/xend.rules" in host.finds()


def test_hvm(host: Host) -> None:
    """A processor without vmx and svm is no mistake, unless a guest needs them."""
    host.write("host/caps", "pv\n")
    status, lines = host.run()
    assert status == 0
    assert lines[0].startswith("note: this processor cannot run HVM guests")
    host.write("bin/qemu-system-i386", "").chmod(0o755)
    assert "is an HVM guest, and this host can run none" in host.finds(host.guest(type='"hvm"'))
    host.write("host/caps", "hvm\n")
    assert host.run(host.guest(builder='"hvm"'))[0] == 0


def test_hvm_without_qemu(host: Host) -> None:
    """libxl says that it could not start a device model, but not which package has it."""
    assert "qemu-system-i386" in host.finds(host.guest(type='"hvm"'))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"kernel": '"/mnt/arch/vmlinuz"'}, "there is no /mnt/arch/vmlinuz, which it names as kernel"),
        ({"ramdisk": "'/mnt/archiso.img'"}, "there is no /mnt/archiso.img, which it names as ramdisk"),
        (
            {"initrd": '"/boot/initramfs"'},
            "does not know 'initrd', and starts the guest without it: call it ramdisk",
        ),
        ({"disk": '[ "phy:/dev/vg/none,xvda,w" ]'}, "there is no disk /dev/vg/none"),
        (
            {"disk": "[ 'format=raw, vdev=xvda, access=rw,\n  target=/var/none' ]"},
            "there is no disk /var/none",
        ),
        ({"disk": '[ "file:/var/disk,xvda,w",\n  "/var/none,raw,xvdb,w" ]'}, "there is no disk /var/none"),
        ({"vif": "[ 'mac=00:16:3e:00:00:01,bridge=xenbr7' ]"}, "there is no bridge xenbr7"),
    ],
)
def test_configurations_of_guests(host: Host, settings: dict[str, str], expected: str) -> None:
    """The wiki's second common error: `xl create` fails, for a path or for a word."""
    assert expected in host.finds(host.guest(**settings))


def test_configurations_are_found(host: Host) -> None:
    """Guests that start with the host are looked at without being named; links to nothing too."""
    link = host.root / "etc/xen/auto/guest"
    link.symlink_to(host.guest(kernel='"/none"'))
    assert "/none" in host.finds()
    host.remove("guest.cfg")
    assert "link to nothing" in host.finds()


def test_an_initramfs_without_a_driver(host: Host) -> None:
    """The wiki's third common error, before the guest is started."""
    config = host.guest()
    host.write("boot/initramfs", gzip.compress(b"kernel/drivers/ata/ahci.ko"))
    status, lines = host.run(config)
    assert status == 0
    assert "no xen-blkfront" in lines[0]
    assert "mkinitcpio -p linux" in lines[0]


def test_a_guest_at_a_prompt(host: Host) -> None:
    """The wiki's third common error: the guest waits for ctrl-d, and nobody sees it."""
    host.write("host/guests", "arch 3\n")
    host.write("var/log/xen/console/guest-arch.log", "Give root password, or press Control-D to continue\n")
    found = host.finds()
    assert "guest arch has not found its root file system" in found
    assert "xl console arch" in found


def test_wrong_use(host: Host) -> None:
    """An option that it does not have must not look like a sound host."""
    assert host.run("--fix")[0] == 2
    assert host.run("--help")[0] == 0
