"""The store hands out the bytes that were pinned, or says which file is not."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, UsageError
from pipeline.source import Source
from pipeline.store import CancelledError, Store, StoreError

ROOT = Path(__file__).parent.parent
DATA = bytes(range(256)) * 5000
SUM = hashlib.sha256(DATA).hexdigest()
SOURCE = Source(name="thing.tar", urls=("https://a.example/thing.tar",), size=len(DATA), sha256=SUM)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def put(store: Store, data: bytes = DATA) -> Path:
    with store.writer() as writer:
        writer.write(data)
        return writer.commit()


def leftovers(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "tmp").glob("*"))


def damage(entry: Path, change: str) -> None:
    """Damage an entry in the ways that disks, editors and attackers do."""
    entry.chmod(0o644)
    if change == "flipped":
        data = bytearray(entry.read_bytes())
        data[len(data) // 2] ^= 1
        entry.write_bytes(data)
    elif change == "truncated":
        os.truncate(entry, entry.stat().st_size - 1)
    elif change == "empty":
        os.truncate(entry, 0)
    elif change == "symlink":
        entry.rename(entry.with_name("elsewhere"))
        entry.symlink_to("elsewhere")
    elif change == "fifo":
        entry.unlink()
        os.mkfifo(entry)


def test_what_is_put_in_comes_out_read_only(store: Store) -> None:
    """Otherwise a build could change the source that the next build trusts."""
    entry = put(store)
    assert store.get(SOURCE) == store.find(SUM) == entry == store.path(SUM)
    assert entry.read_bytes() == DATA
    assert stat.S_IMODE(entry.stat().st_mode) == 0o444
    assert leftovers(store) == []


def test_an_absent_file_is_no_error_and_writes_nothing(store: Store) -> None:
    """Otherwise merely asking would need a writable store."""
    assert store.get(SOURCE) is None
    assert not store.root.exists()


@pytest.mark.parametrize("change", ["flipped", "truncated", "empty", "symlink", "fifo"])
def test_a_damaged_entry_is_named_and_removed(store: Store, change: str) -> None:
    """Otherwise a rotten disk or a planted link gets into packages."""
    entry = put(store)
    damage(entry, change)
    with pytest.raises(IntegrityError, match=r"thing\.tar") as caught:
        store.get(SOURCE)
    assert str(entry) in caught.value.message
    assert not os.path.lexists(entry)
    assert store.get(SOURCE) is None
    assert put(store) == store.get(SOURCE)


def test_a_symlink_is_refused_even_if_its_target_is_right(store: Store, tmp_path: Path) -> None:
    """Otherwise the target could be changed after it was verified."""
    target = tmp_path / "target"
    target.write_bytes(DATA)
    entry = store.path(SUM)
    entry.parent.mkdir(parents=True)
    entry.symlink_to(target)
    with pytest.raises(IntegrityError):
        store.find(SUM)
    assert target.read_bytes() == DATA


def test_an_entry_that_was_mended_meanwhile_is_not_removed(store: Store) -> None:
    """Otherwise of two processes that see the same damage, one removes what the other has mended."""
    entry = put(store)
    damage(entry, "flipped")
    seen = entry.lstat()
    put(store)
    assert not store._remove(SUM, seen)
    assert store.find(SUM) == entry


def test_what_lies_in_the_place_of_an_entry_is_removed(store: Store) -> None:
    """Otherwise a strange store has to be mended by hand, or ends in a traceback."""
    (store.path(SUM) / "deep" / "er").mkdir(parents=True)
    with pytest.raises(IntegrityError, match="is removed"):
        store.find(SUM)
    assert store.find(SUM) is None
    partial = store.root / "tmp" / f"{SUM}.part"
    put(store).unlink()
    os.mkfifo(partial)
    with store.resume(SUM) as writer:
        assert writer.size == 0
        writer.write(DATA)
        writer.commit(SUM)
    assert store.find(SUM) is not None


def test_a_wrong_pinned_size_is_the_definitions_fault(store: Store) -> None:
    """Otherwise a good file is thrown away and downloaded again for ever."""
    put(store)
    wrong = Source(name="thing.tar", urls=SOURCE.urls, size=7, sha256=SUM)
    with pytest.raises(UsageError, match="7 bytes"):
        store.get(wrong)
    assert store.get(SOURCE)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_only_sums_are_paths(store: Store, name: str) -> None:
    """Otherwise a file name from outside leads out of the store."""
    with pytest.raises(ValueError, match="not a SHA-256"):
        store.path(name)


def test_add_file_copies_and_checks(store: Store, tmp_path: Path) -> None:
    """Otherwise an image whose bytes are not those of its lock is kept."""
    path = tmp_path / "image"
    path.write_bytes(DATA)
    with pytest.raises(IntegrityError, match="instead of"):
        store.add_file(path, expect="0" * 64)
    assert leftovers(store) == []
    assert store.add_file(path, expect=SUM) == store.find(SUM)
    with pytest.raises(StoreError, match="missing"):
        store.add_file(tmp_path / "missing")


def test_a_failed_writer_leaves_nothing(store: Store) -> None:
    """Otherwise each failed step leaves a gigabyte behind."""
    with pytest.raises(TypeError), store.writer() as writer:
        writer.write(DATA + "text")  # type: ignore[operator]
    with store.writer() as writer:
        writer.write(DATA)
    assert leftovers(store) == []
    assert store.find(SUM) is None


def test_resume_goes_on_where_an_earlier_run_stopped(store: Store) -> None:
    """Otherwise a broken line costs the whole download."""
    with store.resume(SUM) as writer:
        writer.write(DATA[:1000])
    assert store.find(SUM) is None
    with store.resume(SUM) as writer:
        assert (writer.size, writer.sha256) == (1000, hashlib.sha256(DATA[:1000]).hexdigest())
        writer.write(DATA[1000:])
        assert writer.commit(SUM).read_bytes() == DATA
    assert leftovers(store) == []


def test_resume_after_another_process_was_done_finds_its_entry(store: Store) -> None:
    """Otherwise the one who waited downloads it all again."""
    with store.resume(SUM) as writer:
        writer.write(DATA[:1000])
    entry = put(store)
    with store.resume(SUM) as writer:
        assert writer.entry == entry
    assert leftovers(store) == []


def test_restart_forgets(store: Store) -> None:
    """Otherwise a server without ranges makes a file out of two."""
    with store.writer() as writer:
        writer.write(b"x" * 2_000_000)
        writer.restart()
        writer.write(DATA)
        assert writer.commit(SUM).read_bytes() == DATA


def test_waiting_for_a_lock_can_be_given_up(store: Store) -> None:
    """Otherwise Ctrl-C hangs while another process downloads."""
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with store.lock(SUM):
            held.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    start = time.monotonic()
    with pytest.raises(CancelledError), store.resume(SUM, cancelled=lambda: time.monotonic() > start + 0.3):
        pass
    leave.set()
    thread.join()


HOLD = """
import sys, time
from pathlib import Path
from pipeline.store import Store
store = Store(Path(sys.argv[1]))
with store.writer() as new, store.resume(sys.argv[2]) as part:
    new.write(b"n" * 100_000)
    part.write(b"p" * 100_000)
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_killed_writer_leaves_no_entry_and_no_lock(store: Store) -> None:
    """Otherwise a power cut leaves half a file that builds take for whole. A real process, a real -9."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, store.root, SUM], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        put(store, b"another")  # its sweep must leave alone what a living process writes
        assert len(leftovers(store)) == 2
        process.send_signal(signal.SIGKILL)
    assert store.find(SUM) is None
    put(store, b"and another")
    assert leftovers(store) == [f"{SUM}.part"]
    with store.resume(SUM) as writer:
        assert writer.size == 100_000


def test_many_writers_of_one_file_agree(store: Store) -> None:
    """Otherwise two builds at once damage the store."""
    threads = [threading.Thread(target=put, args=(store,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.get(SOURCE)
    assert leftovers(store) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
@pytest.mark.parametrize(
    ("options", "problem", "hint"),
    [
        ("size=256k", os.strerror(errno.ENOSPC), "Free some space"),
        ("ro", os.strerror(errno.EROFS), "can write"),
    ],
)
def test_a_full_or_read_only_disk_is_one_sentence(
    tmp_path: Path, options: str, problem: str, hint: str
) -> None:
    """Otherwise the most common failure of all is a traceback. A real small file system."""
    code = f"""
from pathlib import Path
from pipeline.store import Store, StoreError
try:
    with Store(Path({str(tmp_path)!r})).writer() as writer:
        writer.write(bytes(1 << 20))
except StoreError as e:
    print(e.message, "|", e.hint, "|", list(Path({str(tmp_path)!r}).rglob("*.new")))
"""
    script = f'mount -t tmpfs -o {options} none "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", tmp_path, sys.executable, code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"this host forbids mounts: {done.stderr.strip()}")
    message, said, files = done.stdout.strip().split(" | ")
    assert problem in message
    assert hint in said
    assert files == "[]"


def test_a_file_is_moved_into_the_store_or_stays(tmp_path: Path) -> None:
    """An image that came out wrong must neither get into the store nor vanish before it can be looked at."""
    store = Store(tmp_path / "store")
    path = tmp_path / "file"
    path.write_bytes(b"content")
    sha256 = hashlib.sha256(b"content").hexdigest()
    with pytest.raises(IntegrityError, match=sha256):
        store.take_file(path, "0" * 64)
    assert path.read_bytes() == b"content"
    entry = store.take_file(path, sha256)
    assert not path.exists()
    assert entry == store.find(sha256)
    assert entry.stat().st_mode & 0o777 == 0o444
