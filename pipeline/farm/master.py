"""What a farm's master is asked over HTTP: Buildbot's REST API, version 2."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import requests

from pipeline import log
from pipeline.errors import FailureError, HostError
from pipeline.run import tail

_TIMEOUT = 30.0
_POLL = 1.0
_TRIES = 10
"""How often a busy master is asked for one answer."""
# Buildbot's documentation, "Build Result Codes".
_RESULTS = ("success", "warnings", "failure", "skipped", "exception", "retry", "cancelled")
_FINE = ("success", "warnings")


def starter(release: str) -> str:
    """What the scheduler is called that builds a release when it is asked to: Buildbot allows few letters."""
    return "force-" + re.sub(r"[^A-Za-z0-9]", "_", release)


@dataclass(frozen=True)
class Done:
    """A build that has ended: whose it was, by whom, how, and in how many seconds."""

    builder: str
    worker: str
    result: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.builder:<20} {self.worker:<12} {self.result:<10} {log.duration(self.seconds)}"


@dataclass
class Master:
    """A master that answers at ``url``; ``watch`` is called again and again while anything is waited for."""

    url: str
    watch: Callable[[], None] = lambda: None
    _names: dict[str, dict[int, str]] = field(default_factory=dict)

    def answers(self) -> bool:
        """Whether it does."""
        try:
            self._ask("GET", "application.spec")
        except HostError:
            return False
        return True

    def carry(self, release: str) -> list[Done]:
        """Have a release built, proven and published; returns every build that took, in the order they ended.

        Raises FailureError where it fails.
        """
        before = self._ended()
        run = self._force(release)
        seen: dict[int, Done] = {}
        while True:
            self.watch()
            for number, done in self._ended().items():
                if number in before:
                    continue
                if number not in seen:
                    log.info(str(done))
                seen[number] = done
            found = self._get(f"buildsets/{run}")["buildsets"][0]
            if found["complete"]:
                break
            time.sleep(_POLL)
        result = _RESULTS[found["results"]]
        if result not in _FINE:
            said = [self._said(number) for number, done in seen.items() if done.result not in _FINE]
            raise FailureError(
                f"Release {release} ended in {result} on the farm.", "\n".join(filter(None, said))
            )
        return list(seen.values())

    def forever(self) -> None:
        """Keep the farm at work until Ctrl-C."""
        while True:
            self.watch()
            time.sleep(_POLL)

    def busy(self) -> dict[str, str]:
        """The workers that build something, and what."""
        builds = self._get("builds?complete=false")["builds"]
        return {self._name("workers", b["workerid"]): self._name("builders", b["builderid"]) for b in builds}

    def _ended(self) -> dict[int, Done]:
        builds = self._get("builds?complete=true&order=complete_at")["builds"]
        return {
            b["buildid"]: Done(
                self._name("builders", b["builderid"]),
                self._name("workers", b["workerid"]),
                _RESULTS[b["results"]],
                b["complete_at"] - b["started_at"],
            )
            for b in builds
        }

    def _said(self, build: int) -> str:
        """The last lines of the step that a build failed at."""
        for step in self._get(f"builds/{build}/steps")["steps"]:
            if step["results"] is None or _RESULTS[step["results"]] in _FINE:
                continue
            for one in self._get(f"steps/{step['stepid']}/logs")["logs"]:
                (chunk,) = self._get(f"logs/{one['logid']}/contents")["logchunks"]
                # Each line begins with a letter for the stream that it came from; h is Buildbot's own.
                lines = [line[1:] for line in chunk["content"].splitlines() if line[:1] in ("o", "e")]
                return tail("\n".join(lines))
        return ""

    def _force(self, release: str) -> int:
        request = {"jsonrpc": "2.0", "method": "force", "id": 1, "params": {}}
        answer = self._ask("POST", f"forceschedulers/{starter(release)}", request)
        return int(answer["result"][0])

    def _name(self, kind: str, number: int) -> str:
        if number not in self._names.get(kind, {}):
            key = {"workers": "workerid", "builders": "builderid"}[kind]
            self._names[kind] = {one[key]: one["name"] for one in self._get(kind)[kind]}
        return self._names[kind].get(number, str(number))

    def _get(self, path: str) -> Any:
        """Ask, and where the answer is none ask again: a busy master now and then sends half of one."""
        for _ in range(_TRIES - 1):
            with contextlib.suppress(HostError):
                return self._ask("GET", path)
            self.watch()
            time.sleep(_POLL)
        return self._ask("GET", path)

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        # Not compressed: under load, Buildbot says gzip of what is plain.
        plain = {"Accept-Encoding": "identity"}
        try:
            answer = requests.request(
                method, f"{self.url}api/v2/{path}", json=body, headers=plain, timeout=_TIMEOUT
            )
            answer.raise_for_status()
            return answer.json()
        except requests.RequestException as e:
            raise HostError(f"The farm's master does not answer: {e}.") from e
