"""The qemu of HVM guests, out of the locks of host images."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.smoke import supplies


@pytest.mark.parametrize("image", [None, "dom0-bookworm", "dom0-trixie"])
def test_every_host_image_has_a_qemu_and_its_libraries(image: str | None) -> None:
    """If this fails, HVM guests are called not applicable, and nobody notices."""
    names = {name.removesuffix("t64") for name in supplies.sources(image)}
    assert {"qemu-system-xen", "qemu-system-data", "seabios", "libglib2.0-0", "libpixman-1-0"} <= names


def test_an_image_without_a_qemu_is_named() -> None:
    """If this fails, a host image that was locked anew leaves HVM guests untried in silence."""
    with pytest.raises(
        UsageError, match=r"Image debian-trixie lacks qemu-system-data, which HVM guests need"
    ):
        supplies.sources("debian-trixie")
