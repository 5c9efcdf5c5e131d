"""What may stand at the end of a command line that is being typed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from invoke.parser.argument import Argument
from invoke.parser.context import ParserContext

from pipeline.errors import PipelineError


@dataclass(frozen=True)
class Candidate:
    """A word that may stand there, and what it means."""

    word: str
    meaning: str = ""

    def __str__(self) -> str:
        return f"{self.word}\t{self.meaning}" if self.meaning else self.word


def complete(
    words: Sequence[str], commands: Sequence[ParserContext], meanings: Mapping[str, str], free: Sequence[str]
) -> list[Candidate]:
    """Return what may stand in the place of the last of ``words``; none means a file's name.

    ``words`` are those after ./inv, ``commands`` all commands with ``meanings`` of one line, and ``free``
    the names of arguments that may be given without their options.
    """
    *before, last = words or [""]
    command, pending = _place(before, commands)
    option, equals, _ = last.partition("=")
    if command is not None and equals and option in command.flags:
        found = [f"{option}={value}" for value in _values(command.name, command.flags[option])]
        return _starting(last, map(Candidate, found))
    if command is not None and pending is not None:
        return _starting(last, map(Candidate, _values(command.name, pending)))
    if last.startswith("-"):
        return _starting(last, _options(command) if command else _CORE)
    found_values = [
        value
        for name in free
        if command is not None and name in command.args
        for value in _values(command.name, command.args[name])
    ]
    names = [Candidate(name, meanings.get(name, "")) for c in commands for name in _names(c)]
    return _starting(last, [*map(Candidate, found_values), *names])


def _place(
    before: Sequence[str], commands: Sequence[ParserContext]
) -> tuple[ParserContext | None, Argument | None]:
    """Find the command that is being typed, and the option whose value is to come next."""
    by_name = {name: c for c in commands for name in (c.name, *c.aliases)}
    command: ParserContext | None = None
    pending: Argument | None = None
    for word in before:
        if pending is not None:
            pending = None
        elif word.startswith("-"):
            flag = command.flags.get(word) if command is not None else None
            pending = flag if flag is not None and flag.takes_value else None
        else:
            command = by_name.get(word, command)
    return command, pending


def _names(command: ParserContext) -> list[str]:
    """How a command is called: a collection's default by the collection's name."""
    return list(command.aliases) or [str(command.name)]


def _options(command: ParserContext) -> list[Candidate]:
    found = []
    for argument in command.args.values():
        name = str(argument.name).replace("_", "-").rstrip("-")
        found.append(Candidate(f"--{name}", str(argument.help or "")))
        if argument.default is True:
            found.append(Candidate(f"--no-{name}", str(argument.help or "")))
    return [*found, Candidate("--help", "Explain the command.")]


_CORE = [
    Candidate("--list", "Show all commands."),
    Candidate("--help", "Explain a command."),
    Candidate("--version", "Show the version."),
]


def _values(command: str | None, argument: Argument) -> list[str]:
    """The values that an argument of a command can have, as far as there is a list of them."""
    name = str(argument.name).rstrip("_")
    source = _SOURCES.get(f"{command} {name}") or _SOURCES.get(name)
    try:
        return sorted(source()) if source else []
    except PipelineError:
        return []  # a broken release file is told where it is used, not in the middle of a line


def _releases() -> Iterable[str]:
    from pipeline import release

    return release.known()


def _images() -> Iterable[str]:
    from pipeline.image.definition import CONTAINERS

    return [path.stem for path in CONTAINERS.glob("*.toml")]


def _features() -> Iterable[str]:
    from pipeline import release

    return release.known_features()


def _variations() -> Iterable[str]:
    from pipeline.reproduce.variations import Variation

    return [str(variation) for variation in Variation]


_SOURCES: Mapping[str, Callable[[], Iterable[str]]] = {
    "release": _releases,
    "target": _releases,
    "expect": _releases,
    "packages": _releases,
    "before": _releases,
    "after": _releases,
    "image": _images,
    "without": _features,
    "vary": _variations,
    "channel": lambda: ("stable", "unstable"),
    "image name": _images,
    "image.ready name": _images,
    "image.lock name": _images,
    "bisect check": lambda: ("build", "check", "reproduce", "smoke"),
}


def _starting(start: str, candidates: Iterable[Candidate]) -> list[Candidate]:
    found = {candidate.word: candidate for candidate in candidates if candidate.word.startswith(start)}
    return list(found.values())
