"""The manual page: made by the real lowdown, judged by the real mandoc."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import checkouts
from tests.checkouts import Checkout
from tests.test_cli import COMMAND_NAMES

pytestmark = pytest.mark.skipif(not shutil.which("lowdown"), reason="lowdown is not installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page where ./inv manual installs it."""
    home = tmp_path_factory.mktemp("manual")
    checkout = Checkout(checkouts.copy(home / "copy"), home / "store", {"INVOKE_PIPELINE_RELEASE": "4.17"})
    said = checkout.run("manual", env={"HOME": str(home), "XDG_DATA_HOME": ""}).fine().out.strip()
    assert said == str(home / ".local/share/man/man7/xen-aur-pipeline.7")
    return Path(said)


def test_readers_of_manual_pages_have_no_complaint(page: Path) -> None:
    """What one reader shows, another would drop."""
    said = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, check=False
    )
    assert said.stdout + said.stderr == ""
    assert said.returncode == 0


def test_holds_every_command_and_every_page(page: Path) -> None:
    """A manual that lacks a command is taken for the truth."""
    shown = subprocess.run(["mandoc", "-Tascii", page], capture_output=True, text=True, check=True).stdout
    text = re.sub(r".\x08", "", shown)
    for name in COMMAND_NAMES:
        assert re.search(rf"^ +{re.escape(name)}$", text, re.MULTILINE), name
    for title in ("NAME", "EXIT STATUS", "WHEN IT BREAKS", "SETTINGS"):
        assert re.search(rf"^{title}$", text, re.MULTILINE), title
    assert "--no-reproduce" in text
    assert "xen-aur-pipeline - Xen for Arch Linux" in text
