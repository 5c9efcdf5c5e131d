"""A machine that builds a small project every night, in no time."""

from __future__ import annotations

import datetime
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from pipeline import build as builds
from pipeline.nightly.night import Night
from pipeline.nightly.run import Nightly
from pipeline.release import Feature, Release
from pipeline.settings import NightlySettings, Settings
from pipeline.source import GitSource
from tests.repositories import Repository

STEPS = Path(__file__).parent / "steps.py"
SETTINGS = NightlySettings(release="small", steps=("check", "smoke"), free=0)


@dataclass
class Site:
    """A machine that builds a small project every night."""

    folder: Path
    upstream: Repository
    now: datetime.datetime = field(default_factory=lambda: datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC))
    settings: NightlySettings = SETTINGS
    features: dict[str, Feature] = field(default_factory=dict)
    host: bool = False

    @property
    def nightly(self) -> Nightly:
        release = Release(
            name="small",
            version="1.0",
            xen_version="1.0",
            source_date_epoch=1,
            image="any",
            branch="main",
            features=self.features,
            git=(GitSource(name="small", urls=(self.upstream.url,), commit="0" * 40),),
        )
        settings = Settings(
            release="small",
            store=str(self.folder / "store"),
            artifacts=str(self.folder / "artifacts"),
            nightly=self.settings,
        )
        program = (sys.executable, "-S", str(STEPS), str(self.folder))
        return Nightly(
            settings=settings,
            release=release,
            branch="main",
            program=program,
            clock=lambda: self.now,
            host=self.host,
        )

    def night(self, *faults: str, bisect: bool = False, **changes: object) -> Night:
        """Do a night with faults, a day after the one before."""
        self.now += datetime.timedelta(days=1)
        (self.folder / "faults").write_text("".join(f"{fault}\n" for fault in faults))
        site = self
        if changes:
            site = replace(self, settings=msgspec.structs.replace(self.settings, **changes))
        return replace(site.nightly, bisect=bisect).run()

    def commit(self, text: str, path: str = "xen/arch/x86/mm.c") -> str:
        return self.upstream.commit({path: text.encode()}, f"x86/mm: {text}")

    def good(self) -> str | None:
        """The commit that users can install: its packages are whole."""
        link = self.nightly.folder / "last-good"
        if not link.is_symlink():
            return None
        found = builds.read(link.resolve())
        found.verify()
        lock = builds.read_lock(found.folder)
        assert lock is not None
        return lock.commit

    def break_from(self, step: str, commits: Sequence[str], how: str = "red") -> None:
        """Have a step fail on certain commits from now on."""
        path = self.folder / "broken"
        plan = json.loads(path.read_text()) if path.exists() else {}
        plan.setdefault(step, {}).update(dict.fromkeys(commits, how))
        path.write_text(json.dumps(plan))

    def killed(self, fault: str, work: Callable[[], object] | None = None) -> None:
        """Work, or a night, that is killed while a step hangs."""
        (self.folder / "faults").write_text(fault)
        (self.folder / "hanging").unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            # Only what a kill needs: a process that runs a night.
            os.setsid()
            with open(os.devnull, "w") as null:
                os.dup2(null.fileno(), 2)
            try:
                (work or self.nightly.run)()
            finally:
                os._exit(0)
        deadline = time.monotonic() + 30
        while not (self.folder / "hanging").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
