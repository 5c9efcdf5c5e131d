"""The commands. Each reads its arguments, calls pipeline/, and prints; `./inv --list` shows them.

Exit statuses of all: 0 fine, 1 the thing under test failed, 2 wrong use, 3 this host or an outside
service failed.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from invoke.collection import Collection
from invoke.context import Context
from invoke.exceptions import Exit
from invoke.tasks import task

from pipeline.errors import ExitStatus

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.steps import Steps

_RELEASE_HELP = {
    "release": "A name from releases/.",
    "without": "Features of the release to leave out, parted by commas.",
    "image": "A name from containers/, to build in instead of the release's own.",
}

_LOCKED_HELP = "An image without a lock is an error, as it is where CI is set; otherwise its lock is made."

# The parts are imported where they are used: a command must not wait for what it does not need.


def _settings(context: Context) -> Settings:
    from pipeline.settings import Settings

    return Settings.read(context.config.pipeline)


def _steps(context: Context, release: str, without: str = "", image: str = "", locked: bool = False) -> Steps:
    import msgspec

    from pipeline.settings import words
    from pipeline.steps import Steps

    settings = _settings(context)
    if locked:
        settings = msgspec.structs.replace(settings, locked=True)
    return Steps(settings, release or settings.release, words(without), image)


def _print(text: object) -> None:
    sys.stdout.write(f"{text}\n")


@task(help={"dev": "Also what the project's own tests need."})
def setup(context: Context, dev: bool = False) -> None:  # noqa: ARG001
    """Install what this host lacks, or print the command that does.

    Example: ./inv setup release 4.17
    """
    from pipeline import host

    host.set_up(tests=dev)


@task(
    positional=[],
    help={
        "release": _RELEASE_HELP["release"],
        "without": _RELEASE_HELP["without"],
        "json": "Print the findings as JSON.",
    },
)
def doctor(context: Context, release: str = "", without: str = "", json: bool = False) -> None:
    """Say what works on this host for a release and what does not, each with its remedy.

    Example: ./inv doctor 4.17
    """
    from pipeline.doctor import render
    from pipeline.doctor.examine import examine
    from pipeline.doctor.finding import Subject

    steps = _steps(context, release, without)
    findings = examine(Subject(steps.settings, steps.release))
    _print((render.as_json if json else render.as_text)(steps.release.name, findings))
    if not render.able(findings):
        raise Exit(code=ExitStatus.HOST)


@task(
    positional=[],
    help={
        "release": _RELEASE_HELP["release"],
        "without": _RELEASE_HELP["without"],
        "from": "A folder that may hold some of them, files under any name and git clones.",
    },
)
def fetch(context: Context, release: str = "", without: str = "", from_: str = "") -> None:
    """Bring every source of a release into the store, by hash or commit.

    Example: ./inv fetch 4.17 --from ~/Downloads
    """
    folder = Path(from_).expanduser() if from_ else None
    for path in _steps(context, release, without).fetch(folder).values():
        _print(path)


@task(
    positional=[],
    help={
        "name": "A name from containers/; without one, the default release's image.",
        "verify": "Assemble it twice from nothing and compare, file by file where the tars differ.",
        "export": "Write it to this file, for another machine or `docker load`.",
        "import": "Take it from a file that --export or `docker save` wrote, if it is the locked one.",
        "locked": _LOCKED_HELP,
    },
)
def image(
    context: Context,
    name: str = "",
    verify: bool = False,
    export: str = "",
    import_: str = "",
    locked: bool = False,
) -> None:
    """Assemble an image from its lock, verify it where it is in place, and try what it promises.

    Example: ./inv image debian-bookworm
    """
    from pipeline.image import exchange, twice
    from pipeline.image.definition import read_definition
    from pipeline.image.proof import prove

    steps = _steps(context, "", locked=locked)
    settings, name = steps.settings, name or steps.release.image
    if import_:
        exchange.read(name, Path(import_).expanduser(), settings.open_store)
    if verify:
        # First, as no image can be made ready where it does not come out as its lock says.
        wanted = steps.locked_image(name)
        sha256 = twice.verify(wanted, settings.open_mirrors, jobs=settings.downloads)
        _print(f"Assembled twice: both times the locked tar, {sha256}")
    ready = steps.named_image(name)
    ready.verify()
    if not ready.packs_itself:
        ready.layer()
    prove(name, read_definition(name), ready.root, settings.open_store)
    if export:
        exchange.write(ready, Path(export).expanduser())
    _print(f"{ready.id} {ready.root}")


@task(
    positional=["name"],
    help={
        "name": "A name from containers/.",
        "date": "For Arch: another day of the archive, YYYY-MM-DD; the definition names it from then on.",
    },
)
def image_lock(context: Context, name: str, date: str = "") -> None:
    """Make an image's lock (online): from today's packages, or from a day of the Arch archive.

    Example: ./inv image.lock arch --date 2026-11-01
    """
    from pipeline.image import lock, locking

    settings = _settings(context)
    locking.make(name, settings.open_store, settings.open_mirrors, jobs=settings.downloads, date=date)
    _print(lock.lock_path(name))


@task(positional=[], help=dict(_RELEASE_HELP))
def recipe(context: Context, release: str = "", without: str = "", image: str = "") -> None:
    """Write the AUR folder: PKGBUILD, .SRCINFO and the support files.

    Example: ./inv recipe 4.17
    """
    _print(_steps(context, release, without, image).recipe())


@task(
    positional=[],
    help={
        **_RELEASE_HELP,
        "lock": "The lock.json of a night: what the release's branch was then.",
        "ccache": "Take what was compiled before, as nights do; not for releases.",
    },
)
def build(
    context: Context,
    release: str = "",
    without: str = "",
    image: str = "",
    lock: str = "",
    ccache: bool = False,
) -> None:
    """Build the packages of a release.

    Example: ./inv build 4.17
    """
    from pipeline.nightly import resolve

    steps = _steps(context, release, without, image)
    if lock:
        steps = steps.at(resolve.read(Path(lock).expanduser()))
    steps = dataclasses.replace(steps, ccache=ccache)
    for path in steps.build().packages:
        _print(path)


_TARGET_HELP = {
    "target": "A release, whose newest build is meant, or package files. Without any, the default release.",
    "expect": "The release that package files are judged by; without it, the default release.",
    "without": "Features that the release of package files was built without, parted by commas.",
    "image": "The image that package files were built in, where it is not their release's own.",
}


def _packages(
    context: Context, target: list[str], expect: str, without: str, image: str, *, verified: bool = True
) -> tuple[Steps, list[Path], Path]:
    """Return the steps, the packages that are meant, and the folder for their results.

    A build's packages are ``verified`` by their hashes, unless who uses them does that anyway.
    """
    from pipeline.errors import UsageError

    files = [Path(word) for word in target if ".pkg.tar" in word]
    names = [word for word in target if ".pkg.tar" not in word]
    if len(names) + bool(files) > 1:
        raise UsageError("Name one release, or package files.", hint="--expect names the release of files.")
    for file in files:
        if not file.exists():
            raise UsageError(f"There is no file {file}.")
    if files:
        steps = _steps(context, expect, without, image)
        return steps, files, steps.settings.artifacts_folder / steps.release.name / "foreign"
    steps = _steps(context, "".join(names))
    newest = steps.newest(verified=verified)
    return steps.like(newest), newest.packages, newest.folder


@task(positional=[], iterable=["target"], help=dict(_TARGET_HELP))
def check(context: Context, target: list[str], expect: str = "", without: str = "", image: str = "") -> None:
    """Check packages without installing them.

    Example: ./inv check 4.17
    """
    from pipeline.proofs import Proofs

    steps, packages, results = _packages(context, target, expect, without, image)
    _print(f"check: {Proofs(steps).check(packages, results).summary}")


@task(
    positional=["before", "after"],
    help={
        "before": "A release, whose newest build is meant, a build's folder, or a package file.",
        "after": "What it is compared with, of the same kinds.",
    },
)
def diff(context: Context, before: str, after: str) -> None:
    """Say what changed from one build to another: files, dependencies, settings, manual pages.

    Example: ./inv diff 4.17 4.20
    """
    from pipeline.diff.compare import compare
    from pipeline.diff.render import render
    from pipeline.package import read

    one, other = ([read(path) for path in _of_a_build(context, word)] for word in (before, after))
    _print(render(compare(one, other)))


def _of_a_build(context: Context, word: str) -> list[Path]:
    """Return the packages that a word on the command line means."""
    from pipeline.errors import UsageError

    path = Path(word).expanduser()
    if path.is_dir() and (found := sorted(path.glob("*.pkg.tar.*"))):
        return [package for package in found if package.suffix != ".sig"]
    if ".pkg.tar" in path.name:
        if not path.is_file():
            raise UsageError(f"There is no file {path}.")
        return [path]
    return _steps(context, word).newest().packages


@task(
    positional=[],
    iterable=["target", "case", "known", "guest"],
    help={
        **_TARGET_HELP,
        "over": "A build that brings what a hypervisor alone lacks (built --without tools,docs).",
        "suite": "fast, which is evidence; full, on a whole host; xtf; or guests, your own.",
        "case": "A case to make alone, which is no evidence; of xtf also what xtf-runner takes. Repeatable.",
        "attach": "Attach this terminal to the console of the machine of the one case.",
        "xtf": "The folder of a built Xen Test Framework.",
        "known": "A file with more tests of XTF that are known not to succeed. Repeatable.",
        "guest": "The configuration of a guest (xl.cfg), started over its disks as they are. Repeatable.",
        "says": "What the console of such a guest shows when it is up; 'login:' where nothing is said.",
    },
)
def smoke(
    context: Context,
    target: list[str],
    case: list[str],
    known: list[str],
    guest: list[str],
    expect: str = "",
    without: str = "",
    image: str = "",
    over: str = "",
    suite: str = "fast",
    xtf: str = "",
    says: str = "",
    attach: bool = False,
) -> None:
    """Boot packages under QEMU and see whether they do what they promise.

    Example: ./inv smoke 4.17 --suite full
    """
    from pipeline.proofs import Proofs
    from pipeline.smoke.choice import Choice

    choice = Choice(suite, tuple(case), xtf, tuple(known), attach, tuple(guest), says)
    steps, packages, results = _packages(context, target, expect, without, image)
    if choice.on_host:
        again = ("./inv", "smoke", *target, *choice.words)
        _print(
            f"smoke: {Proofs(steps).smoke_host(packages, results, choice.cases, again, choice.terminal())}"
        )
        return
    chosen = choice.open()
    terminal = choice.terminal(chosen)
    below = _of_a_build(context, over) if over else []
    command = ["./inv", "smoke", *target]
    for option, value in (("expect", expect), ("without", without), ("image", image), ("over", over)):
        command += [f"--{option}", value] if value else []
    if choice.is_evidence:
        _print(f"smoke: {Proofs(steps).smoke(packages, results, below, command).summary}")
        return
    command += choice.words
    output = results / choice.folder
    _print(f"smoke: {Proofs(steps).smoke_some([*below, *packages], output, command, chosen, terminal)}")


@task(
    positional=[],
    help={
        "target": "A release, whose newest build is meant, or a package file beside its build.json.",
        "vary": "What the second build does differently, parted by commas; without it, all that is possible.",
    },
)
def reproduce(context: Context, target: str = "", vary: str = "") -> None:
    """Build again what a finished build was made from, under other circumstances, and compare the bytes.

    Variations: clock, time-zone, locale, umask, user, host-name, jobs, order, home, checkout, engine.
    Example: ./inv reproduce 4.17 --vary clock,jobs
    """
    from pipeline import build as builds
    from pipeline.proofs import Proofs
    from pipeline.reproduce.variations import Variation
    from pipeline.settings import words

    if ".pkg.tar" in target:
        build = builds.holding(Path(target).expanduser())
        steps = _steps(context, build.record.release)
    else:
        steps = _steps(context, target)
        build = steps.newest()
    if vary:
        _print(f"reproduce: {Proofs(steps).reproduce_by(build, Variation.parse(words(vary)))}")
    else:
        _print(f"reproduce: {Proofs(steps).reproduce(build).summary}")


@task(
    positional=[],
    help={
        **_RELEASE_HELP,
        "reproduce": "Also build it a second time; --no-reproduce leaves that out.",
        "full": "Also install it on a whole host, and restart that: the full tier of smoke.",
        "locked": _LOCKED_HELP,
    },
)
def release(
    context: Context,
    release: str = "",
    without: str = "",
    image: str = "",
    reproduce: bool = True,
    full: bool = False,
    locked: bool = False,
) -> None:
    """Fetch, build, check, build again and boot a release, then sum it up.

    Example: ./inv release 4.2 --image debian-bullseye
    """
    from pipeline import summary
    from pipeline.road import travel

    built, rows = travel(_steps(context, release, without, image, locked), reproduce=reproduce, full=full)
    _print(summary.render(built, rows))


@task(positional=[], help={"release": _RELEASE_HELP["release"]})
def sign(context: Context, release: str = "") -> None:
    """Sign a release's newest build anew: its packages, and the SHA256SUMS of all that belongs to it.

    Example: ./inv sign 4.17
    """
    from pipeline.errors import UsageError

    steps = _steps(context, release)
    if not steps.settings.signing_key:
        raise UsageError("No key to sign with is set.", hint="The setting signing_key is its fingerprint.")
    _print(steps.seal(steps.newest(), anew=True))


@task(
    positional=[],
    iterable=["target"],
    help={
        "target": "Packages, folders of builds, or URLs of them (a folder's ends in /).",
        "key": "A file with the public key of those who may have signed.",
        "unsigned": "Accept what nobody has signed.",
    },
)
def verify(context: Context, target: list[str], key: str = "", unsigned: bool = False) -> None:
    """Verify signatures, hashes, evidence and provenance; needs only the files and a public key.

    Example: ./inv verify artifacts/4.17/latest --key maintainer.asc
    """
    from pipeline import verify as verifying
    from pipeline.errors import UsageError

    if not target:
        raise UsageError("Nothing is named to verify.", hint="Example: ./inv verify artifacts/4.17/latest")
    settings = _settings(context)
    key_files = (Path(key).expanduser(),) if key else settings.key_files
    for word in target:
        _print(verifying.table(word, key_files, settings.signing_key, unsigned=unsigned))


@task(
    positional=[],
    help={
        "release": _RELEASE_HELP["release"],
        "output": "Where the bundle goes; - is standard output. Without it, artifacts/bundles.",
        "with-sources": "Add every source, for a rebuild without network.",
        "with-image": "Add the packages that the images are made of, for the same purpose.",
        "allow-unproven": "Bundle packages that lack passing evidence; the bundle says so.",
    },
)
def bundle(
    context: Context,
    release: str = "",
    output: str = "",
    with_sources: bool = False,
    with_image: bool = False,
    allow_unproven: bool = False,
) -> None:
    """Put a release's newest build into one file: packages, signatures, evidence, papers, AUR folder.

    Example: ./inv bundle 4.17 --with-sources --with-image
    """
    from pipeline.bundle.pack import pack

    steps = _steps(context, release)
    path = pack(steps, output=output, sources=with_sources, image=with_image, unproven=allow_unproven)
    if path is not None:
        _print(path)


@task(
    help={
        "name": "The bundle: a file, a URL, or - for standard input.",
        "key": "A file with the public key of those who may have signed.",
        "unknown-signer": "Take a bundle that somebody else or nobody has signed.",
        "allow-unproven": "Take a bundle whose packages lack passing evidence.",
        "adopt": "Make it the newest build of its release here, for all other commands.",
        "evidence": "With --adopt: a folder with evidence that others have made of its packages since.",
        "install": "Install the packages with pacman.",
        "smoke": "Boot the packages here.",
        "rebuild": "Build them again from what the bundle brings, and compare the bytes.",
    },
)
def receive(
    context: Context,
    name: str,
    key: str = "",
    unknown_signer: bool = False,
    allow_unproven: bool = False,
    adopt: bool = False,
    evidence: str = "",
    install: bool = False,
    smoke: bool = False,
    rebuild: bool = False,
) -> None:
    """Verify a bundle and unpack it below artifacts/received; nothing is unpacked before all is verified.

    Example: ./inv receive 4.17.bundle.tar --key maintainer.asc --smoke
    """
    from pipeline import signing
    from pipeline.bundle import rebuild as rebuilding
    from pipeline.bundle import receive as receiving
    from pipeline.errors import UsageError
    from pipeline.proofs import Proofs

    if evidence and not adopt:
        raise UsageError("--evidence is for a build that is adopted.", hint="--adopt")
    settings = _settings(context)
    key_files = (Path(key).expanduser(),) if key else settings.key_files
    with signing.keyring(*key_files, own=settings.signing_key) as keys:
        trust = receiving.Trust(keys, unknown_signer, allow_unproven)
        received = receiving.receive(name, settings.artifacts_folder / "received", trust)
    build = received.build
    steps = _steps(context, build.record.release)
    if rebuild:
        rebuilding.rebuild(steps, received)
    if smoke:
        # Not beside the evidence that came along, which would pass for this machine's own.
        results = received.folder / "here"
        _print(f"smoke: {Proofs(steps.like(build)).smoke(build.packages, results).summary}")
    if adopt:
        receiving.adopt(received, settings.artifacts_folder, Path(evidence) if evidence else None)
    if install:
        receiving.install(received)
    _print(received.folder)


@task(
    positional=[],
    iterable=["target"],
    help={
        "target": _TARGET_HELP["target"],
        "channel": "stable or unstable.",
        "allow-unproven": "Publish packages that lack passing evidence; the repository says so.",
        "to": "Bring the repository to USER@HOST:FOLDER by rsync afterwards.",
    },
)
def publish(
    context: Context, target: list[str], channel: str = "stable", allow_unproven: bool = False, to: str = ""
) -> None:
    """Put packages into a pacman repository below artifacts/repo.

    Example: ./inv publish 4.17 --channel stable --to user@host:/srv/repo
    """
    from pipeline.repository import publish as publishing

    steps, packages, results = _packages(context, target, "", "", "")
    publishing.command(steps.settings, packages, results, channel, unproven=allow_unproven, target=to)


@task(
    positional=[],
    iterable=["name", "packages"],
    help={
        "name": "A machine, [USER@]HOST as ssh knows it; several may be named.",
        "packages": "A release, whose newest build is sent, or a package file; may be given several times.",
        "install": "Install the packages there with pacman.",
        "smoke": "Look at the installed packages there: pacman -Qkk, and xl where Xen runs.",
    },
)
def send(
    context: Context,
    name: list[str],
    packages: list[str],
    install: bool = False,
    smoke: bool = False,
) -> None:
    """Send packages to machines by ssh and verify them there; goes on where a broken transfer stopped.

    Example: ./inv send root@dom0.example --packages 4.17 --install
    """
    from pipeline.transfer import send as sending

    # The other side's hashes are compared with the build's: no pass over the packages for that here.
    _, paths, folder = _packages(context, packages, "", "", "", verified=False)
    _print(sending.send(sending.load(paths, folder), name, install=install, smoke=smoke))


@task(
    positional=[],
    help={
        **_RELEASE_HELP,
        "no-build": "Do not build the folder with plain makepkg first.",
        "dry-run": "Show what would be pushed, and push nothing.",
    },
)
def aur_push(
    context: Context,
    release: str = "",
    without: str = "",
    image: str = "",
    no_build: bool = False,
    dry_run: bool = False,
) -> None:
    """Build a release's AUR folder as an AUR user would, check it, and push it to the AUR.

    Example: ./inv aur.push 4.17 --dry-run
    """
    from pipeline import aur

    steps = _steps(context, release, without, image)
    _print(aur.command(steps, build_first=not no_build, dry_run=dry_run))


@task(
    help={
        "bind": "The address to listen on; 0.0.0.0 is every one of this host.",
        "port": "The port; 0 is any that is free.",
    }
)
def serve(context: Context, bind: str = "127.0.0.1", port: int = 8470) -> None:
    """Serve the published repositories over HTTP, and print the lines for pacman.conf.

    Example: ./inv serve --bind 0.0.0.0
    """
    from pipeline.repository import serve as serving

    serving.serve(_settings(context).repository_folder, bind, port)


@task(
    help={
        "branch": "Upstream's branch to follow, instead of the one that the settings or the release name.",
        "bisect": "Where the night is red, find the first bad commit.",
    }
)
def nightly(context: Context, branch: str = "", bisect: bool = False) -> None:
    """Build, check, reproduce and boot upstream's newest commit, unless that was done before.

    Example: ./inv nightly --branch staging
    """
    from pipeline.nightly.run import Nightly

    night = Nightly.of(_settings(context), branch, bisect=bisect).run()
    _print(f"Night {night.number}: {night.outcome}. {night.note}".rstrip())
    if night.outcome.status:
        raise Exit(code=night.outcome.status)


@task(
    positional=[],
    help={
        "release": _RELEASE_HELP["release"],
        "branch": "Upstream's branch, instead of the release's own.",
        "commit": "A commit of it; without one, the newest.",
        "output": "The file to write; without one, it is printed.",
    },
)
def nightly_resolve(
    context: Context, release: str = "", branch: str = "", commit: str = "", output: str = ""
) -> None:
    """Write the lock of what a release's branch stands for, as `build --lock` takes it (online).

    Example: ./inv nightly.resolve --branch staging --output lock.json
    """
    from pipeline import files, records
    from pipeline.nightly import resolve

    settings = _settings(context)
    lock = resolve.ask(settings, release or settings.nightly.release, branch, commit)
    if output:
        files.write_bytes(Path(output).expanduser(), records.encode(lock))
    else:
        _print(records.encode(lock).decode().rstrip())


@task(
    positional=[],
    help={
        "when": "The time, as systemd.time(7) has it.",
        "user": "The user that nights run as; it is made.",
        "memory": "The most memory that a night may take.",
        "cpus": "The most processors; 0 is all.",
        "root": "Write below this folder instead, for another machine or an image.",
    },
)
def nightly_install(
    context: Context,  # noqa: ARG001
    when: str = "*-*-* 02:00:00",
    user: str = "xen-nightly",
    memory: str = "8G",
    cpus: int = 0,
    root: str = "/",
) -> None:
    """Install a systemd service and timer that do a night every night; as root.

    Example: ./inv nightly.install --when "*-*-* 03:30:00" --memory 12G
    """
    from pipeline.schedule.install import Schedule

    for path in Schedule(when, user, memory, cpus).install(Path(root).expanduser().resolve()):
        _print(path)


@task(
    positional=[],
    help={
        "good": "A commit on which the check passes; without it, the last good night's.",
        "bad": "A later commit on which it does not; without it, the last red night's.",
        "check": "build, check[:CODE], reproduce, smoke[:CASE] or host[:CASE]; the last red night's.",
        "release": "The release whose branch it is; without it, the one that nights build.",
        "without": _RELEASE_HELP["without"],
    },
)
def bisect(
    context: Context, good: str = "", bad: str = "", check: str = "", release: str = "", without: str = ""
) -> None:
    """Find upstream's first commit on which a check fails; the same again goes on where it stopped.

    Example: ./inv bisect --good 0e2ab01 --bad master --check build
    """
    from pipeline.nightly.bisect import Bisection

    _print(Bisection.read(_settings(context), release, good, bad, check, without).run())


@task(
    positional=[],
    help={
        "release": "Build this one, publish it and end, instead of waiting for nights and people.",
        "workers": "How many workers.",
        "folder": "Where the farm's state is; without it, artifacts/farm.",
        "port": "The port of the web page, on this machine only; 0 is any that is free.",
    },
)
def farm(context: Context, release: str = "", workers: int = 2, folder: str = "", port: int = 8010) -> None:
    """Start a Buildbot master and its workers on this machine, to try the farm out; see docs/nightlies.md.

    Example: ./inv farm --release 4.17 --workers 2
    """
    from pipeline.farm.local import Farm

    settings = _settings(context)
    place = Path(folder).expanduser().resolve() if folder else settings.artifacts_folder / "farm"
    with Farm(settings, place, workers, port).running() as master:
        if not release:
            master.forever()
        for done in master.carry(release):
            _print(done)


@task(
    positional=[],
    help={
        "release": "The release whose nights are meant; without it, the one that nights build.",
        "output": "Where the site goes; without it, artifacts/RELEASE/report.",
    },
)
def report(context: Context, release: str = "", output: str = "") -> None:
    """Write the history of nights as a site that needs no server.

    Example: ./inv report --output /srv/www/xen
    """
    from pipeline.report.site import Report

    settings = _settings(context)
    site = Report.of(settings.artifacts_folder, release or settings.nightly.release)
    _print(site.write(Path(output).expanduser().resolve() if output else None))


@task(positional=[], iterable=["shell"], help={"shell": "bash, zsh or fish; without one, all three."})
def completion(context: Context, shell: list[str]) -> None:  # noqa: ARG001
    """Install the completion of commands, options, releases and images by the Tab key, for this user.

    Example: ./inv completion bash
    """
    from pipeline.completion.install import install

    for line in install(tuple(shell)):
        _print(line)


@task(help={"output": "Write the page to this file instead."})
def manual(context: Context, output: str = "") -> None:  # noqa: ARG001
    """Install the manual page xen-aur-pipeline(7), for this user.

    Example: ./inv manual && man xen-aur-pipeline
    """
    from pipeline import manual as manuals
    from pipeline import overview
    from pipeline.cli import contexts

    by_name = {name: c for c in contexts(namespace) for name in (str(c.name), *c.aliases)}
    path = Path(output).expanduser() if output else None
    _print(manuals.install(overview.commands(namespace), by_name, path))


@task
def lint(context: Context) -> None:  # noqa: ARG001
    """Check the project's own code: ruff, mypy, shellcheck.

    Example: ./inv lint
    """
    from pipeline import selftest

    selftest.lint()


@task(
    help={
        "select": "An expression for pytest's -k.",
        "unit": "Only what takes seconds: nothing is built, booted or put into containers.",
        "sabotage": "Only the sabotage, all of it, with so many random moments a step; prints its figures.",
    }
)
def test(context: Context, select: str = "", unit: bool = False, sabotage: int = 0) -> None:  # noqa: ARG001
    """Run the project's own linters and tests.

    Example: ./inv setup --dev test
    """
    from pipeline import selftest

    if sabotage:
        _print(selftest.sabotage(sabotage, select=select))
        return
    selftest.lint()
    selftest.test(select=select, unit=unit)


_image = Collection("image")
_image.add_task(image, name="ready", default=True)
_image.add_task(image_lock, name="lock")

_aur = Collection("aur")
_aur.add_task(aur_push, name="push")

_nightly = Collection("nightly")
_nightly.add_task(nightly, name="run", default=True)
_nightly.add_task(nightly_install, name="install")
_nightly.add_task(nightly_resolve, name="resolve")

namespace = Collection(
    bisect,
    build,
    bundle,
    check,
    completion,
    diff,
    doctor,
    farm,
    fetch,
    lint,
    manual,
    publish,
    receive,
    recipe,
    release,
    report,
    reproduce,
    send,
    serve,
    setup,
    sign,
    smoke,
    test,
    verify,
    _aur,
    _image,
    _nightly,
)
