"""Bisections over real git histories: the right culprit, in few builds, whatever comes between."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from pipeline.errors import FailureError, HostError, UsageError
from pipeline.nightly import narrow
from pipeline.nightly.bisect import Bisection
from pipeline.nightly.course import Found
from pipeline.nightly.night import Outcome
from pipeline.nightly.trial import Question, Verdict
from pipeline.release import Feature
from tests.nightly.machine import Site

COUNT = 64
MOST = math.ceil(math.log2(COUNT)) + 1


@pytest.fixture
def commits(site: Site) -> list[str]:
    """A good commit and 64 after it."""
    first = site.upstream.git("rev-parse", "HEAD")
    stream = "".join(
        f"commit refs/heads/main\ncommitter C <c@example.org> {1500000000 + n} +0000\n"
        f"data <<.\nx86/mm: change {n}\n.\nM 100644 inline xen/common/file.c\ndata <<.\n{n}\n.\n\n"
        for n in range(1, COUNT + 1)
    )
    stream = stream.replace("\n.\nM 100644", f"\n.\nfrom {first}\nM 100644", 1)
    site.upstream.git("fast-import", "--quiet", input=stream.encode())
    site.upstream.git("reset", "--quiet", "--hard", "main")
    return site.upstream.git("rev-list", "--reverse", "main").split()


def bisection(site: Site, good: str, bad: str, check: str = "build") -> Bisection:
    nightly = site.nightly
    return Bisection(
        nightly.settings, nightly.release, Question.parse(check), good, bad, program=nightly.program
    )


def trials(found: Found) -> dict[str, Verdict]:
    return {trial.commit: trial.verdict for trial in found.search.trials}


@pytest.mark.parametrize("culprit", [1, 23, 64])
def test_the_commit_that_breaks_the_compile_is_found(site: Site, commits: list[str], culprit: int) -> None:
    """64 commits are built seven times at the most, the ends of the range included."""
    site.break_from("build", commits[culprit:])
    found = bisection(site, commits[0][:12], "main").run()
    assert found.culprit.commit == commits[culprit]
    assert found.culprit.subject == f"x86/mm: change {culprit}"
    assert len(found.search.trials) <= MOST
    assert "'page' undeclared" in found.bad.why
    assert "'page' undeclared" in (found.folder / found.bad.log).read_text()
    assert found.good.commit == commits[culprit - 1]
    assert (found.folder / found.good.log).is_file()
    assert str(found).startswith(f"First bad commit: {commits[culprit][:12]} x86/mm: change {culprit} (")


@pytest.mark.integration
@pytest.mark.parametrize("check", ["smoke:xl-list", "host:grub-xl-list", "check", "reproduce"])
def test_the_commit_that_breaks_a_check_is_found(site: Site, commits: list[str], check: str) -> None:
    """A commit that panics at boot compiles well; so does one that is not reproducible."""
    site.break_from(check.partition(":")[0], commits[40:])
    found = bisection(site, commits[0], commits[COUNT], check).run()
    assert found.culprit.commit == commits[40]
    assert (found.folder / found.bad.log).is_file()
    assert len(found.search.trials) <= MOST
    step, _, case = check.partition(":")
    boots = [words for words in said(site) if words.startswith("smoke ")]
    # The whole tier would take minutes a commit.
    assert all(f"--case {case}" in words for words in boots)
    assert bool(boots) == (step in ("smoke", "host"))


def test_commits_that_do_not_build_are_skipped(site: Site, commits: list[str]) -> None:
    """Upstream's history has some that never compiled, which say nothing of the boot."""
    site.break_from("smoke", commits[30:])
    site.break_from("build", commits[32:36])
    found = bisection(site, commits[0], commits[COUNT], "smoke").run()
    assert found.culprit.commit == commits[30]
    assert Verdict.SKIP in trials(found).values()


def test_a_culprit_among_commits_that_do_not_build_is_one_of_several(site: Site, commits: list[str]) -> None:
    """The innocent would be blamed."""
    site.break_from("smoke", commits[30:])
    site.break_from("build", commits[28:33])
    with pytest.raises(FailureError, match="one of several") as caught:
        bisection(site, commits[0], commits[COUNT], "smoke").run()
    named = [line.split()[0] for line in (caught.value.hint or "").splitlines()]
    assert sorted(named) == sorted(commit[:12] for commit in commits[28:34])


def test_a_killed_bisection_goes_on_where_it_was(site: Site, commits: list[str]) -> None:
    """It takes hours: a reboot must not cost them."""
    site.break_from("build", commits[23:])
    # The third commit that is tried hangs, as git will choose it.
    site.break_from("build", [commits[24]], "hang")
    asked = bisection(site, commits[0], commits[COUNT])
    site.killed("", asked.run)
    site.break_from("build", [commits[24]])
    record = next(asked.folder.glob("*/bisect.json")).read_text()
    found = asked.run()
    assert found.culprit.commit == commits[23]
    assert len(found.search.trials) <= MOST
    kept = [trial for trial in found.search.trials if trial.commit in record]
    assert len(kept) == record.count('"verdict"') > 0
    again = asked.run()
    assert again.search == found.search


def test_a_host_that_fails_ends_it_without_a_verdict(site: Site, commits: list[str]) -> None:
    """A full disk is no commit's fault; once more, and it goes on."""
    site.break_from("build", commits[23:])
    site.break_from("build", [commits[16]], "full")
    asked = bisection(site, commits[0], commits[COUNT])
    with pytest.raises(HostError, match="No space left"):
        asked.run()
    (site.folder / "broken").unlink()
    site.break_from("build", commits[23:])
    assert asked.run().culprit.commit == commits[23]


