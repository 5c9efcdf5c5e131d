"""Folders in reversed order: a job must see nothing else that is different, and gain nothing by it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Circumstances, Job
from tests.conftest import Tiny

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not shutil.which("disorderfs"), reason="disorderfs is not installed"),
    pytest.mark.skipif(not os.access("/dev/fuse", os.W_OK), reason="this host has no FUSE"),
]

SCRIPT = r"""
mkdir many; touch many/{1..9}; ls -U many | tr '\n' ' '; echo
stat -c '%u %g %a' . output many/1; id -u
echo secret > closed; chmod 000 closed; cat closed 2> /dev/null || echo closed
umask 077; touch mine; stat -c %a mine
echo 1 > one; ln one two; stat -c %h one; cmp one two && echo same
[ -e later ] || touch later; [ -e later ] && echo there
cp /bin/true output/x; chmod 4755 output/x; chown 0 output/x 2> /dev/null || echo refused
echo the end
"""


@pytest.mark.parametrize("uid", [1000, 12345])
def test_only_the_order_is_another(uid: int, tiny: Tiny, tmp_path: Path) -> None:
    """Or a difference in the packages would be the file system's, and not the build's."""
    script = tmp_path / "script"
    script.write_text(SCRIPT)
    engine = Bubblewrap(tmp_path / "scratch")
    said: dict[bool, list[str]] = {}
    modes: list[int] = []
    for reverse in (False, True):
        lines = said[reverse] = []
        user = Circumstances(user="somebody" if uid != 1000 else "builder", uid=uid, reversed_folders=reverse)
        output = tmp_path / f"output-{reverse}"
        output.mkdir()

        def on_line(line: str, lines: list[str] = lines, reverse: bool = reverse) -> None:
            lines.append(line)
            if reverse:
                modes.extend(path.stat().st_mode & 0o777 for path in engine.scratch.glob("job-*"))

        job = Job(("/bin/bash", "script"), {"script": script}, circumstances=user, counts_links=True)
        engine.run(job, tiny.image, output, on_line)
        assert (output / "x").stat().st_mode & 0o7777 == 0o755
    assert said[True][0] != said[False][0]
    assert sorted(said[True][0].split()) == [str(n) for n in range(1, 10)]
    assert said[True][1:] == said[False][1:]
    assert said[True][-1] == "the end"
    assert f"{uid} {uid} 755" in said[True]
    if os.geteuid() == 0:
        # What a job makes set-id lies where no other user of this host can reach it.
        assert set(modes) == {0o700}
