"""Whether manual pages can be read: mandoc(1) finds no error in them, and they are where man looks."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.check.findings import Finding, error
from pipeline.package import MAX_CONTENT, Member, Package
from pipeline.run import run
from pipeline.scratch import scratch

_PAGE = re.compile(r"usr/share/man/(?:[a-zA-Z_.@-]+/)?man(?P<folder>\w+)/[^/]+\.(?P<section>\w+?)\.gz$")
_TITLE = re.compile(rb"^\.(TH|Dt)\s+\S+\s+\S", re.MULTILINE)
_SAID = re.compile(r"^mandoc: (?P<file>.*?):(?:\d+:\d+:)? (?:ERROR|UNSUPP): (?P<message>.*)$")


def check(package: Package, work: Path) -> Iterator[Finding]:
    """Look at all manual pages of a package; raises ToolMissingError where mandoc is not installed."""
    pages: dict[str, bytes] = {}
    for member in package.files:
        if not member.is_file or not member.path.startswith("usr/share/man/"):
            continue
        match = _PAGE.match(member.path)
        text = _text(member)
        if match is None or match["folder"] != match["section"]:
            yield error("man", package.name, member.path, "is not where man looks for it, or not compressed")
        elif text is None or not _TITLE.search(text):
            yield error("man", package.name, member.path, "is no manual page: it has no title")
        else:
            pages[member.path] = text
    yield from _lint(package, pages, work)


def _text(member: Member) -> bytes | None:
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(member.content or b"", MAX_CONTENT)
    except zlib.error:
        return None
    return text if inflater.eof else None


def _lint(package: Package, pages: dict[str, bytes], work: Path) -> Iterator[Finding]:
    if not pages:
        return
    with scratch(work, "pages") as folder:
        # Pages have names of their own making; numbers say which is meant in what mandoc says.
        paths = dict(zip((f"{number}.man" for number in range(len(pages))), pages, strict=True))
        for name, path in paths.items():
            (folder / name).write_bytes(pages[path])
        said = run(["mandoc", "-T", "lint", "-W", "error", *paths], cwd=folder, expect=None).output
    told: set[str] = set()
    for line in said.splitlines():
        match = _SAID.match(line)
        if match is not None and match["file"] in paths.keys() - told:
            told.add(match["file"])
            yield error("man", package.name, paths[match["file"]], f"does not render: {match['message']}")
