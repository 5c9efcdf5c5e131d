"""Find out whether KVM can be used here: the device node alone says nothing.

A software KVM opens like the real one, prints nothing, and can hang QEMU; so it must show in
/proc/cpuinfo, open, and boot a Xen as far as its first line.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

import msgspec

from pipeline.errors import ToolMissingError

PROBE_SECONDS = 8.0
"""Seconds in which a real KVM has long printed Xen's first line; emulation needs 2 to 3."""


# SMAP as 7.2 emulates it kills a PV dom0 at once. With xsave, and AVX that needs it, programs were seen to
# die of signals where there is a guest beside dom0: cat in the guest, systemd in dom0.
_EMULATED = "max,-smap,-xsave,-avx,-avx2"


class Kind(StrEnum):
    """The accelerators of QEMU that the pipeline uses."""

    KVM = "kvm"
    TCG = "tcg"


class Accelerator(msgspec.Struct, frozen=True):
    """Which accelerator a run used, and why that one.

    ``patient`` is emulation whose clock goes by what the processor has done: half as fast, but on a host that
    is too busy no limit of the package's own strikes early (libxl gives a script 40 s).
    """

    kind: Kind
    reason: str
    patient: bool = False

    def with_patience(self) -> Accelerator:
        """Return the one to use on a host that gives the machine too little time."""
        return msgspec.structs.replace(self, patient=self.kind is Kind.TCG)

    @property
    def qemu_option(self) -> str:
        """The value of QEMU's -accel; never a list, so that QEMU cannot fall back by itself."""
        if self.kind is Kind.KVM:
            return "kvm"
        return "tcg,thread=single" if self.patient else "tcg,thread=multi"

    @property
    def qemu_clock(self) -> tuple[str, ...]:
        """QEMU's options for the machine's clock: two nanoseconds an instruction, or the host's."""
        return ("-icount", "shift=1,sleep=on") if self.patient else ()

    @property
    def qemu_cpu(self) -> str:
        """The value of QEMU's -cpu."""
        return "host" if self.kind is Kind.KVM else _EMULATED


def choose(
    xen: bytes,
    *,
    cpuinfo: Path = Path("/proc/cpuinfo"),
    device: Path = Path("/dev/kvm"),
    boots: Callable[[bytes], bool] | None = None,
) -> Accelerator:
    """Choose the accelerator; ``xen`` is an unpacked multiboot Xen for the probe boot.

    The other arguments are where the facts come from, for tests.
    """
    flags = re.search(r"^flags\s*:.*\b(vmx|svm)\b", cpuinfo.read_text(errors="replace"), re.MULTILINE)
    if flags is None:
        return Accelerator(Kind.TCG, "The CPU has neither vmx nor svm.")
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Accelerator(Kind.TCG, f"The CPU has {flags[1]}, but there is no {device}.")
    except PermissionError:
        return Accelerator(Kind.TCG, f"The CPU has {flags[1]}, but {device} may not be opened.")
    except OSError as e:
        return Accelerator(Kind.TCG, f"The CPU has {flags[1]}, but {device} does not open: {e.strerror}.")
    if not (boots or kvm_boots)(xen):
        return Accelerator(
            Kind.TCG,
            f"{device} opens, but a probe boot with it printed nothing of Xen in {PROBE_SECONDS:g} s.",
        )
    return Accelerator(
        Kind.KVM, f"The CPU has {flags[1]}, and a probe boot with {device} printed Xen's lines."
    )


def kvm_boots(xen: bytes, seconds: float = PROBE_SECONDS) -> bool:
    """Boot a Xen without any dom0 under KVM; whether it printed ``(XEN)`` in time.

    Raises ToolMissingError.
    """
    if shutil.which("qemu-system-x86_64") is None:
        raise ToolMissingError("qemu-system-x86_64 is not installed.", hint="./inv setup installs it.")
    with tempfile.TemporaryDirectory(prefix="kvm-probe-") as folder:
        (Path(folder) / "xen").write_bytes(xen)
        # Not run.run: what is looked for comes early, and a hung QEMU must be killed, not waited for.
        process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *("qemu-system-x86_64", "-nodefaults", "-no-reboot", "-accel", "kvm", "-cpu", "host"),
                *("-m", "256", "-display", "none", "-vga", "none", "-net", "none", "-serial", "stdio"),
                *("-kernel", "xen", "-append", "console=com1 com1=115200,8n1"),
            ],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert process.stdout is not None
        watchdog = threading.Timer(seconds, os.killpg, (process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            return any(b"(XEN)" in line for line in process.stdout)
        finally:
            watchdog.cancel()
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
