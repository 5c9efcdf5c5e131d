"""Runs Invoke so that every failure is one sentence with a hint and the documented exit status."""

from __future__ import annotations

import contextlib
import copy
import locale
import os
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

from invoke.collection import Collection
from invoke.config import AmbiguousMergeError, Config
from invoke.exceptions import (
    AmbiguousEnvVar,
    CollectionNotFound,
    Exit,
    ParseError,
    UncastableEnvVar,
    UnknownFileType,
)
from invoke.parser.context import ParserContext
from invoke.program import Program
from invoke.vendor.yaml import YAMLError

from pipeline import log, overview, settings
from pipeline.errors import ExitStatus, PipelineError
from pipeline.words import OPTIONAL, asks_about, spell_out

INTERRUPTED = 130
"""What shells report for a command ended by Ctrl-C: 128 and SIGINT's number."""


_CONFIGURATION_ERRORS = (AmbiguousEnvVar, AmbiguousMergeError, UncastableEnvVar, UnknownFileType, YAMLError)
"""What Invoke raises for files such as ~/.invoke.yaml, and for INVOKE_* variables."""


class ProjectConfig(Config):
    """Invoke's configuration, with the project's own defaults, which variables may change.

    They come before all files: those of a project take precedence over the user's.
    """

    @staticmethod
    def global_defaults() -> dict[str, object]:
        """Invoke's defaults, and the project's: Invoke reads no variables but those that are known here."""
        return {**Config.global_defaults(), "pipeline": settings.defaults()}


class _Program(Program):
    """Invoke's program, with the commands listed by what they are for."""

    def list_flat(self) -> None:
        """Print the commands, each with its first sentence."""
        width = min(shutil.get_terminal_size((100, 24)).columns, 110)
        groups = overview.grouped(overview.commands(self.scoped_collection))
        column = max(len(command.name) for members in groups.values() for command in members) + 4
        for title, members in groups.items():
            sys.stdout.write(f"{log.paint(title, '1', output=True)}\n")
            for command in members:
                indent = f"  {command.name:<{column - 2}}"
                lines = textwrap.wrap(command.summary, max(30, width - column))
                sys.stdout.write(indent + f"\n{' ' * column}".join(lines) + "\n")
            sys.stdout.write("\n")
        sys.stdout.write("./inv --help COMMAND explains one; several may follow one another.\n")


def contexts(collection: Collection) -> list[ParserContext]:
    """The commands' options; of a copy, as Invoke takes the help texts out of the tasks for it."""
    found: list[ParserContext] = copy.deepcopy(collection).to_contexts()
    return found


def _complete(program: Program, words: Sequence[str]) -> int:
    """Print what may stand in the place of the last of ``words``, for the shells' scripts."""
    from pipeline.completion.candidates import complete

    meanings = {command.name: command.summary for command in overview.commands(program.collection)}
    for candidate in complete(words, contexts(program.collection), meanings, OPTIONAL):
        sys.stdout.write(f"{candidate}\n")
    return ExitStatus.FINE


def _speak_utf8() -> None:
    """Have C libraries take file names as Python does.

    A locale that this host does not have leaves them with ASCII, and Python with UTF-8; libarchive then opens
    nothing below a folder whose name has other letters.
    """
    if sys.getfilesystemencoding() == "utf-8" and locale.nl_langinfo(locale.CODESET) != "UTF-8":
        with contextlib.suppress(locale.Error):
            locale.setlocale(locale.LC_CTYPE, "C.UTF-8")


def main(project: Path, arguments: Sequence[str]) -> int:
    """Run the commands of ``project``'s tasks.py and return the exit status."""
    program = _Program(name="inv", binary="inv", version="0.1.0", config_class=ProjectConfig)
    _speak_utf8()
    try:
        program.create_config()
        completing = arguments[:2] == ["--complete", "--"]
        program.parse_core(["inv", "--search-root", str(project), *([] if completing else arguments)])
        program.parse_collection()
        if completing:
            return _complete(program, arguments[2:])
        settings.refuse_unknown_variables()
        if (command := asks_about(program.core.unparsed, contexts(program.collection))) is not None:
            program.args.help.value, program.core.unparsed = command, []
        program.core.unparsed = spell_out(program.core.unparsed, contexts(program.collection))
        program.parse_tasks()
        program.parse_cleanup()
        program.update_config()
        program.execute()
    except Exit as e:
        return int(e.code)
    except ParseError as e:
        log.error(str(e), hint="./inv --list shows the commands, ./inv --help COMMAND explains one.")
        return ExitStatus.USAGE
    except _CONFIGURATION_ERRORS as e:
        log.error(f"The settings cannot be read: {' '.join(str(e).split())}.")
        return ExitStatus.USAGE
    except CollectionNotFound:
        log.error(f"There is no tasks.py in {project}.")
        return ExitStatus.HOST
    except PipelineError as e:
        log.error(e.message, e.hint)
        return e.status
    except OSError as e:
        if came_of_interrupt(e):
            return _interrupted(arguments)
        # A full disk, a folder without permission: the host's failure wherever it happens.
        log.error(f"{e.filename or 'This host'}: {e.strerror or e}.")
        return ExitStatus.HOST
    except Exception as e:
        return _interrupted(arguments) if came_of_interrupt(e) else _unforeseen(e)
    except KeyboardInterrupt:
        return _interrupted(arguments)
    return ExitStatus.FINE


def _interrupted(arguments: Sequence[str]) -> int:
    # A second one must not end what is being said, or what waits for the last threads.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    again = shlex.join(["./inv", *arguments])
    log.error("Interrupted.", hint=f"The same command goes on where this one stopped: {again}")
    return INTERRUPTED


def came_of_interrupt(error: BaseException | None) -> bool:
    """Whether a library tripped over its own cleaning up when Ctrl-C came."""
    while error is not None:
        if isinstance(error, KeyboardInterrupt):
            return True
        error = error.__context__
    return False


def _unforeseen(error: Exception) -> int:
    """Tell of an error that nobody thought of: one sentence, and where the rest of it is."""
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        # Then anything may fail anywhere: what fails first says nothing.
        log.error(
            "This host gives this user no more processes or threads.",
            hint="ulimit -u says how many there may be, and pids.max those of a cgroup.",
        )
        return ExitStatus.HOST
    if not _more_files():
        log.error("This user may open too few files at a time.", hint="ulimit -n says how many.")
        return ExitStatus.HOST
    if isinstance(error, MemoryError):
        log.error("This host gives no more memory.", hint="./inv doctor says how much is needed.")
        return ExitStatus.HOST
    said = Path(tempfile.gettempdir()) / f"xen-aur-pipeline-{os.getpid()}.txt"
    with contextlib.suppress(OSError):
        said.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    log.error(
        f"The pipeline itself failed: {type(error).__name__}: {' '.join(str(error).split())}.",
        hint=f"That is a mistake in it; what led there is in {said}.",
    )
    return ExitStatus.HOST


def _more_files() -> bool:
    """Whether this process may open a few more files."""
    opened: list[int] = []
    try:
        while len(opened) < 16:
            opened.append(os.open("/", os.O_RDONLY))
    except OSError:
        return False
    finally:
        for fd in opened:
            os.close(fd)
    return True
