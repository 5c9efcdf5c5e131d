"""Builds by the real command line, in copies of this checkout."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pipeline.build import BuildRecord
from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Job
from pipeline.image.assembly import Image
from tests import servers
from tests.checkouts import Checkout, running_in
from tests.small import Small

pytestmark = pytest.mark.integration


def record(checkout: Checkout) -> BuildRecord:
    return msgspec.json.decode((checkout.latest / "build.json").read_bytes(), type=BuildRecord)


def left(checkout: Checkout) -> list[str]:
    """What a run left behind that is neither a result nor a lock."""
    folders = [checkout.store / "scratch", checkout.store / "tmp", checkout.artifacts / "small"]
    paths = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
    return [
        str(path)
        for path in paths
        if not (path.name in ("latest", "aur") or path.suffix == ".lock" or (path / "build.json").exists())
    ]


def plain_makepkg(checkout: Checkout, source: Small, image: Image, folder: Path) -> dict[str, bytes]:
    """Build the AUR folder as any user would, with one makepkg from source to packages."""
    folder.mkdir()
    out = folder / "out"
    out.mkdir()
    archive = folder / "small-1.0.tar.gz"
    archive.write_bytes(source.archive)
    aur = checkout.latest / "aur"
    inputs = {path.name: path for path in aur.iterdir()} | {archive.name: archive}
    inputs["makepkg.conf"] = checkout.root / "pipeline" / "makepkg" / "makepkg.conf"
    environment = {
        "SOURCE_DATE_EPOCH": "1700000000",
        "PACKAGER": "Unknown Packager",
        "PKGDEST": "/build/output",
    }
    command = ("makepkg", "--config", "makepkg.conf", "--nodeps", "--noconfirm")
    lines: list[str] = []
    job = Job(command, inputs, environment=environment)
    Bubblewrap(folder / "scratch").run(job, image, out, lines.append)
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.pkg.tar.xz"))}


def test_every_engine_place_and_makepkg_give_the_same_bytes(
    new_checkout: Callable[[str], Checkout],
    docker_env: dict[str, str],
    source: Small,
    image: Image,
    tmp_path: Path,
) -> None:
    """Otherwise nobody can rebuild a package and see that it is what its sources make."""
    one, two = new_checkout("eins ä"), new_checkout("two/zwei 2")
    one.run("build", "small").fine()
    two.run("build", "small", env=docker_env).fine()
    assert [name.rsplit("-", 3)[0] for name in one.packages()] == ["small", "small-docs"]
    assert one.packages() == two.packages()
    assert (record(one).engine, record(two).engine) == ("bubblewrap", "docker")
    assert one.packages() == plain_makepkg(one, source, image, tmp_path / "plain")
    assert left(one) == left(two) == []


def test_only_what_changed_is_done_again(checkout: Checkout, source: Small) -> None:
    """Every needless compile costs users of Xen ten minutes; every wrong reuse costs their trust."""
    first = checkout.run("build", "small").fine()
    assert "compiling" in first.err
    first_folder, first_packages = checkout.latest, checkout.packages()

    again = checkout.run("build", "small").fine()
    assert again.out == first.out
    assert again.err == ""
    assert again.seconds < 2  # one second on a machine that does nothing else

    conf = checkout.root / "package" / "small.conf"
    conf.write_text("answer=43\n")
    changed = checkout.run("build", "small").fine()
    assert "compiled already" in changed.err
    assert "compiling" not in changed.err
    assert checkout.latest != first_folder
    assert checkout.packages() != first_packages
    assert (checkout.latest / "compile.log").read_text() == (first_folder / "compile.log").read_text()
    assert (first_folder / "build.json").exists(), "a new build must not remove the one before"

    template = checkout.root / "PKGBUILD.in"
    template.write_text(template.read_text().replace("gcc ", "gcc -DMORE "))
    assert "  compiling" in checkout.run("build", "small").fine().err

    source.write(checkout.root)
    assert checkout.run("build", "small").fine().out == first.out
    assert checkout.packages() == first_packages


def test_damage_is_named_and_mended(checkout: Checkout, source: Small) -> None:
    """A dying disk must not reach users by way of a cache."""
    checkout.run("build", "small").fine()
    packages = checkout.packages()

    package = checkout.latest / min(packages)
    flip(package)
    check = checkout.run("check", "small").failed(3)
    assert str(package) in check.err
    again = checkout.run("build", "small").fine()
    assert str(package) in again.err
    assert "compiled already" in again.err
    assert checkout.packages() == packages

    (checkout.latest / "build.json").write_text('{"release": "small"}')
    compiled = next((checkout.store / "compiled").glob("*.json")).read_text()
    staging = re.findall(r"[0-9a-f]{64}", compiled)[-1]
    for sha256 in (staging, source.sha256):
        flip(checkout.store / "sha256" / sha256[:2] / sha256)
    mended = checkout.run("build", "small").fine()
    assert "build.json is damaged" in mended.err
    assert staging in mended.err
    assert source.sha256 in mended.err
    assert checkout.packages() == packages


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_failing_build_shows_its_end_and_its_log(checkout: Checkout, source: Small) -> None:
    """Otherwise a maintainer must guess what the compiler said."""
    broken = Small(source.archive, source.url, build="seq -f 'line %g' 1 100; gcc -Dmain=1x small.c")
    broken.write(checkout.root)
    err = checkout.run("build", "small").failed(1).err
    assert "ended with exit status 1" in err
    assert "error:" in err
    shown = re.findall(r"^line (\d+)$", err, re.MULTILINE)
    assert 20 < len(shown) < 50
    assert shown[-1] == "100"
    (log,) = re.findall(r"^The whole log: (.*)$", err, re.MULTILINE)
    assert "line 1\n" in Path(log).read_text()
    assert left(checkout) == [log]


def test_what_is_no_srcinfo_is_not_written_as_one(checkout: Checkout) -> None:
    """The AUR would refuse it, or, in a folder that is pushed by hand, show it."""
    checkout.run("recipe", "small").fine()
    path = checkout.artifacts / "small" / "aur" / ".SRCINFO"
    good = path.read_bytes()
    recipe = checkout.root / "PKGBUILD.in"
    recipe.write_text(f"echo hello\n{recipe.read_text()}")
    assert "printed no .SRCINFO" in checkout.run("recipe", "small").failed(1).err
    assert path.read_bytes() == good


def test_a_build_that_wants_the_network_fails(
    checkout: Checkout, source: Small, server: servers.Server
) -> None:
    """What a build downloads is pinned by nobody."""
    server.add("/wanted-by-build", servers.good(b"unpinned"))
    address = server.root.removeprefix("http://").replace(":", "/")
    fetch = (
        f"bash -c 'exec 3<> /dev/tcp/{address} && printf \"GET /wanted-by-build HTTP/1.0\\r\\n\\r\\n\" >&3'"
    )
    Small(source.archive, source.url, build=fetch).write(checkout.root)
    assert "/dev/tcp" in checkout.run("build", "small").failed(1).err
    assert "/wanted-by-build" not in {request.path for request in server.requests}


def test_a_kill_at_any_moment_changes_nothing(checkout: Checkout, source: Small) -> None:
    """A power cut in a long build must cost time only."""
    slow = Small(source.archive, source.url, build="sleep 1.5", package="sleep 0.5")
    slow.write(checkout.root)
    chance = random.Random(4)
    for moment in (0.4, chance.uniform(0.6, 2), chance.uniform(2, 5), chance.uniform(5, 9)):
        with checkout.popen("build", "small") as process:
            time.sleep(moment)
            process.send_signal(signal.SIGKILL)
            process.communicate()
        time.sleep(0.3)
        assert running_in(checkout.store) == [], moment
    checkout.run("build", "small").fine()
    packages = checkout.packages()
    assert left(checkout) == []
    shutil.rmtree(checkout.latest)
    for path in (checkout.store / "compiled").iterdir():
        path.unlink()
    checkout.run("build", "small").fine()
    assert checkout.packages() == packages


def test_a_kill_leaves_no_container_for_long(
    checkout: Checkout, source: Small, docker_env: dict[str, str]
) -> None:
    """An engine that fills up with dead builds' containers ends up with a full disk."""
    unique = source.sha256[:12]
    Small(source.archive, source.url, build=f"printf '==== unique-{unique}\\n'; [[ -e x ]] || sleep 5").write(
        checkout.root
    )
    with checkout.popen("build", "small", env=docker_env) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if unique in line and "unique-" in line:
                break
        process.kill()
    assert owned(process.pid, docker_env)
    checkout.run("build", "small", env=docker_env).fine()
    assert not owned(process.pid, docker_env)
    assert left(checkout) == []


