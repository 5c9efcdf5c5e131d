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
        (
            "/a,raw,xvda,w,discard,backendtype=qdisk",
            Disk(Path("/a"), "xvda", flags=("discard", "backendtype=qdisk")),
        ),
        ("trusted, vdev=xvda, target=/a,", Disk(Path("/a"), "xvda", flags=("trusted",))),
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
    moved = Path("/dev/vde") if disk.target else None
    placed = Disk.parse(disk.at(str(moved) if moved else None), HOME)
    assert placed == Disk(moved, disk.vdev, "raw", disk.cdrom, disk.writable, disk.flags)


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
        # What xl refuses too.
        "/a.img,raw,xvda,w,readonly=1",
        "/a.img,raw,xvda,w,devtype=floppy",
        "/a.img,raw,xvda:floppy,w",
        "/a.img,raw ,xvda,w",
        "/a.img,raw,xvda,w ",
        "/a=b.img,raw,xvda,w",
        "format=raw,format=qcow2,vdev=xvda,target=/a.img",
        "vdev=xvda,vdev=xvdb,target=/a.img",
        "raw:qcow2:/a.img,xvda,w",
        "backend=other,vdev=xvda,target=/a.img",
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
    with pytest.raises(UsageError, match="needs another image"):
        Disk(over, "xvda", "qcow2").check()
    beside = tmp_path / "beside"
    data = f"data_file={tmp_path / 'data'}"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-o", data, beside, "1M"], check=True)
    with pytest.raises(UsageError, match="needs another image"):
        Disk(beside, "xvda", "qcow2").check()


def test_an_image_that_somebody_writes_to_is_not_taken(tmp_path: Path) -> None:
    """If this fails, a guest is tested on a disk that changes under it, and the package is blamed."""
    image = tmp_path / "image"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "1M"], check=True)
    writer = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        writer.stdin.write("write 0 512\n")
        writer.stdin.flush()
        writer.stdout.readline()
        with pytest.raises(UsageError, match="in use"):
            Disk(image, "xvda", "qcow2").check()
    finally:
        writer.communicate("quit\n")
    Disk(image, "xvda", "qcow2").check()
