"""What a manual page describes: headings and options, as man(7) and mdoc(7) mark them."""

from __future__ import annotations

import re
import zlib

from pipeline.package import MAX_CONTENT, Member

# pod2man makes .IP of =item; .It is mdoc's, .TP puts what is described on its next line.
_MARKED = re.compile(r'^\.(?:SH|SS|Sh|Ss|IP|It)\s+"?(.*?)"?(?:\s+\d+)?$|^\.TP.*\n(.*)$', re.MULTILINE)
_FONT = re.compile(r"^\.(?:[BI]|[BIR]{2}|SM|SB) +")
_ESCAPE = re.compile(r"\\f(?:\(\w\w|\[\w*\]|.)|\\s[+-]?\d|\\&|\\[|/,^%:]")


def compare(old: Member, new: Member) -> tuple[str, ...]:
    """Return what the new page describes and the old one does not (+), and the other way round (-)."""
    if not old.path.startswith("usr/share/man/"):
        return ()
    before, after = described(_text(old)), described(_text(new))
    return (
        *(f"- {name}" for name in before if name not in after),
        *(f"+ {name}" for name in after if name not in before),
    )


def described(page: str) -> tuple[str, ...]:
    """Return the headings and options of a page's source, without what sets their type."""
    found: dict[str, None] = {}
    for match in _MARKED.finditer(page):
        text = _FONT.sub("", match[1] or match[2] or "")
        name = _ESCAPE.sub("", text).replace('""', '"').replace(r"\-", "-").strip()
        # A bullet, or a number of a list.
        if len(name) > 2 and not name.startswith("\\"):
            found[" ".join(name.split())] = None
    return tuple(found)


def _text(member: Member) -> str:
    content = member.content or b""
    if content.startswith(b"\x1f\x8b"):
        try:
            content = zlib.decompressobj(wbits=31).decompress(content, MAX_CONTENT)
        except zlib.error:
            return ""
    return content.decode("utf-8", "replace")
