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
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from invoke.collection import Collection
from invoke.config import AmbiguousMergeError, Config
from invoke.exceptions import CollectionNotFound, Exit, ParseError
from invoke.parser.context import ParserContext
from invoke.program import Program

from pipeline import log, overview, settings
from pipeline.errors import ExitStatus, PipelineError, UsageError
from pipeline.words import OPTIONAL, asks_about, spell_out

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""What ends a service, and what a terminal sends that is closed: both end a command as Ctrl-C does."""
_ended: list[signal.Signals] = []
"""The one of these that has come."""


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


@contextlib.contextmanager
def _reading_settings() -> Iterator[None]:
    """Raise UsageError for what is wrong with settings, half of which Invoke lets end in a traceback."""
    try:
        yield
    except AmbiguousMergeError as e:
        raise UsageError("The settings cannot be read: something stands where a table is wanted.") from e
    except OSError:
        raise
    except Exception as e:
        # What YAML, Invoke and Python itself raise for what is in the files: none of them has a class for it.
        said = " ".join(str(e).split()) or type(e).__name__
        raise UsageError(f"The settings cannot be read: {said:.300}.") from e


def _read_files(project: Path) -> object:
    """Read all settings before Invoke does, but for those of a file that is named on the command line."""
    with _reading_settings():
        config = ProjectConfig(project_location=project)
        config.load_project()
        config.load_shell_env()
        return config.pipeline


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
        for number in ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _end_by)
        completing = arguments[:2] == ["--complete", "--"]
        found = _read_files(project)
        program.create_config()
        program.parse_core(["inv", "--search-root", str(project), *([] if completing else arguments)])
        program.parse_collection()
        if completing:
            return _complete(program, arguments[2:])
        if (command := asks_about(program.core.unparsed, contexts(program.collection))) is not None:
            program.args.help.value, program.core.unparsed = command, []
        program.core.unparsed = spell_out(program.core.unparsed, contexts(program.collection))
        program.parse_tasks()
        program.parse_cleanup()
        with _reading_settings():
            program.update_config()
        settings.refuse_unknown_variables()
        settings.Settings.read(found)
        program.execute()
    except Exit as e:
        return int(e.code)
    except ParseError as e:
        log.error(str(e), hint="./inv --list shows the commands, ./inv --help COMMAND explains one.")
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


def _end_by(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, but say which signal it was."""
    # They come in pairs, at a shutdown say: the second one must not end the clearing up of the first. No
    # SIG_IGN, which programs that are started would have too.
    for one in ENDING:
        signal.signal(one, lambda _number, _frame: None)
    by = signal.Signals(number)
    _ended.append(by)
    on_interrupt = signal.getsignal(signal.SIGINT)
    if callable(on_interrupt) and on_interrupt is not signal.default_int_handler:
        on_interrupt(number, frame)  # asyncio's, which lets what runs come to its end
    else:
        raise KeyboardInterrupt


def _interrupted(arguments: Sequence[str]) -> int:
    # A second one must not end what is being said, or what waits for the last threads.
    for number in (signal.SIGINT, *ENDING):
        signal.signal(number, signal.SIG_IGN)
    again = shlex.join(["./inv", *arguments])
    by = next(iter(_ended), signal.SIGINT)
    message = "Interrupted." if by is signal.SIGINT else f"Ended by {by.name}."
    log.error(message, hint=f"The same command goes on where this one stopped: {again}")
    return 128 + by


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
