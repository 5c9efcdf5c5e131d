"""Make disk images: a file system of a tree, and a disk with one partition.

The file system is ext4 as mke2fs(8) makes it; the partition table an MBR (UEFI specification, 5.2.1).
"""

from __future__ import annotations

import struct
from pathlib import Path

from pipeline.run import run
from pipeline.scratch import scratch
from pipeline.smoke.cpio import Directory, File, Symlink, Tree

SECTOR = 512
PARTITION_START = 2048
"""The first sector of a disk's partition: a megabyte, as every partitioning tool aligns it."""
_LINUX = 0x83
_UUID = "5f0c7a4e-0000-4000-8000-78656e736d6b"


def write_ext4(tree: Tree, image: Path, *, spare: int, offset: int = 0) -> None:
    """Write a file system with a tree in it to ``image``, from byte ``offset`` on.

    ``spare`` is the room in bytes beyond the content. Device nodes are not taken. Raises CommandError or
    ToolMissingError.
    """
    content = sum(len(entry.data) + 4096 for entry in tree.values() if isinstance(entry, File))
    blocks = (content * 106 // 100 + spare) // 4096 + 256
    with scratch(image.parent, "tree") as folder:
        _lay_out(tree, folder)
        with image.open("ab") as file:
            file.truncate(offset + blocks * 4096)
        features = ["-O", "^has_journal,^resize_inode,^64bit", "-m", "0", "-U", _UUID, "-b", "4096"]
        where = ["-E", f"offset={offset},root_owner=0:0,hash_seed={_UUID},nodiscard"]
        run(["mke2fs", "-q", "-F", "-t", "ext4", *features, *where, "-d", folder, image, str(blocks)])


def write_disk(tree: Tree, image: Path, *, spare: int) -> None:
    """Write a disk with a partition table, and a file system with a tree in its one partition."""
    start = PARTITION_START * SECTOR
    write_ext4(tree, image, spare=spare, offset=start)
    sectors = (image.stat().st_size - start) // SECTOR
    # Status, no CHS address, type, no CHS address, first sector, sectors.
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", _LINUX, b"\xfe\xff\xff", PARTITION_START, sectors)
    with image.open("r+b") as file:
        file.seek(440)
        file.write(b"XENS\0\0" + entry + bytes(48) + b"\x55\xaa")


def _lay_out(tree: Tree, folder: Path) -> None:
    for path, entry in sorted(tree.items()):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, File):
            target.write_bytes(entry.data)
            target.chmod(entry.mode)
        elif isinstance(entry, Symlink):
            target.symlink_to(entry.target)
        elif isinstance(entry, Directory):
            target.mkdir(exist_ok=True)
            target.chmod(entry.mode)
