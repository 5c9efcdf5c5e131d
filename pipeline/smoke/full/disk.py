"""Make the host's disk: a partition table, a system partition for UEFI, and the root file system."""

from __future__ import annotations

from pathlib import Path

from pipeline.smoke.full.root import ROOT_UUID, Root

SIZE = 800 << 20
"""Bytes; most of them are never written, and take no room on this host."""
ESP_START, ESP_SECTORS = 2048, 65536
ROOT_START = ESP_START + ESP_SECTORS
_SECTOR = 512
# An MBR, which both firmwares start from. GRUB's core goes between it and the first partition.
_TABLE = f"""label: dos
label-id: 0x786e736d
start={ESP_START}, size={ESP_SECTORS}, type=ef
start={ROOT_START}, type=83, bootable
"""


def write_disk(root: Root, image: Path) -> None:
    """Write the disk of a root file system, with the tools of that root, to ``image`` beside it.

    Raises CommandError.
    """
    image.write_bytes(b"")
    with image.open("r+b") as file:
        file.truncate(SIZE)
    binds = {"/mnt": image.parent}
    (image.parent / "table").write_text(_TABLE)
    disk = f"/mnt/{image.name}"
    root.run("sh", "-c", f"sfdisk --quiet {disk} < /mnt/table", binds=binds)
    kilobytes = str(ESP_SECTORS * _SECTOR >> 10)
    where = ("-F", "16", "-i", "00000002", "--offset", str(ESP_START))
    root.run("mkfs.vfat", *where, disk, kilobytes, binds=binds)
    offset = ROOT_START * _SECTOR
    features = ("-O", "^has_journal,^resize_inode", "-m", "0", "-L", "root", "-U", ROOT_UUID)
    extended = ("-E", f"offset={offset},root_owner=0:0,hash_seed={ROOT_UUID},nodiscard")
    blocks = f"{SIZE - offset >> 10}k"
    content = ("-d", f"/mnt/{root.path.name}")
    root.run("mke2fs", "-q", "-F", "-t", "ext4", *features, *extended, *content, disk, blocks, binds=binds)
