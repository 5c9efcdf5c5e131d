"""Folders in reversed order: a job must see nothing else that is different."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine import guard
from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Circumstances, Job, Limits
from tests.conftest import Tiny

pytestmark = pytest.mark.integration

SCRIPT = r"""
ls -U many | tr '\n' ' '; echo
stat -c '%u %g %a' . output many/1; id -u
umask 077; touch mine; stat -c %a mine
echo 1 > one; ln one two; stat -c %h one
ls many/1/x mine/ 2>&1
cp /bin/true output/x; chmod 4755 output/x
echo the end
"""
# More entries than one call gives, to a program that signals interrupt all the time; seek and tell; a buffer
# that is too small.
LARGE = r"""
mkdir large; cd large; for n in {1..4000}; do : > "a-file-with-a-longer-name-$n"; done; cd ..
ls large | md5sum; ls -U large | md5sum; find large | wc -l
perl -e '
  use POSIX; use Time::HiRes "setitimer";
  my $action = POSIX::SigAction->new(sub { $signals++ }, undef, SA_RESTART); $action->safe(1);
  sigaction(SIGALRM, $action);
  setitimer(0, 0.0005, 0.0005);
  for (1 .. 100) { opendir(my $d, "large"); my %seen; $seen{$_}++ while readdir $d;
    $wrong++ if keys %seen != 4002 || grep { $_ != 1 } values %seen }
  setitimer(0, 0);
  print $wrong ? "wrong" : "complete", " ", $signals > 100 ? "interrupted" : "never interrupted", "\n"'
perl -e 'opendir(my $d, "many"); readdir $d for 1 .. 4; my $at = telldir $d; my @a = readdir $d;
  rewinddir $d; my @b = readdir $d; print scalar(@a), " ", scalar(@b), "\n"'
perl -e 'opendir(my $d, "many"); my $b = "\0" x 24; print syscall(217, fileno $d, $b, 8), " ", $! + 0, "\n"'
rm -r large; ls many | wc -l
"""


def said(tiny: Tiny, folder: Path, text: str, circumstances: Circumstances) -> list[str]:
    """Run a script, and return its lines."""
    folder.mkdir()
    script, output = folder / "script", folder / "output"
    script.write_text("mkdir many; touch many/{1..9}\n" + text)
    output.mkdir()
    lines: list[str] = []
    job = Job(
        ("/bin/bash", "script"),
        {"script": script},
        limits=Limits(seconds=120),
        circumstances=circumstances,
    )
    Bubblewrap(folder / "scratch").run(job, tiny.image, output, lines.append)
    return lines


@pytest.mark.parametrize("uid", [1000, 12345])
def test_only_the_order_is_another(uid: int, tiny: Tiny, tmp_path: Path) -> None:
    """Or a difference in the packages would be the variation's own, and not the build's."""
    user = "somebody" if uid != 1000 else "builder"
    first = Circumstances(user=user, uid=uid)
    usual = said(tiny, tmp_path / "usual", SCRIPT, first)
    reverse = said(tiny, tmp_path / "reverse", SCRIPT, replace(first, reversed_folders=True))
    assert usual[0] != reverse[0]
    assert reverse[0].split() == usual[0].split()[::-1]
    assert sorted(reverse[0].split()) == [str(n) for n in range(1, 10)]
    assert usual[1:] == reverse[1:]
    assert reverse[-1] == "the end"


def test_no_entry_is_lost_or_said_twice(tiny: Tiny, tmp_path: Path) -> None:
    """Or a second build would lack a file now and then, and nobody would find out why."""
    usual = said(tiny, tmp_path / "usual", LARGE, Circumstances())
    reverse = said(tiny, tmp_path / "reverse", LARGE, Circumstances(reversed_folders=True))
    assert usual[1] != reverse[1]
    assert [usual[0], *usual[2:]] == [reverse[0], *reverse[2:]]
    assert reverse[3] == "complete interrupted"


def test_an_image_without_perl_keeps_its_order(tmp_path: Path) -> None:
    """And `reproduce` says so, instead of what it did not do."""
    assert not guard.can_reverse(tmp_path)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/perl").touch()
    assert guard.can_reverse(tmp_path)