def test_a_boot_that_fails_once_is_no_verdict(site: Site, commits: list[str]) -> None:
    """One flake would lead to the wrong half, and from there to an innocent commit."""
    site.break_from("smoke", commits[40:])
    (site.folder / "faults").write_text("smoke red 1\n")  # commit 32, which is good
    assert bisection(site, commits[0], commits[COUNT], "smoke").run().culprit.commit == commits[40]


@pytest.mark.integration
@pytest.mark.parametrize(("first", "message"), [(0, "is not good"), (COUNT + 1, "is not bad")])
def test_ends_that_are_not_what_they_are_said_to_be(
    site: Site, commits: list[str], first: int, message: str
) -> None:
    """git would name the first commit, or the last one, as if that were an answer."""
    site.break_from("build", commits[first:])
    with pytest.raises(FailureError, match=message):
        bisection(site, commits[0], commits[COUNT]).run()


def test_mistakes_are_named(site: Site, commits: list[str]) -> None:
    """Each would cost hours of builds before it shows."""
    with pytest.raises(UsageError, match="does not lead to"):
        bisection(site, commits[9], commits[3]).run()
    with pytest.raises(UsageError, match="no commit nonsense"):
        bisection(site, "nonsense", commits[3]).run()
    for check in ("smok", "smoke:", "build:x", "reproduce:x", ""):
        with pytest.raises(UsageError, match="no check"):
            Question.parse(check)
    for check in ("smoke:nonsense", "host:nonsense"):
        with pytest.raises(UsageError, match="no case 'nonsense'"):
            Question.parse(check)


def test_nothing_of_the_builds_is_left_but_logs(site: Site, commits: list[str]) -> None:
    """Seven builds of Xen would fill the disk, and the newest of them pass for the night's."""
    before = site.nightly.folder / "latest"
    site.break_from("build", commits[23:])
    found = bisection(site, commits[0], commits[COUNT]).run()
    assert not before.exists()
    assert not list(found.folder.rglob("*.pkg.tar.*"))
    assert not (found.folder / "upstream.git").exists()


def test_a_red_night_names_its_culprit(site: Site, tmp_path: Path) -> None:
    """So that the morning begins with a name instead of a search."""
    site.night()
    for number in range(1, 9):
        site.commit(f"change {number}")
    commits = site.upstream.git("rev-list", "--reverse", "main").split()
    site.break_from("smoke", commits[5:])
    red = site.night(bisect=True)
    assert red.outcome is Outcome.RED
    assert red.trouble is not None
    assert red.trouble.case == "xl-list"
    assert red.culprit is not None
    assert red.culprit.commit == commits[5]
    assert site.nightly.book.nights()[0] == red


@pytest.mark.parametrize(
    ("paths", "alone"),
    [
        (["xen/arch/x86/mm.c", "xen/Makefile", "docs/misc/page.pandoc", "CHANGELOG.md"], True),
        (["xen/arch/x86/mm.c", "tools/libs/light/libxl.c"], False),
        (["xen/include/public/sysctl.h"], False),
        (["Config.mk"], False),
        (["config/x86_64.mk"], False),
    ],
)
def test_only_the_hypervisor_can_matter(paths: list[str], alone: bool) -> None:
    """A tool's fault would be looked for where it is not; or a day spent where an hour is enough."""
    assert narrow.suffices(paths) is alone


@pytest.fixture
def whole_site(site: Site) -> Site:
    """A machine whose release can be built without its tools."""
    site.features = {"docs": Feature(), "tools": Feature()}
    return site


def said(site: Site) -> list[str]:
    """The commands since the site was made."""
    return (site.folder / "said").read_text().splitlines()


@pytest.mark.integration
@pytest.mark.parametrize("check", ["build", "smoke"])
def test_the_hypervisor_is_built_alone(whole_site: Site, commits: list[str], check: str) -> None:
    """A whole build takes minutes more, seven times; a boot needs the tools from somewhere."""
    whole_site.upstream.git("reset", "--quiet", "--hard", commits[0])
    good = whole_site.night()
    whole_site.upstream.git("reset", "--quiet", "--hard", commits[COUNT])
    (whole_site.folder / "said").unlink()
    whole_site.break_from(check, commits[40:])
    found = bisection(whole_site, commits[0], commits[COUNT], check).run()
    assert found.culprit.commit == commits[40]
    assert len(found.search.trials) <= MOST
    lines = said(whole_site)
    assert all("--without docs,tools" in line for line in lines if line.startswith("build"))
    over = f"--over {whole_site.nightly.folder / str(good.build_id)}"
    assert all(over in line for line in lines if line.startswith("smoke"))


@pytest.mark.integration
def test_what_the_hypervisor_alone_does_not_show_is_built_whole(whole_site: Site, commits: list[str]) -> None:
    """Some of its files are compiled into tools: their culprit is found too."""
    (whole_site.folder / "tools break it").touch()
    whole_site.break_from("build", commits[40:])
    found = bisection(whole_site, commits[0], commits[COUNT]).run()
    assert found.culprit.commit == commits[40]
    assert "--without" in said(whole_site)[0]
    assert "--without" not in said(whole_site)[-1]


def test_a_change_of_a_tool_is_built_whole(whole_site: Site, commits: list[str]) -> None:
    """Its culprit would not be found otherwise."""
    whole_site.upstream.commit({"tools/xl.c": b""})
    whole_site.break_from("build", commits[60:])
    bisection(whole_site, commits[50], "main").run()
    assert not any("--without" in line for line in said(whole_site))
