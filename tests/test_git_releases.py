"""Releases from git commits by the real command line, in copies of this checkout."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pipeline import recipe, release
from pipeline.errors import UsageError
from pipeline.source import GitSource
from tests import checkouts, small
from tests.checkouts import Checkout
from tests.repositories import Repository, git

URL = "https://git.invalid/small.git"
GIT = """
[[git]]
name = "{name}"
urls = ["{url}"]
commit = "{commit}"
"""
FILE = """
[[sources]]
name = "extra.tar"
urls = ["https://files.invalid/extra.tar"]
size = {size}
sha256 = "{sha256}"
"""


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """The small package's source as a repository."""
    made = Repository.make(tmp_path / "clones" / "small")
    archive = tmp_path / "small.tar.gz"
    archive.write_bytes(small.archive("git"))
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            made.commit({member.name.partition("/")[2]: file.read()})
    return made


def rewrite(project: Path, *sources: str) -> None:
    """Replace the small release's sources."""
    path = project / "releases" / "small.toml"
    head, _, rest = path.read_text().partition("[[sources]]")
    path.write_text(head + "".join(sources) + "[tokens]" + rest.partition("[tokens]")[2])


def add_rewrites(project: Path, rewrites: dict[str, str]) -> None:
    """Set mirrors.rewrites."""
    path = project / "invoke.yaml"
    lines = "".join(f'      "{url}": ["{other}"]\n' for url, other in rewrites.items())
    path.write_text(f"pipeline:\n  mirrors:\n    rewrites:\n{lines}")


def pinned(repository: Repository, name: str = "small-1.0", url: str = URL) -> str:
    return GIT.format(name=name, url=url, commit=repository.git("rev-parse", "HEAD"))


@pytest.fixture
def bare_checkout(tmp_path: Path) -> Checkout:
    """A checkout of the small release, whose store is empty and which has no image."""
    root = checkouts.copy(tmp_path / "a copy für sich")
    small.Small(b"", "https://files.invalid/small.tar.gz").write(root)
    return Checkout(root, tmp_path / "store")


def test_fetch_takes_what_lies_in_a_folder(
    bare_checkout: Checkout, repository: Repository, tmp_path: Path
) -> None:
    """Otherwise users who have the sources at hand cannot build them once the hosts are gone."""
    data = b"extra" * 50
    (tmp_path / "clones" / "renamed").write_bytes(data)
    extra = FILE.format(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    rewrite(bare_checkout.root, extra, pinned(repository))
    found = bare_checkout.run("fetch", "small", "--from", str(tmp_path / "clones")).fine()
    one, two = (Path(line) for line in found.out.splitlines())
    assert one.read_bytes() == data
    with tarfile.open(two) as tar:
        assert "small-1.0/small.c" in tar.getnames()


def test_all_that_fetch_could_not_have_is_one_error(
    bare_checkout: Checkout, repository: Repository, tmp_path: Path
) -> None:
    """Otherwise users learn of missing sources one by one, and not where they were looked for."""
    local = f"file://{tmp_path}/none"
    commit = repository.git("rev-parse", "HEAD")
    rewrite(bare_checkout.root, FILE.format(size=7, sha256="a" * 64), pinned(repository))
    add_rewrites(bare_checkout.root, {"https://files.invalid": f"{local}", "https://git.invalid": local})
    failed = bare_checkout.run("fetch", "small").failed(3)
    for said in (
        "2 of 2 files could not be fetched",
        f"extra.tar (7 bytes, SHA-256 {'a' * 64})",
        f"{local}/extra.tar: No such file or directory",
        f"small-1.0 (git commit {commit})",
        f"{local}/small.git: '{tmp_path}/none/small.git' does not appear to be a git repository",
    ):
        assert said in failed.err
    bare_checkout.run("fetch", "small", "--from", str(tmp_path / "typo")).failed(2)


@pytest.mark.integration
def test_a_package_is_built_from_a_commit(
    new_checkout: Callable[[str], Checkout], repository: Repository, tmp_path: Path
) -> None:
    """Otherwise releases without tarballs cannot be built; a local clone stands in for the URL."""
    built = []
    for name in ("one", "two"):
        checkout = new_checkout(name)
        rewrite(checkout.root, pinned(repository))
        clone = tmp_path / f"{name} clone"
        git("clone", "--quiet", "--bare", repository.url, str(clone), cwd=tmp_path)
        add_rewrites(checkout.root, {URL: clone.as_uri()})
        checkout.run("build", "small").fine()
        built.append(checkout.packages())
        srcinfo = (checkout.latest / "aur" / ".SRCINFO").read_text()
        commit = repository.git("rev-parse", "HEAD")
        assert f"source = small-1.0::git+{URL}#commit={commit}\n" in srcinfo
        assert "sha256sums = SKIP\n" in srcinfo
    assert built[0] == built[1]
    assert len(built[0]) == 2
    # And plain makepkg builds the AUR folder, given a clone in the place of the network.
    git("init", "--quiet", "--bare", "small.git", cwd=tmp_path)
    remote = {"INVOKE_PIPELINE_AUR": str(tmp_path / "small.git")}
    said = checkout.run("aur.push", "--dry-run", env=remote).fine()
    assert "makepkg made small-1.0-1-x86_64.pkg.tar" in said.err
    assert f"+source = small-1.0::git+{URL}#commit={commit}" in said.out.replace("\t", "")


def read(monkeypatch: pytest.MonkeyPatch, checkout: Checkout) -> release.Release:
    monkeypatch.setattr(release, "RELEASES", checkout.root / "releases")
    return release.read("small")


def test_a_name_is_given_once(
    bare_checkout: Checkout, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one source overwrites another in the build folder."""
    rewrite(bare_checkout.root, FILE.format(size=7, sha256="a" * 64), pinned(repository, "extra"))
    with pytest.raises(UsageError, match=r"two sources are called extra \(at git\[0\]\.name\)"):
        read(monkeypatch, bare_checkout)


def test_a_release_has_sources(bare_checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a release file that lost its sources is built from nothing."""
    rewrite(bare_checkout.root)
    with pytest.raises(UsageError, match="nothing to build from"):
        read(monkeypatch, bare_checkout)


@pytest.mark.parametrize("scheme", ["git", "https", "ssh"])
def test_makepkg_is_given_the_commit(
    scheme: str, bare_checkout: Checkout, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the AUR's users build another commit, or none."""
    rewrite(bare_checkout.root, pinned(repository, url=f"{scheme}://git.invalid/x"))
    monkeypatch.setattr(recipe, "TEMPLATE", bare_checkout.root / "PKGBUILD.in")
    text = recipe.render(read(monkeypatch, bare_checkout), "https://deb.invalid").pkgbuild
    url = f"{scheme}://git.invalid/x" if scheme == "git" else f"git+{scheme}://git.invalid/x"
    assert f"small-1.0::{url}#commit={repository.git('rev-parse', 'HEAD')}" in text
    assert "\nsha256sums=(\n  SKIP\n" in text


def test_each_part_of_a_pin_is_part_of_its_identity() -> None:
    """Otherwise a build of another commit is taken for this one's."""
    base = {"name": "a", "urls": ("https://a.invalid/x",), "commit": "0" * 40}
    others = [{"name": "b"}, {"commit": "1" * 40}, {"submodules": "empty"}]
    sources = [msgspec.convert({**base, **other}, GitSource) for other in [{}, *others]]
    assert len({source.identity for source in sources}) == 4
