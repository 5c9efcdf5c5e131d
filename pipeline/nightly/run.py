"""Nights: each is begun, noted, cleaned up after and told of, whatever becomes of it."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from pipeline import files, log, records, release
from pipeline.errors import PipelineError, UsageError
from pipeline.image.definition import read_definition
from pipeline.nightly.bisect import Bisection
from pipeline.nightly.commands import alone
from pipeline.nightly.night import Night, Outcome
from pipeline.nightly.prune import prune
from pipeline.nightly.tonight import Tonight
from pipeline.nightly.watch import RECORD, Watch
from pipeline.run import run
from pipeline.settings import Settings

_GIB = 1 << 30
_NOTIFY = 60.0
"""Seconds that the notification hook may take."""


@dataclass(frozen=True, kw_only=True)
class Nightly(Watch):
    """Nights of what is watched; ``bisect`` has a red one's first bad commit found at once."""

    bisect: bool = False

    @classmethod
    def of(cls, settings: Settings, branch: str = "", *, bisect: bool = False) -> Nightly:
        """The nightly build that the settings describe; raises UsageError."""
        found = release.read(settings.nightly.release)
        if found.branch is None:
            raise UsageError(f"Release {found.name} follows no branch.", hint="nightly.release names one.")
        branch = branch or settings.nightly.branch or found.branch
        host = settings.nightly.full and read_definition(found.image).dom0 is not None
        return cls(settings=settings, release=found, branch=branch, bisect=bisect, host=host)

    def run(self) -> Night:
        """Do a night and return its record, which is in the history by then.

        Raises HostError where another one is at work, and what keeps the history from being written.
        """
        with alone(self.folder, "nightly"):
            night = self.book.begin(self.clock())
            self.beat()
            try:
                night = Tonight(self, night).go()
                if self.bisect and night.outcome is Outcome.RED:
                    night = self._bisect(night)
            except KeyboardInterrupt:
                self._end(Outcome.KILLED, "Interrupted.")
                raise
            except PipelineError as e:
                log.error(e.message, e.hint)
                night = self._end(Outcome.INFRASTRUCTURE, e.message)
            except OSError as e:
                what = f"{e.filename or 'This host'}: {e.strerror or e}."
                log.error(what)
                night = self._end(Outcome.INFRASTRUCTURE, what)
            self.beat()
            self._prune()
        self._notify(night)
        return night

    def _bisect(self, night: Night) -> Night:
        """Find a red night's culprit; what keeps it from being found is only told."""
        try:
            found = Bisection.of(night, self.settings, self.release, self.program).run()
        except PipelineError as e:
            log.warn(f"The first bad commit was not found: {e.message} {e.hint or ''}".rstrip())
            return night
        log.info(str(found))
        night = msgspec.structs.replace(night, culprit=found.culprit)
        self.book.write(night)
        files.write_bytes(self.night_folder(night.number) / RECORD, records.encode(night))
        return night

    def _end(self, outcome: Outcome, note: str) -> Night:
        """End the night as it was last noted: with the steps that were done before something went wrong."""
        night = self.book.nights(limit=1)[0]
        if night.outcome is Outcome.RUNNING:
            night = msgspec.structs.replace(night, outcome=outcome, note=note, finished=self.clock())
            self.book.write(night)
        return night

    def _prune(self) -> None:
        settings = self.settings
        budget = int(settings.nightly.budget * _GIB)
        try:
            prune(settings.artifacts_folder, self.release.name, settings.open_store, budget)
        except OSError as e:
            log.warn(f"Old builds could not be removed: {e}.")

    def _notify(self, night: Night) -> None:
        command = self.settings.nightly.notify
        if not command or night.outcome is Outcome.NOTHING:
            return
        try:
            run(command, input=records.encode(night), timeout=_NOTIFY)
        except PipelineError as e:
            log.warn(f"The notification failed: {e.message}")
