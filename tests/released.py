"""A release built and booted once a test run, by the real command line in a copy of this checkout."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.checkouts import Checkout, Finished

RELEASE = "4.17"


@dataclass(frozen=True)
class Released:
    """What `inv release` left behind, and what it said."""

    checkout: Checkout
    finished: Finished

    @property
    def folder(self) -> Path:
        """The build's folder."""
        return (self.checkout.root / "artifacts" / RELEASE / "latest").resolve()

    @property
    def packages(self) -> list[Path]:
        """The package files."""
        record = json.loads((self.folder / "build.json").read_text())
        return [self.folder / package["file"] for package in record["packages"]]
