"""What guests are made of: kernels, ramdisks, and the disk of an installed one."""

from __future__ import annotations

import gzip

from pipeline.smoke.cpio import CharDevice, Directory, File, Tree, write_newc
from pipeline.smoke.goods import script
from pipeline.smoke.kernel import Kernel
from pipeline.smoke.loader import linux_cd
from pipeline.smoke.sector import boot_disk
from pipeline.smoke.tiny import tiny_guest

MODULES = ("crc16", "crc32c_generic", "mbcache", "jbd2", "ext4", "xen_blkfront", "xen_netfront")
"""Modules of a Linux guest, in an order to load them; those that the kernel has built in are left out."""
DISK_MARK = "smoke-disk"
"""What the installed guest's disk says about itself."""

# What the kernel calls when xl asks it to switch off or to start anew.
_END = "#!/bin/busybox sh\nexec /bin/busybox {} -f\n"
_DHCP = """#!/bin/busybox sh
[ "$1" = bound ] && /bin/busybox ip addr add "$ip/${mask:-24}" dev "$interface"
exit 0
"""

GRUB_CFG = """\
# As grub-mkconfig writes it.
set default="0"
set timeout=0
menuentry 'Arch Linux' --class arch --class gnu-linux --class os {
	set root='hd0,msdos1'
	echo	'Loading Linux linux ...'
	linux	/boot/vmlinuz-linux root=/dev/xvda1 rw console=hvc0 quiet panic=1 smoke=off
	echo	'Loading initial ramdisk ...'
	initrd	/boot/initramfs-linux.img
}
"""


def goods(kernel: Kernel, busybox: bytes) -> Tree:
    """Return what guests are started from, for the drive of the host."""
    return {
        "guest/vmlinux": File(kernel.vmlinux),
        "guest/initramfs": File(ramdisk(busybox, kernel)),
        "guest/tiny32": File(tiny_guest(32)),
        "guest/tiny64": File(tiny_guest(64)),
        "guest/hvm.img": File(boot_disk()),
    }


def hvm_linux(kernel: Kernel, busybox: bytes) -> Tree:
    """Return the CD of an HVM guest with Linux, for the drive too. Raises KernelImageError."""
    options = "console=ttyS0 quiet panic=1 edd=off smoke=off"
    return {"guest/hvm-linux.iso": File(linux_cd(kernel.image, ramdisk(busybox), options))}


def disk(kernel: Kernel, busybox: bytes) -> Tree:
    """Return what an installed guest has on its disk."""
    return {
        "boot/vmlinuz-linux": File(kernel.vmlinux),
        "boot/initramfs-linux.img": File(ramdisk(busybox, kernel)),
        "boot/grub/grub.cfg": File(GRUB_CFG.encode()),
        "sbin/init": script("guest-init.sh"),
        "bin/busybox": File(busybox, 0o755),
        "etc/hostname": File(f"{DISK_MARK}\n".encode()),
        **{folder: Directory() for folder in ("dev", "proc", "sys", "tmp", "run", "new")},
    }


def ramdisk(busybox: bytes, kernel: Kernel | None = None) -> bytes:
    """Return a ramdisk whose init says that it runs, with a kernel's modules for disk and network."""
    tree: Tree = {
        "init": script("guest-init.sh"),
        "udhcpc": File(_DHCP.encode(), 0o755),
        "bin/busybox": File(busybox, 0o755),
        "dev/console": CharDevice(5, 1),
        **{f"sbin/{name}": File(_END.format(name).encode(), 0o755) for name in ("poweroff", "reboot")},
    }
    if kernel is not None:
        modules = {name: kernel.modules[name] for name in MODULES if name in kernel.modules}
        tree |= {f"modules/{name}.ko": File(data) for name, data in modules.items()}
        tree["modules.order"] = File("".join(f"{name}\n" for name in modules).encode())
    return gzip.compress(write_newc(tree), 1, mtime=0)
