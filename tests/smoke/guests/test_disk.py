"""What a guest's disks are, by xl-disk-configuration(5), and what QEMU says of their images."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.smoke.guests.disk import Disk

HOME = Path("/home")


@pytest.mark.parametrize(
    ("text", "disk"),
    [
        ("/a.img,raw,xvda,rw", Disk(Path("/a.img"), "xvda")),
        ("/a.img,,xvda", Disk(Path("/a.img"), "xvda")),
        ("a.img, qcow2, xvdb, ro", Disk(Path("/home/a.img"), "xvdb", "qcow2", writable=False)),
        ("format=qcow2, vdev=hda, access=rw, target=/a,b", Disk(Path("/a,b"), "hda", "qcow2")),
        ("vdev=xvda,format=vhd,/a.vhd", Disk(Path("/a.vhd"), "xvda", "vhd")),
        ("/a,raw,xvda,w,discard,backendtype=qdisk", Disk(Path("/a"), "xvda")),
        ("phy:/dev/vg/lv,xvda,w", Disk(Path("/dev/vg/lv"), "xvda")),
        ("phy:vg/lv,xvda,r", Disk(Path("/dev/vg/lv"), "xvda", writable=False)),
        ("file:/a.img,hda,w", Disk(Path("/a.img"), "hda")),
        ("tap:qcow2:/a.img,hda,w", Disk(Path("/a.img"), "hda", "qcow2")),
        ("tap:aio:/a.img,hda,w", Disk(Path("/a.img"), "hda")),
        ("file:/cd.iso,hdc:cdrom,r", Disk(Path("/cd.iso"), "hdc", cdrom=True, writable=False)),
        ("/cd.iso,,hdc,cdrom", Disk(Path("/cd.iso"), "hdc", cdrom=True, writable=False)),
        ("vdev=hdc, devtype=cdrom, target=/cd.iso", Disk(Path("/cd.iso"), "hdc", cdrom=True, writable=False)),
        (",hdc:cdrom,r", Disk(None, "hdc", cdrom=True, writable=False)),
        (",empty,hdc,cdrom", Disk(None, "hdc", cdrom=True, writable=False)),
    ],
)
def test_what_a_specification_says(text: str, disk: Disk) -> None:
    """If this fails, a guest gets another disk than its own, or its own in another place."""
    assert Disk.parse(text, HOME) == disk
    # What xl on the test host gets says the same of another image.
    placed = Disk.parse(disk.at("/dev/vde"), HOME)
    moved = Path("/dev/vde") if disk.target else None
    assert placed == Disk(moved, disk.vdev, "raw", disk.cdrom, disk.writable)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/a.img",
        "/a.img,xvda,w",
        "/a.img,raw,xvda,x",
        "/a.img,raw,xvda,w,more",
        ",raw,xvda,w",
        "iscsi:iqn.x,xvda,w",
        "nbd:1.2.3.4,xvda,w",
        "vdev=xvda,script=block-drbd,target=r0",
        "specification=virtio,vdev=xvda,target=/a.img",
    ],
)
def test_what_is_no_image_is_told(text: str) -> None:
    """If this fails, a guest is started without its disk, and looks broken."""
    with pytest.raises(UsageError, match="disk"):
        Disk.parse(text, HOME)


@given(st.text(alphabet="a:/=,.x rw", max_size=24) | st.text(max_size=24))
def test_any_specification_is_read_or_refused(text: str) -> None:
    """If this fails, a typing error in a configuration ends in a traceback."""
    try:
        disk = Disk.parse(text, HOME)
    except UsageError:
        return
    assert disk.vdev
    assert disk.target or disk.cdrom


def test_an_image_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    """If this fails, a damaged image, or one without what it lies over, is the package's fault."""
    raw, cow, over = tmp_path / "raw", tmp_path / "cow", tmp_path / "over"
    raw.write_bytes(bytes(1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, cow], check=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", "cow", "-F", "qcow2", over], check=True)
    Disk(raw, "xvda").check()
    Disk(cow, "xvda", "qcow2").check()
    with pytest.raises(UsageError, match="no image in the format qcow2"):
        Disk(raw, "xvda", "qcow2").check()
    with pytest.raises(UsageError, match="lies over another image"):
        Disk(over, "xvda", "qcow2").check()
    for absent in (tmp_path / "absent", tmp_path):
        with pytest.raises(UsageError, match="no image"):
            Disk(absent, "xvda").check()
