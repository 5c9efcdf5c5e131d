"""Exceptions by class of failure; each knows the exit status it ends the program with."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar


class ExitStatus(IntEnum):
    """Exit statuses of every command, as README documents them."""

    FINE = 0
    FAILED = 1
    USAGE = 2
    HOST = 3


class PipelineError(Exception):
    """A failure that the user is told about in one sentence and, where one helps, a hint."""

    status: ClassVar[ExitStatus] = ExitStatus.HOST

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(PipelineError):
    """The user asked for something that cannot be: a wrong argument, setting or definition file."""

    status = ExitStatus.USAGE


class FailureError(PipelineError):
    """The thing under test failed: a build that does not compile, a package that breaks a check."""

    status = ExitStatus.FAILED


class HostError(PipelineError):
    """This host or an outside service failed: a missing tool, a dead mirror, a full disk."""


class ToolMissingError(HostError):
    """A program that a step needs is not installed."""


class CommandError(HostError):
    """A program ended with a status that its caller did not expect."""


class TimeLimitError(HostError):
    """A program did not end within its time limit and was killed."""


class IntegrityError(HostError):
    """Bytes on this host are not the bytes that were pinned: damaged, truncated or replaced."""