def owned(pid: int, docker_env: dict[str, str]) -> set[str]:
    """The containers and volumes of one run, which says so in their labels; other workers have theirs."""
    label = "xen-aur-pipeline.owner"
    found = set()
    for command in (["docker", "ps", "--all"], ["docker", "volume", "ls"]):
        name = "{{.Names}}" if "ps" in command else "{{.Name}}"
        line = [*command, "--filter", f"label={label}", "--format", f'{name}\t{{{{.Label "{label}"}}}}']
        env = {**os.environ, **docker_env}
        listed = subprocess.run(line, capture_output=True, text=True, check=True, env=env).stdout
        rows = (row.split("\t") for row in listed.splitlines())
        found |= {what for what, owner in rows if str(pid) in owner.split()}
    return found


@pytest.mark.parametrize("engine", ["bubblewrap", "docker"])
def test_an_interrupt_is_one_sentence(
    checkout: Checkout, source: Small, engine: str, request: pytest.FixtureRequest
) -> None:
    """Ctrl-C is how users stop a build; a traceback or a running compiler is no answer."""
    env = request.getfixturevalue("docker_env") if engine == "docker" else {}
    Small(source.archive, source.url, build="printf '==== now\\n'; sleep 100").write(checkout.root)
    with checkout.popen("build", "small", env=env) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.strip().startswith("now (at "):
                break
        process.send_signal(signal.SIGINT)
        said.append(process.stderr.read())
        assert process.wait() == 130
    err = "".join(said)
    assert "Traceback" not in err
    assert "error: Interrupted." in err
    assert running_in(checkout.store) == []
    assert all(path.endswith(".compile.log") for path in left(checkout))
