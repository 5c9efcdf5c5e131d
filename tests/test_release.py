"""Release files: every mistake is one sentence that names the file and the key."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import recipe, release
from pipeline.definition import read_toml, toml_inline
from pipeline.errors import UsageError
from pipeline.image.definition import ArchDefinition, DebianDefinition
from pipeline.image.lock import ArchLock, DebianLock
from pipeline.release import BranchLock, Release

SUM = "a" * 64
GOOD = f"""
version = "4.17.5"
xen_version = "4.17.5"
source_date_epoch = 1763053103
image = "debian-bookworm"

[[sources]]
name = "xen.tar.gz"
urls = ["https://example.org/xen.tar.gz"]
size = 10
sha256 = "{SUM}"

[tokens]
SRCDIR = "xen"

[expected]
xen = ["usr/bin/xl"]
"""


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(release, "RELEASES", tmp_path)
    return tmp_path


def test_a_good_file_is_read(releases: Path) -> None:
    """Or nothing could be built at all."""
    (releases / "4.17.toml").write_text(GOOD)
    found = release.read("4.17")
    assert (found.name, found.version, found.revision) == ("4.17", "4.17.5", 1)
    assert release.known() == ["4.17"]


@pytest.mark.parametrize("like", ["5", "['a']", "'a\\u0000b'", "'../4.17'", "'4.99'"])
def test_what_a_release_is_like_must_be_there(releases: Path, like: str) -> None:
    """The sentence spoke of a file that nobody had named."""
    (releases / "4.17.toml").write_text(f"like = {like}\n".replace("'", '"'))
    with pytest.raises(UsageError, match="at like"):
        release.read("4.17")


def test_a_release_file_that_is_a_pipe_is_refused(releases: Path) -> None:
    """Reading it would wait for ever."""
    os.mkfifo(releases / "4.17.toml")
    with pytest.raises(UsageError, match="not a regular file"):
        release.read("4.17")


def test_the_releases_of_this_project_are_good() -> None:
    """A mistake in one of them would be found by its users only."""
    for name in release.known():
        assert release.read(name).expected, name


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("image =", "colour = 1\nimage =", "colour"),
        ("size = 10", "size = 10\nmode = 3", "mode"),
        (f'sha256 = "{SUM}"', "", "sha256"),
        (f'sha256 = "{SUM}"', 'sha256 = "abc"', "sources[0].sha256"),
        (f'sha256 = "{SUM}"', f'sha256 = "{SUM.upper()}"', "sources[0].sha256"),
        ("https://example.org/xen.tar.gz", "ftp://example.org/xen.tar.gz", "sources[0].urls[0]"),
        ("https://example.org/xen.tar.gz", "file:///etc/passwd", "sources[0].urls[0]"),
        ('urls = ["https://example.org/xen.tar.gz"]', "urls = []", "sources[0].urls"),
        ("size = 10", "size = 0", "sources[0].size"),
        ("size = 10", "", "size"),
        ('name = "xen.tar.gz"', 'name = "../xen.tar.gz"', "sources[0].name"),
        ('name = "xen.tar.gz"', 'name = "-rf"', "sources[0].name"),
        ('version = "4.17.5"\nxen', 'version = "4.17-rc1"\nxen', "version"),
        ('version = "4.17.5"\nxen', 'version = "1:4.17"\nxen', "version"),
        ('version = "4.17.5"\nxen', 'version = "4.17 5"\nxen', "version"),
        ('version = "4.17.5"\nxen', 'version = "4.17/5"\nxen', "version"),
        ('version = "4.17.5"\nxen', 'version = ""\nxen', "version"),
        ('xen_version = "4.17.5"', 'xen_version = "four"', "xen_version"),
        ("source_date_epoch = 1763053103", 'source_date_epoch = "today"', "source_date_epoch"),
        ('SRCDIR = "xen"', "SRCDIR = 1", "tokens"),
        ('SRCDIR = "xen"', 'srcdir = "xen"', "tokens"),
        ('"usr/bin/xl"', '"/usr/bin/xl"', "expected"),
        ("image =", 'name = "4.18"\nimage =', "name"),
    ],
)
def test_a_mistake_is_named(releases: Path, old: str, new: str, key: str) -> None:
    """Otherwise a maintainer gets a traceback, or a package of something else than was meant."""
    assert old in GOOD
    (releases / "4.17.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        release.read("4.17")
    assert "4.17.toml" in caught.value.message
    assert key in caught.value.message
    assert "\n" not in caught.value.message


def test_two_sources_of_one_name_are_refused(releases: Path) -> None:
    """One would silently take the place of the other in the build folder."""
    source = GOOD[GOOD.index("[[sources]]") : GOOD.index("[tokens]")]
    (releases / "4.17.toml").write_text(GOOD.replace("[tokens]", source + "[tokens]"))
    with pytest.raises(UsageError, match=r"4\.17\.toml: two sources .* \(at sources\[1\]\.name\)"):
        release.read("4.17")


@pytest.mark.parametrize("name", ["4.99", "../4.17", "/etc/passwd", "", "4.17.toml"])
def test_an_unknown_release_lists_the_known_ones(releases: Path, name: str) -> None:
    """The list is what somebody who mistyped looks for next."""
    (releases / "4.17.toml").write_text(GOOD)
    with pytest.raises(UsageError) as caught:
        release.read(name)
    assert caught.value.hint == "Releases: 4.17."


LINES = GOOD.splitlines()


@given(
    kind=st.sampled_from([Release, DebianLock, ArchLock, DebianDefinition, ArchDefinition]),
    lines=st.lists(
        st.one_of(
            st.sampled_from(LINES),
            st.text(max_size=30),
            st.builds("{} = {}".format, st.sampled_from(["size", "version", "packages"]), st.integers()),
        )
    ),
)
def test_any_text_is_read_or_explained(
    tmp_path_factory: pytest.TempPathFactory, kind: type[Release], lines: list[str]
) -> None:
    """A traceback says nothing to the user whose file has a typing error."""
    path = tmp_path_factory.mktemp("definition") / "file.toml"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    try:
        read_toml(path, kind)
    except UsageError as e:
        assert "file.toml" in e.message  # noqa: PT017
    shutil.rmtree(path.parent)


@pytest.mark.parametrize(
    "text", [b"\xff", b"a = " + b"[" * 5000, b"a = " + b"1" * 5000, b"a = 1979-99-99", b"[a]\n[a]", b"\0"]
)
def test_hostile_toml_is_explained(tmp_path: Path, text: bytes) -> None:
    """Definitions come by mail too."""
    path = tmp_path / "file.toml"
    path.write_bytes(text)
    with pytest.raises(UsageError, match=r"file\.toml"):
        read_toml(path, Release)


@given(st.dictionaries(st.from_regex(r"[a-z_]+", fullmatch=True), st.text(), max_size=4))
def test_inline_tables_survive_a_round_trip(values: dict[str, str]) -> None:
    """A lock that cannot be read again is worth nothing."""
    import tomllib

    assert tomllib.loads(f"a = {toml_inline(dict(values))}") == {"a": values}


class TestBranch:
    LOCK = BranchLock(
        release="unstable",
        branch="master",
        commit="1" * 40,
        count=60000,
        version="4.24.r60000.g1111111111",
        xen_version="4.24-unstable",
        source_date_epoch=1800000000,
    )

    def test_a_lock_takes_the_place_of_what_the_file_says(self) -> None:
        """A night builds what upstream has tonight, and a rebuild a year later what it had then."""
        found = release.read("unstable").locked(self.LOCK)
        assert (found.version, found.xen_version) == (self.LOCK.version, self.LOCK.xen_version)
        assert found.git[0].commit == self.LOCK.commit
        assert found.tokens["CHANGESET"] == "git:1111111111"
        made = recipe.render(found, "http://mirror.example/debian").pkgbuild
        assert f"#commit={self.LOCK.commit}" in made
        assert "pkgver=4.24.r60000.g1111111111\n" in made

    def test_it_takes_the_place_of_xen(self) -> None:
        """pacman must not let both be installed, and must take it for xen where something asks for xen."""
        made = recipe.render(release.read("unstable"), "http://mirror.example/debian").pkgbuild
        script = "source /dev/stdin; _copy() { :; }; cd() { :; }; _install_support_files() { :; }\n"
        script += 'for f in "${pkgname[@]}"; do "package_$f"; echo "$f ${provides[*]} ${conflicts[*]}"; done'
        done = subprocess.run(["bash", "-ec", script], input=made, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == [
            "xen-unstable xen=4.23.r50464.gc447b7308b xen",
            "xen-unstable-docs xen-docs=4.23.r50464.gc447b7308b xen-docs",
        ]
        plain = recipe.render(release.read("4.20"), "http://mirror.example/debian").pkgbuild
        assert "conflicts=" not in plain

    def test_the_lock_of_another_release_is_refused(self) -> None:
        """It would build one project's commit by another one's recipe."""
        for name in ("unstable", "4.20"):
            lock = msgspec.structs.replace(self.LOCK, release="other")
            with pytest.raises(UsageError, match="lock"):
                release.read(name).locked(lock)
