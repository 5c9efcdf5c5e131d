"""The options that a hypervisor was built with, as Kconfig writes them (kconfig.rst of Linux)."""

from __future__ import annotations

import re

from pipeline.package import Member

_SET = re.compile(r"^(?:(?P<name>CONFIG_\w+)=(?P<value>.*)|# (?P<off>CONFIG_\w+) is not set)$", re.MULTILINE)


def is_config(member: Member) -> bool:
    """Whether a file is such a list."""
    return member.path.endswith((".config", "/config")) and b"\nCONFIG_" in (member.content or b"")


def compare(old: Member, new: Member) -> tuple[str, ...]:
    """Return the options that are new (+), gone (-), or have another value (~), by name."""
    before, after = options(old), options(new)
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            lines.append(f"- {name}={before[name]}")
        elif name not in before:
            lines.append(f"+ {name}={after[name]}")
        elif before[name] != after[name]:
            lines.append(f"~ {name}: {before[name]} → {after[name]}")
    return tuple(lines)


def options(member: Member) -> dict[str, str]:
    """Read the options and their values; one that is not set is ``n``."""
    text = (member.content or b"").decode("utf-8", "replace")
    return {m["name"] or m["off"]: m["value"] or "n" for m in _SET.finditer(text)}
