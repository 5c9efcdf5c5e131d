"""Where a pinned URL is looked for, and in which order."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.mirrors import Mirrors, NoMirrorError, apt_mirrors, parse_apt_targets

POOL = "debian:pool/main/x/xen/xen_4.17.5+72-g01140da4e8.orig.tar.xz"
FILE = POOL.removeprefix("debian:")


def no_apt() -> tuple[str, ...]:
    return ()


def test_a_url_nobody_rewrites_is_tried_as_it_is() -> None:
    """Otherwise no release without mirror settings could be fetched."""
    assert Mirrors(apt=no_apt).resolve("https://a.example/x.tar") == ("https://a.example/x.tar",)


def test_replacements_come_in_order_and_before_the_original() -> None:
    """Otherwise a site with its own mirror would load the outside world first."""
    mirrors = Mirrors(
        {"https://a.example/": ("http://one.test/a", "file:///srv/a/")},
        apt=no_apt,
    )
    assert mirrors.resolve("https://a.example/x/y.tar") == (
        "http://one.test/a/x/y.tar",
        "file:///srv/a/x/y.tar",
        "https://a.example/x/y.tar",
    )


def test_the_longest_prefix_goes_first() -> None:
    """Otherwise a special mirror for one project would wait behind the general one."""
    mirrors = Mirrors(
        {"https://a.example/": ("http://general.test/",), "https://a.example/xen": ("http://xen.test/",)},
        apt=no_apt,
    )
    assert mirrors.resolve("https://a.example/xen/f") == (
        "http://xen.test/f",
        "http://general.test/xen/f",
        "https://a.example/xen/f",
    )


@pytest.mark.parametrize("url", ["https://a.example.evil/f", "https://a.examplef", "http://a.example/f"])
def test_a_prefix_ends_where_a_segment_does(url: str) -> None:
    """Otherwise the settings for one host would redirect another whose name begins the same way."""
    assert Mirrors({"https://a.example": ("http://m.test",)}, apt=no_apt).resolve(url) == (url,)


def test_a_whole_url_can_be_replaced() -> None:
    """Otherwise one dead link could not be pointed at a file with another name."""
    mirrors = Mirrors({"https://a.example/f": ("file:///tmp/g",)}, apt=no_apt)
    assert mirrors.resolve("https://a.example/f") == ("file:///tmp/g", "https://a.example/f")


def test_debian_files_come_from_settings_then_apt_then_the_snapshots() -> None:
    """Otherwise a file that has left the mirrors is lost although the snapshot archive has it."""
    mirrors = Mirrors(
        debian=("http://own.test/debian",),
        debian_snapshot="http://snapshot.test/archive/debian/20240101T000000Z/",
        apt=lambda: ("http://apt.test/debian/", "http://own.test/debian/"),
    )
    assert mirrors.resolve(POOL) == (
        f"http://own.test/debian/{FILE}",
        f"http://apt.test/debian/{FILE}",
        f"http://snapshot.test/archive/debian/20240101T000000Z/{FILE}",
    )


def test_rewrites_hold_for_debian_files_too() -> None:
    """Otherwise a site's cache in front of its Debian mirror is passed by."""
    rewrites = {"http://apt.test/": ("http://cache.test/apt/",), "debian:": ("file:///srv/debian",)}
    mirrors = Mirrors(rewrites, apt=lambda: ("http://apt.test/debian",))
    assert mirrors.resolve(POOL) == (
        f"file:///srv/debian/{FILE}",
        f"http://cache.test/apt/debian/{FILE}",
        f"http://apt.test/debian/{FILE}",
    )


def test_a_web_url_can_be_replaced_by_a_debian_one() -> None:
    """Otherwise a dead project site cannot be replaced by what Debian keeps."""
    mirrors = Mirrors({"https://a.example/": ("debian:pool/",)}, debian=("http://d.test",), apt=no_apt)
    assert mirrors.resolve("https://a.example/f") == ("http://d.test/pool/f", "https://a.example/f")


def test_no_mirror_at_all_names_the_setting() -> None:
    """Otherwise users of other distributions are left without a way on."""
    with pytest.raises(NoMirrorError) as caught:
        Mirrors(apt=no_apt).resolve(POOL)
    assert POOL in caught.value.message
    assert "mirrors.debian" in (caught.value.hint or "")


def test_apt_is_asked_only_for_debian_files() -> None:
    """Otherwise every fetch pays for a call of apt, and hosts without apt for a failed one."""

    def apt() -> tuple[str, ...]:
        raise AssertionError("asked")

    Mirrors(apt=apt).resolve("https://a.example/f")


