"""What smoke boots with here: the wiki's test of the CPU's flags, /dev/kvm, and a probe boot."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline import build as builds
from pipeline.doctor.finding import Finding, State, Subject
from pipeline.errors import PipelineError
from pipeline.smoke.accelerator import Kind, choose

_PART = "virtualization"
_CPUINFO = Path("/proc/cpuinfo")
_FIRMWARE = (
    "Switch it on in the firmware's set-up (BIOS): Intel VT-x or Virtualization Technology, AMD SVM mode. "
    "In a virtual machine: nested virtualization on its host (kvm_intel or kvm_amd, nested=1; -cpu host)."
)


def virtualization(subject: Subject) -> Iterator[Finding]:
    """Look at flags and accelerator. Without KVM everything works, slower: so none of it is trouble."""
    yield flags(_CPUINFO)
    if shutil.which("qemu-system-x86_64") is None:
        return  # which is told among the tools
    xen = built_xen(subject)
    if xen is None:
        says = "No Xen was built here yet, so KVM cannot be probed with it; smoke does before it boots."
        yield Finding(
            part=_PART, what="accelerator", state=State.NOTE, says=says, remedy="./inv build, then again."
        )
        return
    chosen = choose(xen, cpuinfo=_CPUINFO)
    if chosen.kind is Kind.KVM:
        yield Finding(part=_PART, what="accelerator", state=State.FINE, says=f"kvm. {chosen.reason}")
    else:
        remedy = "None is needed: emulation boots the same, some times slower."
        yield Finding(
            part=_PART, what="accelerator", state=State.NOTE, says=f"tcg. {chosen.reason}", remedy=remedy
        )


def flags(cpuinfo: Path) -> Finding:
    """The test that the wiki's Xen page names: grep -E "(vmx|svm)" /proc/cpuinfo."""
    command = f"grep -E '(vmx|svm)' {cpuinfo}"
    found = re.findall(r"^flags\s*:.*?\b(vmx|svm)\b", cpuinfo.read_text(errors="replace"), re.MULTILINE)
    if found:
        says = (
            f"{command} finds {found[0]} on {len(found)} processors: HVM and PVH guests can run on Xen here."
        )
        return Finding(part=_PART, what="flags", state=State.FINE, says=says)
    says = f"{command} finds nothing: on this machine Xen could run PV guests only, and QEMU has no KVM."
    return Finding(part=_PART, what="flags", state=State.NOTE, says=says, remedy=_FIRMWARE)


def built_xen(subject: Subject) -> bytes | None:
    """The hypervisor of the release's newest build here, unpacked; None where there is none."""
    # Imported late: reading packages takes libarchive, which may be what is missing.
    try:
        from pipeline.smoke.hypervisor import find_xen
        from pipeline.smoke.layers import read_packages

        newest = builds.newest(subject.settings.artifacts_folder, subject.release.name)
        return find_xen(read_packages(newest.packages))
    except (PipelineError, OSError, ImportError, TypeError):
        return None
