"""One exception per class of failure of a smoke run; the class decides what happens next.

Faults of the thing under test end the run as failed. Faults of the test bed are tried once more, from
a cold start, before they count.
"""

from __future__ import annotations

from pipeline.errors import FailureError, HostError


class InPackageError(FailureError):
    """Something of the package is at fault; ``file`` is its file that this points to, where one is known."""

    file: str | None = None

    def __init__(self, message: str, hint: str | None = None, file: str | None = None) -> None:
        super().__init__(message, hint)
        self.file = file or type(self).file


class XenPanicError(InPackageError):
    """Xen itself panicked, or hit a trap or BUG that it does not survive."""

    file = "boot/xen.gz"


class Dom0PanicError(FailureError):
    """The kernel of dom0 panicked or oopsed, or Xen crashed dom0 because of what it did."""


class MachineResetError(FailureError):
    """The machine reset or switched itself off, and nothing on the serial line says why."""


class HangError(InPackageError):
    """Something did not happen within its limit while machine and agent were still there."""


class WrongBannerError(InPackageError):
    """The Xen that booted is not the version that was built."""

    file = "boot/xen.gz"


class PackageContentError(InPackageError):
    """No bootable dom0 can be assembled from the package: a file or a library is missing or damaged."""


class InfrastructureError(HostError):
    """The test bed failed; says nothing about the packages. Base of its more exact kinds."""


class NoBannerError(InfrastructureError):
    """Not one line of Xen came over the serial line."""


class AgentLostError(InfrastructureError):
    """The agent in dom0 no longer answers, although the machine runs."""


class QemuDiedError(InfrastructureError):
    """QEMU could not be started, or ended by itself without the machine having asked for it."""


class DebError(HostError):
    """A Debian package of the test bed is not what it should be."""


class KernelImageError(DebError):
    """The kernel package or the boot image in it is not what it should be."""


class CheckFailedError(InPackageError):
    """Dom0 runs, but one thing in it is not as it should be; other cases can still be made."""


class UnitFailedError(CheckFailedError):
    """A unit of systemd that the package brings cannot be enabled, or fails when it is started."""


class NoMenuEntryError(CheckFailedError):
    """GRUB's menu has no entry that starts Xen with dom0's kernel."""

    file = "etc/grub.d/09_xen"


class NotApplicableError(CheckFailedError):
    """Asked on the machine, a case turns out to be none for this package or host; no failure."""


class BrokenCaseError(CheckFailedError):
    """The case itself is at fault: a test that is not whole, or says so of itself."""
