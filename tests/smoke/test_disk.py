"""Disk images as other tools read them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline.smoke.cpio import Directory, File, Symlink, Tree
from pipeline.smoke.disk import PARTITION_START, SECTOR, write_disk, write_ext4
from pipeline.smoke.prepare import drive

TREE: Tree = {
    "boot/grub/grub.cfg": File(b"set timeout=0\n"),
    "bin/tool": File(b"\x7fELF" * 3000, 0o755),
    "bin/link": Symlink("tool"),
    "empty": Directory(),
}


def debugfs(image: Path, command: str) -> str:
    run = subprocess.run(["debugfs", "-R", command, image], check=True, capture_output=True, text=True)
    return run.stdout


def test_a_file_system_holds_its_tree(tmp_path: Path) -> None:
    """If this fails, guests and tools are missing on the test host's drive."""
    image = tmp_path / "image"
    write_ext4(TREE, image, spare=1 << 20)
    assert debugfs(image, "cat /boot/grub/grub.cfg") == "set timeout=0\n"
    assert "Size: 12000" in debugfs(image, "stat /bin/tool")
    assert "0755" in debugfs(image, "stat /bin/tool")
    assert 'Fast link dest: "tool"' in debugfs(image, "stat /bin/link")
    assert "Type: directory" in debugfs(image, "stat /empty")
    subprocess.run(["e2fsck", "-f", "-n", image], check=True, capture_output=True)
    assert list(tmp_path.iterdir()) == [image]


def test_a_disk_has_one_partition_that_holds_it(tmp_path: Path) -> None:
    """If this fails, pygrub finds no partition, and a good package looks broken."""
    image = tmp_path / "disk"
    write_disk(TREE, image, spare=1 << 20)
    shown: list[str | Path] = ["partx", "--show", "--noheadings", "--output", "NR,START,TYPE,FLAGS", image]
    table = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    assert table.split() == ["1", str(PARTITION_START), "0x83", "0x80"]
    part = tmp_path / "part"
    part.write_bytes(image.read_bytes()[PARTITION_START * SECTOR :])
    assert debugfs(part, "cat /boot/grub/grub.cfg") == "set timeout=0\n"


def test_a_drive_is_made_once_and_a_damaged_one_anew(tmp_path: Path) -> None:
    """If this fails, cases run on a damaged disk, or each run makes it again."""
    first = drive(TREE, tmp_path, write_ext4)
    good, made = first.read_bytes(), first.stat().st_ino
    assert drive(TREE, tmp_path, write_ext4).stat().st_ino == made
    with first.open("r+b") as file:
        file.seek(9000)
        file.write(b"X")
    again = drive(TREE, tmp_path, write_ext4)
    assert again == first
    assert again.stat().st_ino != made
    assert len(again.read_bytes()) == len(good)
    other = drive({**TREE, "bin/tool": File(b"", 0o755)}, tmp_path, write_ext4)
    assert other != first
