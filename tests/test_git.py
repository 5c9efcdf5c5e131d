"""Git sources from real repositories: over files, git's own protocol and HTTP, sound and damaged."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.fetch import DownloadError
from pipeline.git.export import ExportError
from pipeline.git.fetch import Place, fetch
from pipeline.git.objects import object_id, parse_commit, parse_tree
from pipeline.git.tags import parse, problem
from pipeline.mirrors import Mirrors
from pipeline.signing import judge
from pipeline.source import GitSource, Source, Submodules
from pipeline.sources import look, obtain
from pipeline.store import Store
from tests import repositories
from tests.keys import Key, some
from tests.repositories import GitServer, Repository, git
from tests.test_store import damage

ROOT = Path(__file__).parent.parent
FILES = {"README": b"hello\n", "src/main.c": b"int main;\n", "src/deep/er/x": b"", "a-b": b"1", "a/c": b"2"}
NOWHERE = "0123456789" * 4


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.make(tmp_path / "root" / "thing")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with repositories.serving(tmp_path / "root") as server:
        yield server


def place(store: Store, **more: object) -> Place:
    return Place(**{"store": store, "mirrors": Mirrors(apt=lambda: ()), "project": ROOT, **more})  # type: ignore[arg-type]


def get(store: Store, source: GitSource, **more: object) -> Path:
    return fetch([source], place(store, **more))[source]


def refused(store: Store, source: GitSource, **more: object) -> str:
    """Return the reason why the only URL did not give the source."""
    with pytest.raises(DownloadError) as caught:
        get(store, source, **more)
    assert source.pin in caught.value.message
    return caught.value.message.splitlines()[-1].partition(": ")[2]


def content(tar: Path) -> dict[str, tuple[int, bytes]]:
    """List a tar's members: their modes, and what they hold or point to."""
    found = {}
    with tarfile.open(tar) as file:
        for member in file:
            data = file.extractfile(member) if member.isreg() else None
            found[member.name] = (member.mode, data.read() if data else os.fsencode(member.linkname))
            assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
    return found


def mirror(store: Store) -> Path:
    (found,) = (store.root / "git").glob("*.git")
    return found


# The export


def test_the_export_is_what_git_checks_out(store: Store, repository: Repository, tmp_path: Path) -> None:
    """Otherwise what is built is not what upstream has committed."""
    (repository.folder / "link").symlink_to("src/../README")
    repository.commit({**FILES, "run.sh": b"#!/bin/sh\n", "l" * 150 + "/" + "n" * 150: b"long"})
    (repository.folder / "run.sh").chmod(0o755)
    # Too long for one field of a tar header; each part of it is short enough for a file system.
    (repository.folder / ("x" * 120)).symlink_to("/".join(["y" * 99] * 3))
    commit = repository.commit({b"caf\xe9".decode("utf-8", "surrogateescape"): b"latin-1", "new\nline": b"n"})
    run = subprocess.run
    run(["tar", "-xf", get(store, repository.source(commit)), "-C", tmp_path], check=True)
    clone = tmp_path / "clone"
    git("clone", "--quiet", repository.url, str(clone), cwd=tmp_path)
    shutil.rmtree(clone / ".git")
    run(["diff", "--recursive", "--no-dereference", tmp_path / "thing", clone], check=True)
    modes = [
        sorted((p.relative_to(top), p.lstat().st_mode & 0o100) for p in top.rglob("*"))
        for top in (tmp_path / "thing", clone)
    ]
    assert modes[0] == modes[1]


def test_the_bytes_of_an_export_never_change(store: Store, repository: Repository) -> None:
    """Otherwise two machines, or this one next year, build the same commit from different bytes."""
    (repository.folder / "link").symlink_to("README")
    source = repository.source(repository.commit(FILES))
    assert source.commit == "d19722b19bc66deb6a59ffd9a719e6c7378581dc"
    assert get(store, source).name == "180c2babbeb445116369b2783772bd23b3df9530fd5e5deda70012eed55b93ff"


