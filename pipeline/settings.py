"""The user's settings, from Invoke's own configuration: files, and INVOKE_PIPELINE_* variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from pipeline.errors import UsageError
from pipeline.version import PROJECT

# Every command reads the settings' defaults, --list and Tab too, and most of what they are for is large.
if TYPE_CHECKING:
    from pipeline.mirrors import Mirrors
    from pipeline.store import Store

_PREFIX = "INVOKE_PIPELINE_"
_MANY = 1_000_000
"""More than any number that is meant: GiB, minutes, hours, versions."""


def words(text: str) -> tuple[str, ...]:
    """Part a list of names at its commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


class MirrorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``mirrors.*``: see pipeline.mirrors.Mirrors."""

    rewrites: dict[str, tuple[str, ...]] = {}
    debian: tuple[str, ...] = ()
    debian_snapshot: str | None = ""


class NightlySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``nightly.*``: see docs/nightlies.md.

    ``release`` is built at the newest commit of ``branch``, by default the release file's own. ``steps`` are
    commands after ``build``, in order; ``limits`` how many minutes each may take. ``budget`` is how many GiB
    the builds that are kept may have, and ``free`` how many must be free before a night begins. ``notify`` is
    a command that gets each night's record, as JSON, on its standard input. ``publish``: what passes goes to
    the channel ``unstable``. ``ccache`` is how many GiB each image's compiled files may take, from which
    nights and bisections compile faster; 0 compiles everything anew. ``full``: the packages are installed on
    a whole host too, once a day, where the release's image names one.
    """

    release: str = "unstable"
    branch: str = ""
    steps: tuple[str, ...] = ("check", "reproduce", "smoke")
    limits: dict[str, Annotated[float, msgspec.Meta(gt=0, le=_MANY)]] = {}
    budget: Annotated[float, msgspec.Meta(ge=0, le=_MANY)] = 20
    free: Annotated[float, msgspec.Meta(ge=0, le=_MANY)] = 5
    notify: tuple[str, ...] = ()
    publish: bool = True
    full: bool = True
    ccache: Annotated[float, msgspec.Meta(ge=0, le=_MANY)] = 5


class RepositorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``repository.*``: each package's newest ``keep`` versions stay, and what clients could fetch until
    less than ``grace`` hours ago.
    """

    keep: Annotated[int, msgspec.Meta(ge=1, le=_MANY)] = 3
    grace: Annotated[float, msgspec.Meta(ge=0, le=_MANY)] = 24


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``pipeline.*`` of the configuration.

    ``release`` is what commands work on when none is named. ``without`` names features that are left out
    of every release that has them, as a list or parted by commas. ``jobs`` is how many processes a
    compile uses and ``downloads`` how many files are fetched at once; 0 jobs means one a core.
    ``packager`` is makepkg's PACKAGER, which is written into packages. ``signing_key`` is the fingerprint of
    the OpenPGP key that signs, none where it is empty; ``trusted_keys`` are files with the public keys of
    others whose signatures count. ``locked`` makes a missing lock of an image an error. ``aur`` is the AUR's
    git repository. ``store`` and ``artifacts`` are folders; a relative one counts from the project.
    """

    release: str = "4.2"
    without: str | tuple[str, ...] = ""
    engine: str = "auto"
    jobs: Annotated[int, msgspec.Meta(ge=0, le=4096)] = 0
    downloads: Annotated[int, msgspec.Meta(ge=1, le=100)] = 6
    packager: str = "Unknown Packager"
    signing_key: Annotated[str, msgspec.Meta(pattern="^([0-9A-F]{40})?$")] = ""
    trusted_keys: str | tuple[str, ...] = ""
    locked: bool = False
    store: str = ""
    artifacts: str = "artifacts"
    mirrors: MirrorSettings = MirrorSettings()
    nightly: NightlySettings = NightlySettings()
    repository: RepositorySettings = RepositorySettings()
    aur: Annotated[str, msgspec.Meta(pattern=r"^[^\s-][^\s]*$")] = "ssh://aur@aur.archlinux.org/xen.git"

    @classmethod
    def read(cls, config: Any) -> Settings:
        """Check the configuration's ``pipeline`` table; raises UsageError naming the setting."""
        # Invoke's own type of table is no Mapping, but as good as one.
        if not hasattr(config, "keys"):
            raise UsageError("The settings under `pipeline` are wrong: they must be a table.")
        try:
            settings = msgspec.convert(dict(config), cls, strict=False)
        except msgspec.ValidationError as e:
            problem, _, where = str(e).partition(" - at ")
            key = where.strip("`").removeprefix("$.") or "the top level"
            raise UsageError(f"The settings under `pipeline` are wrong: {problem} (at {key}).") from e
        from pipeline.engine.choice import EngineChoice

        EngineChoice.parse(settings.engine)
        settings._refuse_odd_text()
        return settings

    def _refuse_odd_text(self) -> None:
        """Raise UsageError for what no path, URL or package can hold, and for the home of nobody."""
        for key, text in _texts(msgspec.to_builtins(self)):
            if re.search("[\0\ud800-\udfff]", text) or (key == "packager" and not text.isprintable()):
                raise UsageError(
                    f"The settings under `pipeline` are wrong: {text!a} has characters that cannot be there"
                    f" (at {key})."
                )
        try:
            _ = self.artifacts_folder, self.open_store, self.key_files
        except RuntimeError as e:
            raise UsageError("The settings under `pipeline` name the home folder (~) of nobody.") from e

    @property
    def left_out(self) -> tuple[str, ...]:
        """The names in ``without``."""
        return words(self.without) if isinstance(self.without, str) else self.without

    @property
    def key_files(self) -> tuple[Path, ...]:
        """The files in ``trusted_keys``."""
        named = words(self.trusted_keys) if isinstance(self.trusted_keys, str) else self.trusted_keys
        return tuple((PROJECT / Path(name).expanduser()).resolve() for name in named)

    @property
    def keeps_locks(self) -> bool:
        """Whether a missing lock of an image is an error: where nobody could commit a new one, it is."""
        return self.locked or os.environ.get("CI", "").lower() not in ("", "0", "false")

    @property
    def open_store(self) -> Store:
        """The store, by default in the user's cache folder."""
        import platformdirs

        from pipeline.store import Store

        if self.store:
            return Store((PROJECT / Path(self.store).expanduser()).resolve())
        return Store(platformdirs.user_cache_path("xen-aur-pipeline"))

    @property
    def artifacts_folder(self) -> Path:
        """Where packages and results go."""
        return (PROJECT / Path(self.artifacts).expanduser()).resolve()

    @property
    def repository_folder(self) -> Path:
        """Where pacman repositories are published, a folder a channel."""
        return self.artifacts_folder / "repo"

    @property
    def open_mirrors(self) -> Mirrors:
        """The mirrors."""
        from pipeline.mirrors import Mirrors

        return Mirrors(
            rewrites=self.mirrors.rewrites,
            debian=self.mirrors.debian,
            debian_snapshot=self.mirrors.debian_snapshot or None,
        )

    @property
    def compile_jobs(self) -> int:
        """How many processes a compile uses."""
        return self.jobs or len(os.sched_getaffinity(0))


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in the settings, each with where it is."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _texts(name, key)
            yield from _texts(one, f"{key}.{name}".removeprefix("."))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one, key)


def defaults(kind: type[msgspec.Struct] = Settings) -> dict[str, Any]:
    """The settings that variables can set, with their defaults: what is no table and no list.

    As text, which `Settings.read` takes: Invoke would end in a traceback for a variable "many" in the place
    of a number.
    """
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if isinstance(field.default, msgspec.Struct):
            found[field.name] = defaults(type(field.default))
        elif isinstance(field.default, bool):
            found[field.name] = str(int(field.default))
        elif isinstance(field.default, str | int | float):
            found[field.name] = str(field.default)
    return found


def refuse_unknown_variables() -> None:
    """Raise UsageError for a variable that looks as if it set something, and does not."""
    known = set(_variables(_PREFIX, defaults()))
    for name in sorted(os.environ):
        if name.startswith(_PREFIX) and name not in known:
            raise UsageError(
                f"The variable {name} sets nothing.",
                hint="docs/settings.md lists the settings; tables and lists are set in files only.",
            )


def _variables(prefix: str, settings: dict[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _variables(f"{prefix}{name.upper()}_", value)
        else:
            yield f"{prefix}{name.upper()}"
