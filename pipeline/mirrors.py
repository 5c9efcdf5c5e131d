"""Where a pinned URL may be had: the settings' replacements, Debian mirrors, and the URL itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pipeline.errors import CommandError, HostError, TimeLimitError, ToolMissingError, UsageError
from pipeline.run import run

DEBIAN = "debian:"
"""The scheme of a file that every Debian mirror carries: ``debian:pool/main/...``."""

_FORMAT = "$(REPO_URI)\t$(ORIGIN)\t$(LABEL)"


class NoMirrorError(HostError):
    """No mirror is known for a URL that needs one."""


@functools.cache
def apt_mirrors() -> tuple[str, ...]:
    """Return the roots of the Debian mirrors that this host's apt uses; none where there is no apt.

    apt is asked once a process. Debian's main archive comes first, then its others. Where apt has no
    lists yet and so knows no origins, all its archives are taken for Debian's: the hash decides anyway.
    """
    argv = ["apt-get", "indextargets", "--format", _FORMAT]
    what = "Created-By: Packages"
    try:
        known = parse_apt_targets(run([*argv, what], timeout=30, merge_stderr=False).output)
        if known:
            return known
        # Without lists, as in a container image, apt says nothing unless it is told not to look at them.
        argv.append("--no-release-info")
        return parse_apt_targets(run([*argv, what], timeout=30, merge_stderr=False).output)
    except (ToolMissingError, CommandError, TimeLimitError):
        return ()


def parse_apt_targets(output: str) -> tuple[str, ...]:
    """Pick the Debian mirrors out of lines of URL, origin and label, parted by tabs.

    Fields that apt does not know are empty, or left as they stand in the format.
    """
    ranked: list[tuple[int, str]] = []
    for line in output.splitlines():
        root, origin, label = [*line.split("\t"), "", ""][:3]
        # apt also knows cdrom:, copy:, mirror+http: and tor+https:, which requests does not.
        unknown = origin in ("", "$(ORIGIN)")
        if not (unknown or origin == "Debian") or not root.startswith(("http://", "https://", "file:/")):
            continue
        ranked.append((2 if unknown else 0 if label == "Debian" else 1, root))
    ranked.sort(key=lambda pair: pair[0])
    return tuple(dict.fromkeys(root for _, root in ranked))


@dataclass(frozen=True)
class Mirrors:
    """The settings about mirrors, and what follows from them.

    ``rewrites`` (setting ``mirrors.rewrites``) maps URL prefixes, which end where a path segment does,
    to replacements that are tried in order before the original. ``debian`` (``mirrors.debian``) lists
    roots of Debian mirrors, and ``debian_snapshot`` (``mirrors.debian_snapshot``) is the root of a
    snapshot of the archive, timestamp included; it is tried last. All may be file:// URLs, so that a
    folder can be a mirror. ``apt`` returns the mirrors that the host is configured with.

    Raises UsageError for a setting that is not a URL.
    """

    rewrites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    debian: tuple[str, ...] = ()
    debian_snapshot: str | None = None
    apt: Callable[[], tuple[str, ...]] = apt_mirrors

    def __post_init__(self) -> None:
        for url in (url for urls in self.rewrites.values() for url in urls):
            _check("mirrors.rewrites", url, allow_debian=True)
        for url in self.debian:
            _check("mirrors.debian", url)
        if self.debian_snapshot is not None:
            _check("mirrors.debian_snapshot", self.debian_snapshot)

    def resolve(self, url: str) -> tuple[str, ...]:
        """Return the URLs to try for a pinned one, in order, each once.

        Raises NoMirrorError for a ``debian:`` URL where no Debian mirror is known.
        """
        found = dict.fromkeys(
            resolved for candidate in self._rewritten(url) for resolved in self._expanded(candidate)
        )
        if not found:
            raise NoMirrorError(
                f"No Debian mirror is known for {url}.",
                hint="Set mirrors.debian to the root of a Debian mirror.",
            )
        return tuple(found)

    def _rewritten(self, url: str) -> Iterator[str]:
        """Yield the replacements of a URL, of the longest prefix first, and then the URL itself."""
        for prefix in sorted(self.rewrites, key=lambda prefix: (-len(prefix), prefix)):
            if _within(prefix, url):
                for replacement in self.rewrites[prefix]:
                    yield _join(replacement, url[len(prefix) :]) if url != prefix else replacement
        yield url

    def _expanded(self, url: str) -> Iterator[str]:
        """Yield the URL, or where it is a ``debian:`` one, its places on the mirrors."""
        if not url.startswith(DEBIAN):
            yield url
            return
        snapshot = () if self.debian_snapshot is None else (self.debian_snapshot,)
        for root in (*self.debian, *self.apt(), *snapshot):
            for candidate in self._rewritten(_join(root, url.removeprefix(DEBIAN))):
                if not candidate.startswith(DEBIAN):
                    yield candidate


def _within(prefix: str, url: str) -> bool:
    """Whether a URL begins with a prefix, at the border of a path segment.

    https://a.example must not stand for https://a.example.org too.
    """
    rest = url.removeprefix(prefix)
    return url.startswith(prefix) and (not rest or prefix.endswith(("/", ":")) or rest.startswith("/"))


def _join(root: str, rest: str) -> str:
    if root.endswith(":"):
        return root + rest.lstrip("/")
    return f"{root.rstrip('/')}/{rest.lstrip('/')}"


def _check(setting: str, url: str, *, allow_debian: bool = False) -> None:
    if allow_debian and url.startswith(DEBIAN):
        return
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.netloc:
            return
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            return
    raise UsageError(
        f"The setting {setting} holds {url!r}, which is not a URL of http, https or file.",
        hint="A folder is written as file:///folder.",
    )