def test_settings_and_attributes_do_not_reach_the_bytes(
    store: Store, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a user's autocrlf, or a line in .gitattributes, makes other sources of the same commit."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[core]\n\tautocrlf = true\n[broken\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "nonsense")
    attributes = b"*.txt text eol=crlf export-subst ident\nsecret export-ignore\n"
    files = {".gitattributes": attributes, "v.txt": b"$Format:%H$ $Id$\n", "secret": b"kept"}
    old = os.umask(0o077)
    try:
        tar = get(store, repository.source(repository.commit(files)))
    finally:
        os.umask(old)
    found = content(tar)
    assert found["thing/v.txt"] == (0o644, b"$Format:%H$ $Id$\n")
    assert found["thing/secret"] == (0o644, b"kept")


def test_hooks_never_run(store: Store, repository: Repository, tmp_path: Path) -> None:
    """Otherwise a template or a repository on the user's disk runs programs while files are fetched."""
    get(store, repository.source(repository.commit(FILES)))
    source = repository.source(repository.commit({"more": b"1"}))
    marker = tmp_path / "ran"
    for folder in (mirror(store) / "hooks", repository.folder / ".git" / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in ("reference-transaction", "post-checkout", "pre-auto-gc", "post-upload-pack"):
            (folder / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
            (folder / name).chmod(0o755)
    get(store, source)
    assert not marker.exists()


def test_submodules_are_refused_unless_they_may_be_empty(store: Store, repository: Repository) -> None:
    """Otherwise a build finds an empty folder in place of what it needs, and nobody has said so."""
    commit = repository.commit_tree(f"160000 commit {NOWHERE}\tsub\n".encode())
    with pytest.raises(ExportError, match=r"thing/sub of commit .* is a submodule"):
        get(store, repository.source(commit))
    allowed = repository.source(commit, submodules=Submodules.EMPTY)
    assert content(get(store, allowed)) == {"thing": (0o755, b""), "thing/sub": (0o755, b"")}


def test_ten_thousand_files_in_bounded_time(store: Store, repository: Repository) -> None:
    """Otherwise a kernel-sized repository takes an hour where it should take seconds."""
    commit = repository.commit({f"d{n % 100}/e{n % 7}/{n}": b"%d" % n for n in range(10_000)})
    start = time.monotonic()
    tar = get(store, repository.source(commit))
    assert time.monotonic() - start < 30
    assert sum(mode == 0o644 for mode, _ in content(tar).values()) == 10_000


# The store


def test_what_is_there_is_not_fetched_again(store: Store, repository: Repository) -> None:
    """Otherwise no build works offline."""
    source = repository.source(repository.commit(FILES))
    tar = get(store, source)
    shutil.rmtree(repository.folder)
    assert get(store, source, offline=True) == tar  # by the tar
    tar.unlink()
    assert get(store, source, offline=True) == tar  # by the mirror
    shutil.rmtree(mirror(store))
    assert get(store, source, offline=True) == tar  # by the tar alone
    assert store.find(tar.name) == tar


def test_offline_nothing_but_files_is_asked(store: Store) -> None:
    """Otherwise a build that must not touch the network does."""
    source = GitSource(name="thing", urls=("https://git.invalid/x.git",), commit=NOWHERE)
    assert refused(store, source, offline=True) == "the network is off"


def test_a_damaged_tar_is_made_again(
    store: Store, repository: Repository, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise a bad disk block ends in a package, or stops all builds for good."""
    source = repository.source(repository.commit(FILES))
    tar = get(store, source)
    before = tar.read_bytes()
    damage(tar, "flipped")
    shutil.rmtree(repository.folder)
    assert get(store, source).read_bytes() == before
    assert "thing.tar was damaged in the store" in capfd.readouterr().err


def loose(folder: Path, kind: str, data: bytes, pretend: str) -> None:
    """Put an object into a repository under another object's id."""
    path = folder / "objects" / pretend[:2] / pretend[2:]
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_bytes(zlib.compress(b"%s %d\0" % (kind.encode(), len(data)) + data))


def unpack(folder: Path) -> None:
    """Turn a mirror's packs into loose objects."""
    for pack in list((folder / "objects" / "pack").glob("*.pack")):
        moved = folder / pack.name
        pack.rename(moved)
        for rest in (folder / "objects" / "pack").glob(f"{pack.stem}.*"):
            rest.unlink()
        git("unpack-objects", "-q", cwd=folder, input=moved.read_bytes())
        moved.unlink()


@pytest.mark.parametrize(
    "fault", ["blob replaced", "tree replaced", "commit replaced", "blob gone", "blob cut"]
)
def test_damage_to_a_mirror_is_noticed_and_named(
    fault: str, store: Store, repository: Repository, capfd: pytest.CaptureFixture[str]
) -> None:
    """Otherwise what is built is not the pinned commit: git itself does not hash what it reads."""
    source = repository.source(repository.commit(FILES))
    tar = get(store, source)
    tar.unlink()
    unpack(mirror(store))
    kind, _, how = fault.partition(" ")
    name = {"blob": "HEAD:README", "tree": "HEAD:src", "commit": "HEAD"}[kind]
    victim = repository.git("rev-parse", name)
    other = {"blob": b"evil!\n", "tree": b"", "commit": b"tree " + b"0" * 40 + b"\n"}[kind]
    path = mirror(store) / "objects" / victim[:2] / victim[2:]
    if how == "replaced":
        loose(mirror(store), kind, other, victim)
    elif how == "gone":
        path.unlink()
    else:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-4])
    assert get(store, source) == tar  # fetched anew
    said = capfd.readouterr().err
    assert victim in said
    assert "is damaged" in said
    if kind != "commit":
        assert f"thing/{name.partition(':')[2]}" in said


def test_damage_that_no_url_can_mend_is_an_error(store: Store, repository: Repository) -> None:
    """Otherwise a damaged mirror passes when upstream is down."""
    source = repository.source(repository.commit(FILES))
    get(store, source).unlink()
    unpack(mirror(store))
    loose(mirror(store), "blob", b"evil!\n", object_id("blob", FILES["README"]))
    shutil.rmtree(repository.folder)
    assert "does not appear to be a git repository" in refused(store, source)


def test_a_corrupt_repository_gives_nothing(store: Store, repository: Repository) -> None:
    """Otherwise a mirror that was broken into, or is broken, decides what is built."""
    source = repository.source(repository.commit(FILES))
    folder = repository.folder / ".git"
    loose(folder, "blob", b"evil!\n", object_id("blob", FILES["README"]))
    assert refused(store, source)
    assert not list(store.root.glob("git/exports/*"))


def test_a_wrecked_mirror_is_made_again(store: Store, repository: Repository) -> None:
    """Otherwise a half-deleted cache has to be found and removed by hand."""
    source = repository.source(repository.commit(FILES))
    tar = get(store, source)
    for name in ("HEAD", "config", "packed-refs"):
        tar.unlink()
        (mirror(store) / name).unlink(missing_ok=True)
        (mirror(store) / name).write_bytes(b"\0[")
        assert get(store, source) == tar


def test_a_store_that_cannot_be_written_is_one_sentence(repository: Repository, tmp_path: Path) -> None:
    """Otherwise users read a traceback."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Exception, match=r"^The store in .* cannot be used: ") as caught:
        get(Store(tmp_path / "file" / "store"), repository.source(repository.commit(FILES)))
    assert type(caught.value).__name__ == "StoreError"


# Where it comes from


def test_only_the_pinned_commit_is_fetched(store: Store, repository: Repository) -> None:
    """Otherwise users wait for decades of history."""
    commit = repository.commit(FILES)
    repository.commit({"late": b"late"})
    early = repository.git("rev-parse", "HEAD:README")
    late = repository.git("rev-parse", "HEAD:late")
    get(store, repository.source(commit))
    listed = git("cat-file", "--batch-all-objects", "--batch-check", cwd=mirror(store))
    assert early in listed
    assert late not in listed


def test_mirrors_stand_in_and_are_tried_in_order(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    """Otherwise a local clone cannot replace a host that is down."""
    commit = repository.commit(FILES)
    url = "https://git.invalid/git-http/thing"
    rewrites = {"https://git.invalid/git-http": (f"file://{tmp_path}/none", f"file://{tmp_path}/root")}
    source = GitSource(name="thing", urls=(url,), commit=commit)
    assert (
        content(get(store, source, mirrors=Mirrors(rewrites, apt=lambda: ())))["thing/README"][1]
        == b"hello\n"
    )


def test_all_that_is_missing_is_listed_at_once(store: Store, repository: Repository, tmp_path: Path) -> None:
    """Otherwise users find out one by one what they lack, and not why."""
    repository.commit(FILES)
    one = GitSource(name="one", urls=(repository.url, f"file://{tmp_path}/none"), commit=NOWHERE)
    two = GitSource(name="two", urls=(f"file://{tmp_path}/zwei",), commit=NOWHERE)
    with pytest.raises(DownloadError) as caught:
        fetch([one, two], place(store))
    assert caught.value.message.splitlines() == [
        "2 of 2 files could not be fetched:",
        f"one (git commit {NOWHERE})",
        f"  {repository.url}: does not have the commit",
        f"  file://{tmp_path}/none: '{tmp_path}/none' does not appear to be a git repository",
        f"two (git commit {NOWHERE})",
        f"  file://{tmp_path}/zwei: '{tmp_path}/zwei' does not appear to be a git repository",
    ]


@pytest.mark.parametrize("kind", ["new", "old", "dumb"])
def test_every_kind_of_http_server_will_do(
    kind: str, store: Store, repository: Repository, server: GitServer
) -> None:
    """Otherwise an old server, which gives no single commits, cannot be used."""
    commit = repository.commit(FILES)
    repository.commit({"late": b"late"})
    server.old, server.dumb = kind == "old", kind == "dumb"
    repository.git("update-server-info")
    source = GitSource(name="thing", urls=(f"{server.address}/thing/.git",), commit=commit)
    assert content(get(store, source))["thing/README"] == (0o644, b"hello\n")
    gone = GitSource(name="thing", urls=source.urls, commit=NOWHERE)
    assert refused(store, gone).startswith("does not have the commit")


def test_the_git_protocol_works(store: Store, repository: Repository, tmp_path: Path) -> None:
    """Otherwise git:// URLs in releases are dead."""
    commit = repository.commit(FILES)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["git", "daemon", "--export-all", f"--base-path={tmp_path}/root", "--listen=127.0.0.1",
               f"--port={port}", "--reuseaddr"]  # fmt: skip
    with subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL) as daemon:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            source = GitSource(name="thing", urls=(f"git://127.0.0.1:{port}/thing",), commit=commit)
            assert content(get(store, source))["thing/README"] == (0o644, b"hello\n")
        finally:
            os.killpg(daemon.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("status", "reason"), [(404, "not found"), (401, "could not read Username"), (500, "500")]
)
def test_http_errors_are_told(
    status: int, reason: str, store: Store, repository: Repository, server: GitServer
) -> None:
    """Otherwise users cannot tell a wrong URL from a server that is down; and nobody is asked to log in."""
    server.status = status
    source = GitSource(name="thing", urls=(f"{server.address}/thing/.git",), commit=repository.commit(FILES))
    assert reason in refused(store, source)


def test_passwords_are_not_shown(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    """Otherwise they end up in logs."""
    source = GitSource(name="thing", urls=("http://me:s3cret@127.0.0.1:9/x",), commit=NOWHERE)
    assert "127.0.0.1" in refused(store, source)
    assert "s3cret" not in capfd.readouterr().err


def test_a_silent_server_is_given_up(store: Store, repository: Repository, server: GitServer) -> None:
    """Otherwise fetch hangs for ever."""
    server.stall_after = 1000
    commit = repository.commit({"big": random.Random(1).randbytes(200_000)})
    source = GitSource(name="thing", urls=(f"{server.address}/thing/.git",), commit=commit)
    start = time.monotonic()
    assert refused(store, source, silence=1.0) == "silent for 1 s"
    assert time.monotonic() - start < 10


def test_ssh_is_asked_without_prompts_and_its_reason_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise fetch waits for a password that nobody types, or only says that it failed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    lines = (
        "#!/bin/sh",
        f'echo "$*" >> {tmp_path}/asked',
        'echo "Host key verification failed." >&2',
        "exit 255",
    )
    (folder / "ssh").write_text("\n".join(lines))
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    source = GitSource(name="thing", urls=("ssh://git@git.invalid/x",), commit=NOWHERE)
    assert refused(store, source) == "Host key verification failed"
    assert "BatchMode=yes" in (tmp_path / "asked").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_a_clone_of_another_user_will_do(store: Store, repository: Repository) -> None:
    """Otherwise a clone on a shared disk stops with git's "dubious ownership"."""
    source = repository.source(repository.commit(FILES))
    for path in [repository.folder, *repository.folder.rglob("*")]:
        os.chown(path, 1234, 1234, follow_symlinks=False)
    assert get(store, source)


@pytest.mark.parametrize(
    "url", ["ext::sh -c touch% /tmp/x", "/plain/path", "file://host/x", "-x", "ssh://-oProxy/x"]
)
def test_urls_that_are_none_are_refused(url: str) -> None:
    """Otherwise a release file runs programs on the builder's host."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"name": "x", "urls": [url], "commit": NOWHERE}, GitSource)


def test_a_mirror_setting_cannot_run_programs(store: Store, tmp_path: Path) -> None:
    """Otherwise a settings file does: git's ext:: runs commands."""
    with pytest.raises(UsageError):
        Mirrors({"https://a.example": (f"ext::touch {tmp_path}/x",)})


# Processes


FETCHER = """
import sys
from pathlib import Path
from pipeline.git.fetch import Place, fetch
from pipeline.mirrors import Mirrors
from pipeline.source import GitSource
from pipeline.store import Store
root, url, commit = sys.argv[1:]
source = GitSource(name="thing", urls=(url,), commit=commit)
print(fetch([source], Place(Store(Path(root)), Mirrors(apt=lambda: ()), Path("/")))[source].name)
"""


def fetcher(store: Store, url: str, commit: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCHER, str(store.root), url, commit],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def gits(store: Store) -> list[str]:
    """The command lines of processes that work on the store."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(store.root) in line and not line.startswith(sys.executable):
            found.append(line)
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_in_the_middle_leaves_a_usable_store(
    how: signal.Signals, store: Store, repository: Repository, server: GitServer
) -> None:
    """Otherwise one Ctrl-C or power cut leaves lock files that stop every later run."""
    commit = repository.commit({f"f{n}": random.Random(n).randbytes(5000) for n in range(200)})
    server.stall_after = 300_000
    url = f"{server.address}/thing/.git"
    with fetcher(store, url, commit) as process:
        assert server.stalled.wait(20)
        while not list(mirror(store).rglob("tmp_pack_*")):
            time.sleep(0.05)
        process.send_signal(how)
        process.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while gits(store):
        assert time.monotonic() < deadline, gits(store)
        time.sleep(0.05)
    (mirror(store) / "shallow.lock").touch()
    server.stall_after = None
    source = GitSource(name="thing", urls=(url,), commit=commit)
    assert len(content(get(store, source))) == 201
    assert not list(mirror(store).rglob("tmp_*"))


def test_two_processes_share_one_mirror(store: Store, repository: Repository, server: GitServer) -> None:
    """Otherwise two builds that start together break each other's fetches."""
    commits = [repository.commit({"x": b"%d" % n}) for n in range(3)]
    url = f"{server.address}/thing/.git"
    running = [fetcher(store, url, commit) for commit in commits * 2]
    ended = [(p.communicate(timeout=60), p.returncode) for p in running]
    assert [status for _, status in ended] == [0] * 6, ended
    names = [out for (out, _), _ in ended]
    assert names[:3] == names[3:]
    assert len(set(names)) == 3
    git("fsck", "--connectivity-only", cwd=mirror(store))
    assert len([path for path in server.requests if path.endswith("git-upload-pack")]) <= 6


# Tags and signatures


@pytest.fixture(scope="session")
def keys() -> Iterator[dict[str, Key]]:
    with some() as made:
        yield made


def signed(repository: Repository, key: Key, tag: str = "v1", commit: str = "") -> GitSource:
    commit = commit or repository.git("rev-parse", "HEAD")
    return repository.source(commit, tag=tag, key=key.fingerprint, key_file=key.file.name)


def keyed(keys: dict[str, Key]) -> Path:
    return keys["mine"].file.parent


def test_a_good_signature_passes_and_is_remembered(
    store: Store, repository: Repository, keys: dict[str, Key]
) -> None:
    """Otherwise signed releases cannot be built, or not offline."""
    repository.commit(FILES)
    keys["mine"].tag(repository, "v1")
    source = signed(repository, keys["mine"])
    assert get(store, source, project=keyed(keys))
    shutil.rmtree(repository.folder)
    shutil.rmtree(mirror(store))
    assert get(store, source, project=keyed(keys), offline=True)


def test_a_key_that_is_asked_for_later_counts(
    store: Store, repository: Repository, keys: dict[str, Key]
) -> None:
    """Otherwise a commit that was fetched once without a key never has its signature checked."""
    commit = repository.commit(FILES)
    repository.git("tag", "-a", "-m", "plain", "v1")
    get(store, repository.source(commit, tag="v1"))
    assert "is not signed" in refused(store, signed(repository, keys["mine"]), project=keyed(keys))


BAD_TAGS = {
    "light": "its tag v1 is not a tag object|its tag v1 is not signed$",
    "unsigned": "its tag v1 is not signed$",
    "wrong key": "its tag v1 is signed by another key, [0-9A-F]{16,40}, instead of [0-9A-F]{40}$",
    "expired": "its tag v1 is signed by a key that has expired: [0-9A-F]{40}$",
    "changed": "its tag v1 was changed after it was signed$",
    "renamed": "its tag v1 says that it is 'v0' of commit [0-9a-f]{40} instead$",
    "none": "has no tag v1$",
    "moved": "its tag v1 points to [0-9a-f]{40} instead$",
}


def plant(fault: str, repository: Repository, keys: dict[str, Key]) -> GitSource:
    commit = repository.commit(FILES)
    mine = keys["mine"]
    source = signed(repository, mine)
    if fault == "light":
        repository.git("tag", "v1")
    elif fault == "unsigned":
        repository.git("tag", "-a", "-m", "plain", "v1")
    elif fault == "wrong key":
        keys["other"].tag(repository, "v1")
    elif fault == "moved":
        mine.tag(repository, "v1", repository.commit({"more": b"1"}))
    elif fault == "expired":
        wrapper = keyed(keys) / "gpg-then"
        wrapper.write_text('#!/bin/sh\nexec gpg --faked-system-time 20200601T000000 "$@"\n')
        wrapper.chmod(0o755)
        repository.git("config", "gpg.program", str(wrapper))
        keys["old"].tag(repository, "v1")
        source = signed(repository, keys["old"])
    elif fault in ("changed", "renamed"):
        mine.tag(repository, "v0" if fault == "renamed" else "v1")
        raw = repository.git("cat-file", "tag", "v0" if fault == "renamed" else "v1") + "\n"
        if fault == "changed":
            raw = raw.replace("\nsigned\n", "\nsigned!\n")
        made = repository.git("hash-object", "-t", "tag", "-w", "--stdin", input=raw.encode())
        repository.git("update-ref", "refs/tags/v1", made)
    assert source.commit == commit
    return source


@pytest.mark.parametrize("fault", BAD_TAGS)
def test_each_bad_tag_is_refused_for_its_own_reason(
    fault: str, store: Store, repository: Repository, keys: dict[str, Key]
) -> None:
    """Otherwise a forged release is built, or a good one is refused and nobody knows why."""
    source = plant(fault, repository, keys)
    assert re.search(BAD_TAGS[fault], refused(store, source, project=keyed(keys)))
    assert not list(store.root.glob("git/exports/*"))


def test_the_next_url_may_have_the_right_tag(store: Store, tmp_path: Path, keys: dict[str, Key]) -> None:
    """Otherwise one bad mirror stops a release that another has."""
    good, bad = Repository.make(tmp_path / "good"), Repository.make(tmp_path / "bad")
    commit = good.commit(FILES)
    assert bad.commit(FILES) == commit
    keys["mine"].tag(good, "v1")
    keys["other"].tag(bad, "v1")
    source = msgspec.structs.replace(signed(good, keys["mine"]), urls=(bad.url, good.url))
    assert get(store, source, project=keyed(keys))


@pytest.mark.parametrize("kind", ["plain", "dumb"])
def test_a_moved_tag_is_an_error_without_a_key_too(
    kind: str, store: Store, repository: Repository, server: GitServer
) -> None:
    """Otherwise nobody notices that upstream's release is another one than the pinned."""
    commit = repository.commit(FILES)
    repository.git("tag", "v1", repository.commit({"more": b"1"}))
    server.dumb = kind == "dumb"
    repository.git("update-server-info")
    url = f"{server.address}/thing/.git"
    source = GitSource(name="thing", urls=(url,), commit=commit, tag="v1")
    assert "its tag v1 points to" in refused(store, source)


def test_a_mirror_without_the_tag_will_do_where_no_key_is_given(store: Store, repository: Repository) -> None:
    """Otherwise a bare clone of one branch cannot stand in: the commit's id says it all."""
    assert get(store, repository.source(repository.commit(FILES), tag="v1"))


def test_a_key_file_without_the_key_is_a_mistake_of_the_release(
    store: Store, repository: Repository, keys: dict[str, Key]
) -> None:
    """Otherwise a wrong file in the project looks like a forged tag."""
    repository.commit(FILES)
    keys["mine"].tag(repository, "v1")
    source = msgspec.structs.replace(signed(repository, keys["mine"]), key_file="other.asc")
    with pytest.raises(UsageError, match=r"other\.asc does not hold the key"):
        get(store, source, project=keyed(keys))
    source = msgspec.structs.replace(source, key_file="none.asc")
    with pytest.raises(UsageError, match=r"none\.asc is missing"):
        get(store, source, project=keyed(keys))


@pytest.mark.parametrize("fields", [{"key": "A" * 40, "tag": "v1"}, {"key_file": "x", "tag": "v1"},
                                    {"key": "A" * 40, "key_file": "x"}])  # fmt: skip
def test_half_a_signature_rule_is_refused(fields: dict[str, str]) -> None:
    """Otherwise a release that means to be checked is not."""
    with pytest.raises(msgspec.ValidationError, match="key"):
        msgspec.convert(
            {"name": "x", "urls": ["https://a.example/x"], "commit": NOWHERE, **fields}, GitSource
        )


# Formats


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Otherwise a hostile repository ends in a traceback."""
    for read in (parse_tree, parse_commit, parse):
        try:
            read(data)
        except ValueError:
            continue


NAMES = st.binary(min_size=1, max_size=30).filter(
    lambda name: not set(b"/\0") & set(name) and name.lower() not in (b".", b"..", b".git")
)


@given(NAMES, st.binary(min_size=20, max_size=20))
def test_trees_are_read_as_they_are_written(name: bytes, oid: bytes) -> None:
    """Otherwise files with unusual names are lost."""
    (entry,) = parse_tree(b"100644 " + name + b"\0" + oid)
    assert (entry.mode, entry.name, entry.id) == (0o100644, name, oid.hex())


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b".git", b".GIT"])
def test_names_that_lead_elsewhere_are_refused(name: bytes) -> None:
    """Otherwise a hostile commit writes outside the build folder."""
    with pytest.raises(ValueError, match="it holds the name"):
        parse_tree(b"100644 " + name + b"\0" + bytes(20))


@given(st.text())
def test_no_noise_of_gpg_is_a_good_signature(noise: str) -> None:
    """Otherwise a notation in a signature, which gpg prints, could pass for its verdict."""
    assert problem(judge(noise), "A" * 40) is not None
    two = "[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG x\n[GNUPG:] VALIDSIG " + "A" * 40 + "\n"
    assert problem(judge(two), "A" * 40) is None
    assert problem(judge(two * 2), "A" * 40) is not None
    assert problem(judge(two), "B" * 40) is not None


# From a folder


def mirrors() -> Mirrors:
    return Mirrors(apt=lambda: ())


def test_files_and_clones_are_found_in_a_folder(store: Store, repository: Repository, tmp_path: Path) -> None:
    """Otherwise users with the files at hand cannot build when a host is gone."""
    data = b"tarball" * 100
    folder = tmp_path / "root" / "deep ä%20"
    folder.mkdir()
    (folder / "another name.bin").write_bytes(data)
    (folder / "same size").write_bytes(bytes(len(data)))
    (folder / "dangling").symlink_to("nowhere")
    os.mkfifo(folder / "fifo")
    commit = repository.commit(FILES)
    git("clone", "--quiet", "--bare", repository.url, str(folder / "bare"), cwd=tmp_path)
    repository.commit({"other": b""})
    shutil.rmtree(repository.folder)
    Repository.make(folder / "unrelated").commit({"z": b""})
    sha256 = hashlib.sha256(data).hexdigest()
    file = Source(name="x.tar", urls=("http://127.0.0.1:9/x.tar",), size=len(data), sha256=sha256)
    source = GitSource(name="thing", urls=("http://127.0.0.1:9/thing",), commit=commit)
    found = obtain([file], [source], store, mirrors(), project=ROOT, offline=True, folder=tmp_path / "root")
    assert found[file].read_bytes() == data
    assert content(found[source])["thing/README"] == (0o644, b"hello\n")


def test_a_folder_of_links_holds_what_they_lead_to(
    store: Store, repository: Repository, tmp_path: Path
) -> None:
    """Otherwise users who gather their clones by links are told that there are none."""
    source = GitSource(name="thing", urls=("http://127.0.0.1:9/thing",), commit=repository.commit(FILES))
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "here").symlink_to(repository.folder)
    (folder / "circle").symlink_to(folder)
    found = obtain([], [source], store, mirrors(), project=ROOT, offline=True, folder=folder)
    assert content(found[source])["thing/README"] == (0o644, b"hello\n")


def test_work_trees_are_clones_too(repository: Repository, tmp_path: Path) -> None:
    """Otherwise a user's checkout is not seen, or the files in it are taken apart."""
    repository.commit(FILES)
    found = look(tmp_path, {6})
    assert found.repositories == [repository.folder]
    assert found.files == {6: [repository.folder / "README"]}


def test_files_and_commits_are_missing_in_one_list(store: Store, tmp_path: Path) -> None:
    """Otherwise users fix one thing, wait, and learn of the next."""
    file = Source(name="x.tar", urls=("https://a.example/x.tar",), size=9, sha256="a" * 64)
    source = GitSource(name="thing", urls=("https://a.example/thing",), commit=NOWHERE)
    with pytest.raises(DownloadError) as caught:
        obtain([file], [source], store, mirrors(), project=ROOT, offline=True, folder=tmp_path)
    assert caught.value.message.splitlines() == [
        "2 of 2 files could not be fetched:",
        f"x.tar (9 bytes, SHA-256 {'a' * 64})",
        "  https://a.example/x.tar: the network is off",
        f"thing (git commit {NOWHERE})",
        "  https://a.example/thing: the network is off",
    ]


def test_a_folder_that_is_not_there_is_wrong_use(store: Store, tmp_path: Path) -> None:
    """Otherwise a typing mistake looks like missing files."""
    with pytest.raises(UsageError, match="is not a folder"):
        obtain([], [], store, mirrors(), project=ROOT, folder=tmp_path / "none")
