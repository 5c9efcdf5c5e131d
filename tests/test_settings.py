"""Settings: where they come from, and how a wrong one is named."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from pipeline.errors import UsageError
from pipeline.settings import Settings, defaults
from pipeline.version import PROJECT


def test_defaults_need_nothing() -> None:
    """A newcomer has no settings at all."""
    settings = Settings.read({})
    assert settings.release == "4.2"
    assert settings.open_store.root == platformdirs.user_cache_path("xen-aur-pipeline")
    assert settings.artifacts_folder == PROJECT / "artifacts"
    assert settings.compile_jobs >= 1


def test_folders_count_from_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise packages land wherever somebody happened to stand."""
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = Settings.read({"release": "x", "store": "~/store", "artifacts": "out"})
    assert settings.open_store.root == Path("/home/somebody/store")
    assert settings.artifacts_folder == PROJECT / "out"


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"release": "x", "enginne": "docker"}, "enginne"),
        ({"release": "x", "jobs": "many"}, "jobs"),
        ({"release": "x", "mirrors": {"debian": 3}}, "mirrors.debian"),
        ({"release": "x", "engine": "podman"}, "podman"),
    ],
)
def test_a_wrong_setting_is_named(config: dict[str, object], named: str) -> None:
    """A misspelt setting that does nothing is the hardest to find."""
    with pytest.raises(UsageError) as caught:
        Settings.read(config)
    assert named in caught.value.message


@pytest.mark.parametrize("key", ["jobs", "downloads"])
def test_numbers_must_make_sense(key: str) -> None:
    """A negative number of jobs means make without a limit, or no download at all."""
    with pytest.raises(UsageError, match=key):
        Settings.read({"release": "x", key: -1})


def test_defaults_that_variables_change_are_those_of_the_settings() -> None:
    """A default that is another one as text is one that nobody has written down."""
    assert Settings.read(defaults()) == Settings()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"artifacts": "/a\0b"}, "at artifacts"),
        ({"packager": "a\ndepend = evil"}, "at packager"),
        ({"packager": "sm\udcff"}, "at packager"),
        ({"mirrors": {"rewrites": {"x": ["\0"]}}}, "at mirrors.rewrites.x"),
        ({"store": "~nobody-of-that-name/x"}, "home folder"),
        ({"downloads": 2_000_000_000}, "at downloads"),
        ({"nightly": {"ccache": 1e308}}, "at nightly.ccache"),
    ],
)
def test_what_no_path_or_package_can_hold_is_refused(config: dict[str, object], named: str) -> None:
    """It would come up as a traceback, in the middle of a build, or take all memory."""
    with pytest.raises(UsageError) as caught:
        Settings.read(config)
    assert named in caught.value.message
