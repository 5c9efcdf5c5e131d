"""Why a night is red: the first error, not the last thousand lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

from pipeline.check.findings import CheckRecord, Level
from pipeline.evidence import Kind
from pipeline.nightly.night import Trouble
from pipeline.reproduce.report import EXPLANATION
from pipeline.smoke import results as smoke

FINDINGS = "check-findings.json"
_DIFFERENCES = f"{Kind.REPRODUCE}/{EXPLANATION}"
NAMED = (FINDINGS, _DIFFERENCES)
"""Files of a build that its trouble may be named by, besides the boots' results."""
_MOST = 64 << 20
"""Bytes of a log that are looked at."""
_LONGEST = 500

# GCC manual, "Formatting of diagnostics": file:line:column: error: text. Clang's and iasl's are alike.
_COMPILER = re.compile(
    r"^(?P<file>[^\s:(][^\s:]*):(?P<at>\d+)(?::\d+)?: (?:fatal |internal compiler )?error: (?P<text>.+)$"
)
# OCaml manual, "Errors and warnings": the place stands on a line of its own, before the error.
_OCAML = re.compile(r'^File "(?P<file>[^"]+)", lines? (?P<at>\d+)')
_PYTHON = re.compile(r'^  File "(?P<file>[^"]+)", line (?P<at>\d+)')
_LINKER = re.compile(
    r"^(?:\S*ld(?:\.\w+)?: )?(?P<file>\S+?): (?:in function .*|.*undefined reference to .+)$"
)
_PLAIN = (
    re.compile(r"^configure: error: (?P<text>.+)$"),
    re.compile(r"^PKGBUILD: (?P<text>.+)$"),
    re.compile(r"^\S*ld(?:\.\w+)?: (?P<text>.+)$"),
    re.compile(r"^collect2: error: (?P<text>.+)$"),
    re.compile(r"^\S*: (?:fatal )?error: (?P<text>.+)$", re.IGNORECASE),
    re.compile(r"^ERROR: (?P<text>.+)$"),
)
# The last resort: make only tells that something before it went wrong. With -j, the first such line
# belongs to the command that failed first.
_MAKE = re.compile(
    r"^make(?:\[\d+\])?: \*\*\* (?:\[(?P<file>[^\s:\]]+):\d+: (?P<target>[^\]]+)\] )?(?P<text>.+)$"
)
_FOLDER = re.compile(r"^make(?:\[\d+\])?: Entering directory [`'](?P<folder>[^']+)'$")


def first_error(step: str, log: Path, sources: str = "/build/src/") -> Trouble:
    """Find the first error in a log of a compile.

    ``sources`` is where the sources lay, which is cut off paths with the folder below it.
    """
    fallback: Trouble | None = None
    folder = ""
    place: tuple[str, int] | None = None
    for number, line in _lines(log):
        if match := _FOLDER.match(line):
            folder = match["folder"]
            continue
        found: Trouble | None = None
        if match := _COMPILER.match(line):
            found = _trouble(step, log, number, line, match["file"], folder, sources)
        elif match := (_OCAML.match(line) or _PYTHON.match(line)):
            place = (match["file"], number)
            continue
        elif place is not None and line.startswith("Error: "):
            found = _trouble(step, log, number, f"{place[0]}: {line}", place[0], folder, sources)
        elif "undefined reference to" in line and (match := _LINKER.match(line)):
            found = _trouble(step, log, number, line, match["file"], folder, sources)
        elif match := next((m for p in _PLAIN if (m := p.match(line))), None):
            found = _trouble(step, log, number, line, "", folder, sources)
        if found is not None:
            return found
        if fallback is None and (match := _MAKE.match(line)):
            where = match["target"] or ""
            fallback = _trouble(step, log, number, line, where, folder, sources)
    return fallback or Trouble(step=step, error="The log names no error.", log=log.name)


def _lines(log: Path) -> Iterator[tuple[int, str]]:
    try:
        with log.open("rb") as file:
            data = file.read(_MOST)
    except OSError:
        return
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        yield number, line.rstrip()[:_LONGEST]


def _trouble(step: str, log: Path, number: int, line: str, file: str, folder: str, sources: str) -> Trouble:
    path = _upstream(file, folder, sources) if file else ""
    return Trouble(step=step, error=line.strip(), log=log.name, line=number, file=path, area=area(path))


def _upstream(file: str, folder: str, sources: str) -> str:
    """A path as upstream has it: from the top of its tree, where that can be told."""
    whole = PurePosixPath(file)
    if not whole.is_absolute() and folder.startswith(sources):
        # GCC is mostly run in the folder that make has entered last.
        whole = PurePosixPath(folder) / file
    parts: list[str] = []
    for part in whole.parts:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    text = str(PurePosixPath(*parts)) if parts else file
    if not text.startswith(sources):
        return text
    return text.removeprefix(sources).partition("/")[2]


def area(path: str) -> str:
    """The part of the project that a path belongs to: its folder, three levels at the most."""
    folders = PurePosixPath(path).parts[:-1]
    return "/".join(folders[:3]) if folders and folders[0] != "/" else ""


def of_check(folder: Path) -> Trouble:
    """The first finding that is an error."""
    try:
        record = msgspec.json.decode((folder / FINDINGS).read_bytes(), type=CheckRecord)
    except (OSError, msgspec.DecodeError):
        return Trouble(step="check", error="The findings cannot be read.")
    for finding in record.open:
        if finding.level is Level.ERROR:
            return Trouble(
                step="check",
                error=str(finding),
                log=FINDINGS,
                file=finding.path,
                case=finding.code,
            )
    return Trouble(step="check", error="No finding is an error.", log=FINDINGS)


def of_reproduce(folder: Path) -> Trouble | None:
    """The first difference between the two builds and its cause; None where there was no second build."""
    # The first line says what was varied.
    found = [line for number, line in _lines(folder / _DIFFERENCES) if number > 1 and line]
    if not found:
        return None
    error = f"{found[0]} And {len(found) - 1} more." if len(found) > 1 else found[0]
    return Trouble(step=Kind.REPRODUCE, error=error, log=_DIFFERENCES)


def of_smoke(folder: Path, step: str = "smoke") -> Trouble:
    """The first check that failed on the booted machine; the step's results are in the folder of its name."""
    log = f"{step}/{smoke.SERIAL}"
    try:
        result = smoke.read(folder / step / smoke.JSON)
    except (OSError, msgspec.DecodeError):
        return Trouble(step=step, error="There are no results.")
    for check in result.failures:
        kind = f"{check.failure}: " if check.failure else ""
        text = f"{check.title}: {kind}{check.evidence}"
        return Trouble(step=step, error=text[:_LONGEST], log=log, case=check.name)
    return Trouble(step=step, error="No check failed.", log=log)
