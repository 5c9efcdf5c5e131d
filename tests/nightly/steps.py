"""Stands for the pipeline's commands in nights that take no time: makes whole builds, or fails as told.

Run as: steps.py FOLDER -f SETTINGS COMMAND NAME [--lock FILE]. FOLDER/faults has a line a fault:
"STEP HOW [TIMES]". FOLDER/broken says how a step of certain commits ends: {STEP: {COMMIT: HOW}}.
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

ERROR = "arch/x86/mm.c:12:5: error: 'page' undeclared (first use in this function)"


def fault(folder: Path, step: str) -> str:
    """Take the fault that is planned for a step; one with a number goes away after so many times."""
    path = folder / "faults"
    lines = path.read_text().splitlines() if path.exists() else []
    for index, line in enumerate(lines):
        name, how, *times = line.split()
        if name == step:
            if times:
                lines[index : index + 1] = [] if times[0] == "1" else [f"{name} {how} {int(times[0]) - 1}"]
                path.write_text("".join(f"{one}\n" for one in lines))
            return how
    return ""


def build(settings: dict[str, Any], name: str, lock: dict[str, Any]) -> None:
    """Leave a build as the pipeline does: whole, or not at all."""
    data = lock["commit"].encode()
    sha256 = hashlib.sha256(data).hexdigest()
    build_id = sha256[:16]
    file = f"{name}-{lock['version']}-1-x86_64.pkg.tar.xz"
    record = {
        "release": name, "build_id": build_id, "compile_key": sha256, "image": "any", "image_id": "sha256:0",
        "engine": "none", "started": "2030-01-01T00:00:00Z", "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "packages": [{"file": file, "size": len(data), "sha256": sha256}],
    }  # fmt: skip
    folder = Path(settings["artifacts"]) / name
    new = folder / f"new-{os.getpid()}"
    new.mkdir(parents=True)
    (new / file).write_bytes(data)
    (new / "lock.json").write_text(json.dumps(lock))
    (new / "compile.log").write_text("a.c:1:1: warning: odd\nfine\n")
    (new / "build.json").write_text(json.dumps(record))
    if not (folder / build_id).exists():
        new.rename(folder / build_id)
    link = folder / "latest.new"
    link.symlink_to(build_id)
    link.replace(folder / "latest")


def broken(folder: Path, step: str, commit: str) -> str:
    """How a step of a commit ends, where that was planned."""
    path = folder / "broken"
    plan: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    return plan.get(step, {}).get(commit, "")


def boot(folder: Path, case: str, *, panics: bool) -> None:
    """Leave the results of a boot, as the pipeline does."""
    checks = [
        {"name": "banner", "title": "The hypervisor says its version", "verdict": "pass"},
        {"name": case, "title": "xl answers", "verdict": "fail" if panics else "pass"},
    ]
    result = {
        "verdict": "fail" if panics else "pass", "xen_version": "1.0", "xen_found": "1.0", "cases": checks,
        "accelerator": {"kind": "tcg", "reason": "none"}, "qemu_version": "1", "qemu_command": [],
        "events": [], "inputs": [], "attempts": 1, "snapshot": None, "started": "2030-01-01T00:00:00Z",
        "timings": {"total": 1.0},
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "serial.log").write_text("(XEN) Xen version 1.0\n")
    (folder / "results.json").write_text(json.dumps(result))


def main() -> int:
    folder, settings = Path(sys.argv[1]), json.loads(Path(sys.argv[3]).read_text())["pipeline"]
    step, name = sys.argv[4], sys.argv[5]
    newest = Path(settings["artifacts"]) / name / "latest"
    lock = json.loads((Path(sys.argv[7]) if step == "build" else newest / "lock.json").read_text())
    with (folder / "said").open("a") as said:
        said.write(" ".join(sys.argv[4:]) + "\n")
    how = fault(folder, step) or broken(folder, step, lock["commit"])
    if "--without" in sys.argv and (folder / "tools break it").exists():
        how = ""
    if step == "smoke":
        boot(newest / ("smoke-some" if "--case" in sys.argv else step), "xl-list", panics=how == "red")
    if "--suite" in sys.argv:
        how = how or fault(folder, "host") or broken(folder, "host", lock["commit"])
        boot(newest / ("host-some" if "--case" in sys.argv else "host"), "grub-xl-list", panics=how == "red")
    if step == "reproduce" and how == "red":
        (newest / step).mkdir(exist_ok=True)
        explained = ("varied: clock", "", "x.pkg.tar.xz: boot/xen.gz//: Xen's banner (xen-banner).", "x: y.")
        (newest / step / "explanation.txt").write_text("\n".join(explained))
    if how == "hang":
        (folder / "hanging").touch()
        time.sleep(600)
    if how == "host":
        sys.stderr.write("error: No docker engine answers.\n")
        return 3
    if how == "full":
        sys.stderr.write("error: /var: No space left on device.\n")
        return 3
    if how == "red":
        sys.stdout.write(f"make: Entering directory '/build/src/small/xen'\n{ERROR}\n")
        sys.stdout.write("make: *** [Makefile:3: mm.o] Error 1\n")
        sys.stdout.flush()
        sys.stderr.write(f"error: {step} failed.\n")
        return 1
    if step == "build":
        build(settings, name, lock)
    sys.stdout.write(f"{step}: fine\n")
    return 0


sys.exit(main())
