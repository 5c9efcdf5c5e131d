"""How pages are made: what they have in common is templates/base.html; all values are escaped."""

from __future__ import annotations

import functools
from pathlib import Path

import jinja2

from pipeline import log

_TEMPLATES = Path(__file__).parent / "templates"


@functools.cache
def environment(*folders: Path) -> jinja2.Environment:
    """Return where templates are found: in some folders, and among those of this one."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"duration": log.duration, "size": log.size}
    return made
