"""What of somebody's guest is taken to the test host, and how it is told there where that is."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.smoke.cpio import File
from pipeline.smoke.guests.guest import OwnGuest, bridged
from pipeline.smoke.guests.suite import own
from pipeline.smoke.plan import MAX_DRIVES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Somebody's guests: a PV one with a kernel beside it, an HVM one with two disks."""
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"ramdisk")
    (tmp_path / "root.img").write_bytes(bytes(1 << 20))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", tmp_path / "data.qcow2", "1M"], check=True)
    (tmp_path / "pv.cfg").write_text(
        'name = "web"\nmemory = 300\nmaxmem = 400\nkernel = "vmlinuz"\nramdisk = "initrd"\n'
        'disk = ["root.img,raw,xvda,w"]\nvif = ["mac=00:16:3e:00:00:01,bridge=br0", ""]\n'
        'on_crash = "preserve"\non_poweroff = "preserve"\ncpus = "2-3"\n'
    )
    (tmp_path / "hvm.cfg").write_text(
        'name = "mail"\nbuilder = "hvm"\nkernel = "/usr/lib/xen/boot/hvmloader"\nmemory = 1024\n'
        'disk = [",hdc:cdrom,r", "root.img,raw,hda,w", "format=qcow2,vdev=hdb,target=data.qcow2"]\n'
        'serial = "pty"\nvnc = 1\n'
    )
    return tmp_path


def test_files_are_where_the_test_host_has_them(folder: Path) -> None:
    """If this fails, xl looks for a guest's kernel where only its owner has it."""
    guest = OwnGuest.read(folder / "pv.cfg")
    place = "/usr/lib/smoke/goods/guests/web"
    settings = guest.placed(["/dev/vde"], emulated=True).settings
    assert (settings["kernel"], settings["ramdisk"]) == (f"{place}/kernel", f"{place}/ramdisk")
    assert settings["disk"] == ["phy:/dev/vde,xvda,w"]
    assert settings["vif"] == ["mac=00:16:3e:00:00:01,bridge=xenbr0", "bridge=xenbr0"]
    # One that has crashed has to go, or nobody learns of it.
    assert settings["on_crash"] == "destroy"
    assert settings["on_poweroff"] == "destroy"
    assert "tsc_mode" not in settings
    # Processors that the test host has not.
    assert "cpus" not in settings
    assert guest.goods() == {"guests/web/kernel": File(b"kernel"), "guests/web/ramdisk": File(b"ramdisk")}


def test_an_hvm_guest_keeps_the_firmware_of_the_package(folder: Path) -> None:
    """If this fails, old configurations, which name hvmloader, are refused; or nobody hears the guest."""
    guest = OwnGuest.read(folder / "hvm.cfg")
    settings = guest.placed(["/dev/vde", "/dev/vdf"], emulated=True).settings
    assert settings["kernel"] == "/usr/lib/xen/boot/hvmloader"
    assert settings["disk"] == [",hdc:cdrom,r", "phy:/dev/vde,hda,w", "phy:/dev/vdf,hdb,w"]
    assert settings["serial"] == f"file:{guest.serial}"
    assert settings["tsc_mode"] == "native"
    assert "tsc_mode" not in guest.placed(["/dev/vde", "/dev/vdf"], emulated=False).settings


def test_what_a_guest_says_itself_is_left_alone(folder: Path) -> None:
    """If this fails, a guest that needs a tsc_mode, or arguments for pygrub, is tested without them."""
    with (folder / "hvm.cfg").open("a") as file:
        file.write("tsc_mode = 'always_emulate'\nbootloader = '/usr/bin/pygrub'\n")
    settings = OwnGuest.read(folder / "hvm.cfg").placed(["/dev/vde", "/dev/vdf"], emulated=True).settings
    assert settings["tsc_mode"] == "always_emulate"
    assert settings["bootloader_args"] == ["-q"]
    with (folder / "hvm.cfg").open("a") as file:
        file.write("bootloader_args = ['--entry=1']\n")
    settings = OwnGuest.read(folder / "hvm.cfg").placed(["/dev/vde", "/dev/vdf"], emulated=True).settings
    assert settings["bootloader_args"] == ["--entry=1"]


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        ("", "bridge=xenbr0"),
        ("mac=00:16:3e:00:00:01", "mac=00:16:3e:00:00:01,bridge=xenbr0"),
        ("bridge=br0, model=e1000, script=vif-openvswitch", "model=e1000,bridge=xenbr0"),
    ],
)
def test_cards_are_on_the_bridge_that_there_is(card: str, wanted: str) -> None:
    """If this fails, xl create fails because the test host has no bridge of that name."""
    assert bridged(card) == wanted


def test_a_suite_has_what_its_guests_need(folder: Path) -> None:
    """If this fails, a guest gets another one's disk, or more memory than the host has."""
    suite = own([folder / "hvm.cfg", folder / "pv.cfg"])
    assert [case.name for case in suite.guests] == ["mail", "web"]
    assert [(drive.image.name, drive.format) for drive in suite.drives] == [
        ("root.img", "raw"),
        ("data.qcow2", "qcow2"),
        ("root.img", "raw"),
    ]
    assert suite.memory > 1024 + 384
    # One alone does not need what the others lack.
    (folder / "data.qcow2").unlink()
    alone = own([folder / "hvm.cfg", folder / "pv.cfg"], only=["web"])
    assert [case.name for case in alone.guests] == ["web"]
    assert len(alone.drives) == 1


def test_what_cannot_be_started_is_told_before_anything_is(folder: Path) -> None:
    """If this fails, a missing kernel is found out by a boot of minutes, and is the package's fault."""
    wrong = {
        "kernel": 'name = "a"\nkernel = "absent"\n',
        "no name": 'memory = 1\nname = "a b"\n',
        "no number": 'name = "a"\nmemory = "x"\n',
        "disk .*absent": 'name = "a"\ndisk = ["absent,raw,xvda,w"]\n',
        "kernel .*~nobody": 'name = "a"\nkernel = "~nobody/x"\n',
        "ramdisk .*too long": f'name = "a"\nramdisk = "{"x" * 300}"\n',
        "kernel .*null byte": 'name = "a"\nkernel = "a\0b"\n',
        "kernel .*is no file": 'name = "a"\nkernel = "/dev/null"\n',
        "'pci'": 'name = "a"\npci = ["00:1f.7"]\n',
        "'vif'": 'name = "a"\nvif = "bridge=br0"\n',
        "'bootargs'": 'name = "a"\nbootloader = "pygrub"\nbootargs = ["-q"]\n',
        "more than this host has": 'name = "a"\nmemory = 999999999\n',
    }
    for match, text in wrong.items():
        (folder / "wrong.cfg").write_text(text)
        with pytest.raises(UsageError, match=match):
            own([folder / "wrong.cfg"])
    with pytest.raises(UsageError, match="Two guests"):
        own([folder / "pv.cfg", folder / "pv.cfg"])
    (folder / "wrong.cfg").write_text('name = "dom0-up"\n')
    with pytest.raises(UsageError, match="dom0-up"):
        own([folder / "wrong.cfg"])
    with pytest.raises(UsageError, match="no guest 'other'"):
        own([folder / "pv.cfg"], only=["other"])
    disks = ", ".join(f'"root.img,raw,xvd{chr(97 + n)},w"' for n in range(MAX_DRIVES + 1))
    (folder / "many.cfg").write_text(f'name = "many"\ndisk = [{disks}]\n')
    with pytest.raises(UsageError, match="21 disks"):
        own([folder / "many.cfg"])
