"""What the second build does differently, and how: each of it alone must not reach the packages' bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pipeline import log
from pipeline.engine import guard
from pipeline.engine.job import WORKSPACE, Circumstances, Engine, Job, JobFailedError
from pipeline.errors import CommandError, UsageError
from pipeline.image.assembly import Image
from pipeline.run import run

_DAYS = 400
_CLOCK = Path(__file__).with_name("clock.c")
_OWN = ".circumstances"
"""The workspace's folder for what the second build is given besides its inputs."""


class Variation(StrEnum):
    """One circumstance; the value is its name on the command line."""

    CLOCK = "clock"
    TIME_ZONE = "time-zone"
    LOCALE = "locale"
    UMASK = "umask"
    USER = "user"
    HOST_NAME = "host-name"
    JOBS = "jobs"
    ORDER = "order"
    HOME = "home"
    CHECKOUT = "checkout"
    ENGINE = "engine"

    @classmethod
    def parse(cls, words: Iterable[str]) -> tuple[Variation, ...]:
        """Read names; raises UsageError for one that there is not."""
        try:
            return tuple(cls(word) for word in words)
        except ValueError as e:
            raise UsageError(f"{e}.", hint=f"Variations: {', '.join(cls)}.") from e


@dataclass(frozen=True)
class Applied:
    """Variations put into effect: the circumstances of jobs, how many processes, and what could not be.

    ``missing`` says of each variation that was not applied why.
    """

    circumstances: Circumstances
    jobs: int
    done: tuple[Variation, ...] = ()
    missing: tuple[tuple[Variation, str], ...] = ()

    def __str__(self) -> str:
        said = f"varied: {', '.join(self.done) or 'nothing'}"
        if self.missing:
            said += "; not varied: " + ", ".join(f"{name} ({why})" for name, why in self.missing)
        return said


@dataclass(frozen=True)
class Surroundings:
    """What applying variations needs: the engine, the images (first the one that compiles), and a folder."""

    engine: Engine
    images: tuple[Image, ...]
    folder: Path


_Result = Circumstances | str
"""New circumstances, or why they could not be."""


def apply(wanted: Iterable[Variation], jobs: int, around: Surroundings) -> Applied:
    """Put variations into effect; raises what the engine raises."""
    applied = Applied(Circumstances(), jobs)
    for variation in wanted:
        if variation is Variation.JOBS:
            # More, not fewer: half the processes would take twice the time.
            applied = replace(applied, jobs=jobs + 1, done=(*applied.done, variation))
        elif variation not in _JOB:
            applied = replace(applied, done=(*applied.done, variation))
        else:
            result = _JOB[variation](applied.circumstances, around)
            if isinstance(result, str):
                applied = replace(applied, missing=(*applied.missing, (variation, result)))
            else:
                applied = replace(applied, circumstances=result, done=(*applied.done, variation))
    return applied


def _with(
    circumstances: Circumstances, environment: dict[str, str], inputs: dict[str, Path] | None = None
) -> Circumstances:
    return replace(
        circumstances,
        environment={**circumstances.environment, **environment},
        inputs={**circumstances.inputs, **(inputs or {})},
    )


def _time_zone(circumstances: Circumstances, _: Surroundings) -> _Result:
    # In POSIX notation, as an image need not have a table of zones: 13 h 45 min east, the other day mostly.
    return _with(circumstances, {"TZ": "XYZ-13:45"})


def _home(circumstances: Circumstances, _: Surroundings) -> _Result:
    return _with(circumstances, {"HOME": "/tmp/elsewhere"})  # noqa: S108  # the job's own


def _umask(circumstances: Circumstances, _: Surroundings) -> _Result:
    return replace(circumstances, umask=0o077)


def _host_name(circumstances: Circumstances, _: Surroundings) -> _Result:
    return replace(circumstances, hostname="another-host")


def _user(circumstances: Circumstances, around: Surroundings) -> _Result:
    if not around.engine.adaptable:
        return "docker runs jobs as the image's user"
    return replace(circumstances, user="somebody", uid=12345)


def _order(circumstances: Circumstances, around: Surroundings) -> _Result:
    if not around.engine.adaptable:
        return "docker lets nobody answer for the kernel"
    if not all(guard.can_reverse(image.root) for image in around.images):
        return "this kernel or an image without Perl lets nobody answer for the kernel"
    return replace(circumstances, reversed_folders=True)


def _locale(circumstances: Circumstances, around: Surroundings) -> _Result:
    """German: it sorts capitals among the small letters, and writes a comma for a point."""
    folder = around.folder / "locale"
    folder.mkdir()
    try:
        run(
            ["localedef", "--no-archive", "-i", "de_DE", "-f", "UTF-8", f"./{folder.name}/de_DE.UTF-8"],
            cwd=folder.parent,
        )
    except CommandError:
        return "the locales package is not installed"
    files = [path for path in folder.rglob("*") if path.is_file()]
    inputs = {f"{_OWN}/locale/{path.relative_to(folder)}": path for path in files}
    names = dict.fromkeys(("LANG", "LC_ALL"), "de_DE.UTF-8")
    return _with(circumstances, {**names, "LOCPATH": f"{WORKSPACE}/{_OWN}/locale"}, inputs)


def _clock(circumstances: Circumstances, around: Surroundings) -> _Result:
    """Days ahead, by a library of our own: programs that load no libc keep the host's clock."""
    options = ("-std=gnu11", "-O2", "-shared", "-fPIC", "-nostdlib", f"-DAHEAD={_DAYS * 86400}")
    name = "clock.so"
    job = Job(("gcc", *options, "-o", f"output/{name}", _CLOCK.name), {_CLOCK.name: _CLOCK})
    output = around.folder / "clock"
    output.mkdir()
    try:
        around.engine.run(job, around.images[0], output, log.info)
    except JobFailedError as e:
        return f"its library could not be compiled: {e.message.rstrip('.')}"
    moved = _with(circumstances, {}, {f"{_OWN}/{name}": output / name})
    return replace(moved, preload=f"{WORKSPACE}/{_OWN}/{name}")


_JOB: dict[Variation, Callable[[Circumstances, Surroundings], _Result]] = {
    Variation.CLOCK: _clock,
    Variation.TIME_ZONE: _time_zone,
    Variation.LOCALE: _locale,
    Variation.UMASK: _umask,
    Variation.USER: _user,
    Variation.HOST_NAME: _host_name,
    Variation.ORDER: _order,
    Variation.HOME: _home,
}
