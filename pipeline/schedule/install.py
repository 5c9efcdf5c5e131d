"""Installs systemd's units for nights: systemd.service(5), systemd.timer(5), sysusers.d(5)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from pipeline import files, log
from pipeline.errors import CommandError, HostError, UsageError
from pipeline.run import run
from pipeline.version import PROJECT

_UNITS = Path(__file__).parent / "units"
SERVICE, TIMER, USERS = "xen-nightly.service", "xen-nightly.timer", "xen-nightly.conf"
_PLACES = {
    SERVICE: "etc/systemd/system",
    TIMER: "etc/systemd/system",
    USERS: "etc/sysusers.d",
}
_TOKEN = re.compile(r"@([A-Z]+)@")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_MEMORY = re.compile(r"[1-9][0-9]*[MG]")
_SPECIFIERS = re.compile(r'["\\\n]')


@dataclass(frozen=True)
class Schedule:
    """What the units say.

    ``when`` is as systemd.time(7) has it, ``memory`` as MemoryMax=, and ``cpus`` a number, 0 for all.
    """

    when: str = "*-*-* 02:00:00"
    user: str = "xen-nightly"
    memory: str = "8G"
    cpus: int = 0
    project: Path = PROJECT

    def __post_init__(self) -> None:
        if not _USER.fullmatch(self.user):
            raise UsageError(f"{self.user!r} is no user's name.")
        if not _MEMORY.fullmatch(self.memory):
            raise UsageError(f"{self.memory!r} is no amount of memory.", hint="As in 8G.")
        if not self.when or "\n" in self.when or self.cpus < 0:
            raise UsageError("The schedule cannot be read.", hint="As in --when '*-*-* 02:00:00' --cpus 4.")

    def render(self) -> dict[str, str]:
        """Fill the units in; returns their texts by name."""
        project = os.fspath(self.project)
        if _SPECIFIERS.search(project):
            raise UsageError(f"A unit cannot name {project}.", hint="Move the project to a plainer path.")
        values = {
            "PROJECT": project.replace("%", "%%"),
            "USER": self.user,
            "MEMORY": self.memory,
            "CPUS": str(self.cpus or os.cpu_count() or 1),
            "WHEN": self.when,
        }
        return {
            name: _TOKEN.sub(lambda match: values[match[1]], (_UNITS / name).read_text(encoding="utf-8"))
            for name in _PLACES
        }

    def install(self, root: Path) -> list[Path]:
        """Write the units below ``root``, and have systemd take them up where that is this running system.

        Raises HostError where this user may not, or systemd does not accept them.
        """
        live = root == Path("/")
        if live and os.geteuid() != 0:
            raise HostError("Units are installed by root.", hint="sudo ./inv nightly.install")
        self._check_time()
        written = []
        for name, text in self.render().items():
            path = root / _PLACES[name] / name
            files.write_text(path, text)
            written.append(path)
        if not live or not Path("/run/systemd/system").is_dir():
            log.info(f"systemd does not run here. There: systemd-sysusers && systemctl enable --now {TIMER}")
            return written
        for command in (
            ["systemd-sysusers", os.fspath(written[-1])],
            ["systemctl", "daemon-reload"],
            ["systemctl", "enable", "--now", TIMER],
        ):
            run(command)
        return written

    def _check_time(self) -> None:
        try:
            run(["systemd-analyze", "calendar", "--", self.when])
        except CommandError as e:
            raise UsageError(
                f"{self.when!r} is no time of systemd's.", hint="As in '*-*-* 02:00:00'; see systemd.time(7)."
            ) from e
