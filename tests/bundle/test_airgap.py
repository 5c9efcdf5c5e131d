"""A machine without any network rebuilds what came in a bundle, and gets the same bytes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.image.assembly import Image
from tests import checkouts
from tests.checkouts import Checkout
from tests.small import Small

pytestmark = pytest.mark.integration


def test_the_same_bytes_without_any_network(image: Image, source: Small, tmp_path: Path) -> None:
    """Or what is installed behind an air gap could not be checked there."""
    root = checkouts.copy(tmp_path / "sender")
    source.write(root)
    # It is built in another image than the release names, of which there is no lock.
    release = root / "releases" / "small.toml"
    release.write_text(release.read_text().replace(image.name, "arch-2013"))
    # The store that has the image's packages: their mirrors need not be asked again.
    sender = Checkout(root, image.store.root)
    receiver = Checkout(Path(shutil.copytree(root, tmp_path / "receiver")), tmp_path / "empty store")
    sender.run("build", "small", "--image", image.name).fine()
    bundle = str(tmp_path / "small.tar")
    sender.run(
        "bundle", "small", "--with-sources", "--with-image", "--allow-unproven", "--output", bundle
    ).fine()
    alone = ("unshare", "--net") if os.geteuid() == 0 else ("unshare", "--map-root-user", "--net")
    argv = ("receive", bundle, "--unknown-signer", "--allow-unproven", "--rebuild")
    done = receiver.run(*argv, prefix=alone, timeout=600).fine()
    assert "rebuilt to the same bytes: small-1.0-1-x86_64.pkg.tar.xz" in done.err
    assert "Compiling small" in done.err
    # A checkout that makes something else must not pass for one that cannot make the same.
    for path in (receiver.root / "package").iterdir():
        path.write_text(path.read_text() + "# changed\n")
    assert "This checkout makes build" in receiver.run(*argv, prefix=alone).failed(2).err