@pytest.mark.parametrize(
    ("make", "setting"),
    [
        (lambda: Mirrors({"https://a.example/": ("/srv/mirror",)}), "mirrors.rewrites"),
        (lambda: Mirrors({"https://a.example/": ("ftp://b.test/",)}), "mirrors.rewrites"),
        (lambda: Mirrors({"https://a.example/": ("http://[b/",)}), "mirrors.rewrites"),
        (lambda: Mirrors(debian=("deb.test/debian",)), "mirrors.debian"),
        (lambda: Mirrors(debian=("file://debian",)), "mirrors.debian"),
        (lambda: Mirrors(debian_snapshot="https:///x"), "mirrors.debian_snapshot"),
    ],
)
def test_a_setting_that_is_no_url_is_named(make: Callable[[], Mirrors], setting: str) -> None:
    """Otherwise a typing mistake shows as a dead mirror, late and far from its cause."""
    with pytest.raises(UsageError, match=setting):
        make()


def test_apt_targets_are_ranked_and_foreign_archives_left_out() -> None:
    """Otherwise a vendor's archive is asked for Debian's files, or the security archive first."""
    output = (
        "http://d.test/debian-security/\tDebian\tDebian-Security\n"
        "http://unknown.test/debian/\t\t\n"
        "https://docker.test/linux/\tDocker\tDocker CE\n"
        "cdrom:[Debian 12]/\tDebian\tDebian\n"
        "http://d.test/debian/\tDebian\tDebian\n"
        "http://d.test/debian/\tDebian\tDebian\n"
        "file:/srv/debian/\tDebian\tDebian\n"
        "http://new.test/debian/\t$(ORIGIN)\t$(LABEL)\n"
        "\n"
    )
    assert parse_apt_targets(output) == (
        "http://d.test/debian/",
        "file:/srv/debian/",
        "http://d.test/debian-security/",
        "http://unknown.test/debian/",
        "http://new.test/debian/",
    )


@pytest.mark.skipif(not shutil.which("apt-get"), reason="this host has no apt")
def test_the_hosts_own_apt_is_understood(tmp_path: Path) -> None:
    """Otherwise Debian hosts, whose apt knows a mirror, still ask for a setting. Real apt, own lists."""
    sources = tmp_path / "sources.list"
    sources.write_text("deb [trusted=yes] http://127.0.0.1:9/debian bookworm main\n")
    for folder in ("state/lists/partial", "parts", "preferences"):
        (tmp_path / folder).mkdir(parents=True)
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::Etc::sourcelist "{sources}";\nDir::Etc::sourceparts "{tmp_path}/parts";\n'
        f'Dir::State::lists "{tmp_path}/state/lists";\n'
    )
    code = "from pipeline.mirrors import apt_mirrors; print(apt_mirrors())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"APT_CONFIG": str(config), "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "('http://127.0.0.1:9/debian/',)"


def test_a_host_without_apt_has_no_apt_mirrors(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Otherwise Arch hosts end with a complaint about a missing apt-get."""
    monkeypatch.setenv("PATH", str(tmp_path))
    apt_mirrors.cache_clear()
    try:
        assert apt_mirrors() == ()
    finally:
        apt_mirrors.cache_clear()


segments = st.lists(st.text("abc.+~-", min_size=1, max_size=4), min_size=1, max_size=4)
roots = st.builds(
    lambda scheme, path, slash: f"{scheme}/{'/'.join(path)}{slash}",
    st.sampled_from(["http://m.test", "https://n.test:8", "file://"]),
    segments,
    st.sampled_from(["", "/"]),
)


@given(
    st.dictionaries(roots, st.lists(roots, max_size=3).map(tuple), max_size=4),
    st.lists(roots, max_size=3).map(tuple),
    st.one_of(st.none(), roots),
    roots,
    segments,
)
def test_resolution_never_loses_or_bends_a_url(
    rewrites: dict[str, tuple[str, ...]],
    debian: tuple[str, ...],
    snapshot: str | None,
    root: str,
    path: list[str],
) -> None:
    """Whatever the settings: the original is tried too, nothing twice, and file names stay whole."""
    mirrors = Mirrors(rewrites, debian, snapshot, apt=no_apt)
    url = f"{root.rstrip('/')}/{'/'.join(path)}"
    resolved = mirrors.resolve(url)
    assert url in resolved
    assert len(set(resolved)) == len(resolved)
    whole = {target for prefix, targets in rewrites.items() if prefix == url for target in targets}
    assert all(one.endswith("/" + path[-1]) for one in resolved if one not in whole)
    assert all("//" not in one.split("://", 1)[1].lstrip("/") for one in resolved)


@given(st.lists(roots, min_size=1, max_size=3).map(tuple), st.one_of(st.none(), roots), segments)
def test_every_debian_root_is_tried_once_in_order(
    debian: tuple[str, ...], snapshot: str | None, path: list[str]
) -> None:
    """Otherwise a mirror of the settings is silently never asked."""
    name = "/".join(path)
    given_roots = [*debian, *([snapshot] if snapshot else [])]
    expected = dict.fromkeys(f"{root.rstrip('/')}/{name}" for root in given_roots)
    assert Mirrors(debian=debian, debian_snapshot=snapshot, apt=no_apt).resolve(f"debian:{name}") == tuple(
        expected
    )
