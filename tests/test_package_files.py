"""The files that the package installs besides upstream's: the boot menu, the units, the settings.

09_xen runs for real, with GRUB's own library of shell functions, and GRUB's own checker reads
what it prints. Only grub-probe has a stand-in in most tests, because it reads block devices,
for which a test needs root; one test uses the real one on a loop device where that is possible.
"""

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipeline import recipe as recipes
from pipeline import release as releases

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "package"
UUID = "346de8aa-6150-4d7b-a8c2-1c43f5929f99"
SCRIPTS = ("09_xen", "xenstored-start", "xenstored-ready")
UNITS = sorted(p.name for p in PACKAGE.glob("*.service")) + sorted(p.name for p in PACKAGE.glob("*.mount"))

needs_grub = pytest.mark.skipif(
    not shutil.which("grub-script-check") or not Path("/usr/share/grub/grub-mkconfig_lib").exists(),
    reason="GRUB's scripts are not installed (Debian: grub-common)",
)
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed"
)

# A host with ext4 on an ordinary partition, or on LVM.
PROBE = """#!/bin/sh
for word in "$@"; do
    case $word in
    --target=partmap) echo gpt ;;
    --target=fs) echo ext2 ;;
    --target=fs_uuid) echo {uuid} ;;
    --target=abstraction) echo {abstraction} ;;
    --target=compatibility_hint) echo 'hd0,gpt2' ;;
    esac
done
"""


@dataclass(frozen=True)
class Entry:
    """One menu entry: its title, and its commands as lists of words."""

    title: str
    commands: list[list[str]] = field(default_factory=list)

    def of(self, name: str) -> list[list[str]]:
        """The arguments of every command of that name."""
        return [words[1:] for words in self.commands if words[0] == name]


def parse(menu: str) -> list[Entry]:
    """Reads the entries out of what 09_xen printed."""
    entries: list[Entry] = []
    for line in menu.splitlines():
        if opening := re.match(r"menuentry '((?:[^']|'\\'')*)' ", line):
            entries.append(Entry(opening[1].replace("'\\''", "'")))
        elif line.startswith("    ") and entries and line.strip():
            entries[-1].commands.append(line.split())
    return entries


@dataclass
class Host:
    """A machine for which 09_xen makes a menu: a /boot folder, and what grub-mkconfig found out."""

    path: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def boot(self) -> Path:
        return self.path / "boot"

    def add(self, *names: str) -> None:
        for name in names:
            (self.boot / name).write_bytes(b"")

    def generate(self, shell: Sequence[str] = ("sh",)) -> subprocess.CompletedProcess[str]:
        """Runs 09_xen as grub-mkconfig does; its output passed GRUB's own check."""
        environment = {
            "PATH": os.environ["PATH"],
            "GRUB_DEVICE": "/dev/sda2",
            "GRUB_DEVICE_BOOT": "/dev/sda2",
            "GRUB_DEVICE_UUID": UUID,
            "GRUB_FS": "ext4",
            "GRUB_DISTRIBUTOR": "Arch",
            "XEN_GRUB_BOOT": str(self.boot),
            "XEN_GRUB_CONF": str(self.path / "grub.conf"),
            "XEN_GRUB_BY_UUID": str(self.path / "by-uuid"),
            "grub_probe": str(self.path / "grub-probe"),
            **self.variables,
        }
        done = subprocess.run(
            [*shell, str(PACKAGE / "09_xen")], env=environment, capture_output=True, text=True, check=False
        )
        if not done.stdout:
            return done
        check = subprocess.run(
            ["grub-script-check"], input=done.stdout, capture_output=True, text=True, check=False
        )
        assert check.returncode == 0, check.stderr + done.stdout
        return done

    def entries(self) -> list[Entry]:
        done = self.generate()
        assert done.returncode == 0, done.stderr
        return parse(done.stdout)


def probe(abstraction: str = "") -> str:
    return PROBE.format(uuid=UUID, abstraction=abstraction)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    made.boot.mkdir()
    made.add("xen.gz")
    shutil.copy(PACKAGE / "grub.conf", tmp_path)
    (tmp_path / "grub-probe").write_text(probe())
    (tmp_path / "grub-probe").chmod(0o755)
    return made


def names(entry: Entry) -> list[str]:
    """The file names of an entry's modules, in order."""
    return [Path(next(w for w in words if w.startswith("/"))).name for words in entry.of("module2")]


@needs_grub
class TestMenu:
    def test_every_kernel(self, host: Host) -> None:
        """Without it, only vmlinuz-linux can be booted with Xen, as with the AUR's old 09_xen."""
        host.add("vmlinuz-linux", "vmlinuz-linux-lts", "vmlinuz-linux-zen", "vmlinuz-mine")
        host.add("vmlinuz-6.1.0-51-amd64", "vmlinuz-6.10.0-1-amd64")
        host.add("vmlinuz-linux.pacnew.sig", "README")
        titles = [entry.title for entry in host.entries()]
        assert titles == [
            f"Arch Linux, with Xen and Linux {name}"
            for name in ("linux", "linux-lts", "linux-zen", "mine", "6.10.0-1-amd64", "6.1.0-51-amd64")
        ]

    def test_commands(self, host: Host) -> None:
        """A wrong order of modules leaves dom0 without its initramfs, or Xen without microcode."""
        host.add("vmlinuz-linux", "initramfs-linux.img", "intel-ucode.img", "amd-ucode.img")
        (entry,) = host.entries()
        (hypervisor,) = entry.of("multiboot2")
        assert Path(hypervisor[0]).name == "xen.gz"
        assert hypervisor[1:] == ["placeholder", "ucode=scan", "dom0_mem=2048M,max:2048M", "${xen_platform}"]
        assert names(entry) == ["vmlinuz-linux", "initramfs-linux.img", "intel-ucode.img", "amd-ucode.img"]
        assert [words[0] for words in entry.of("module2")[1:]] == ["--nounzip"] * 3
        assert ["gzio"] in entry.of("insmod")
        assert ["part_gpt"] in entry.of("insmod")
        assert ["--no-floppy", "--fs-uuid", "--set=root", UUID] in entry.of("search")

    def test_initramfs_of_debian_and_others(self, host: Host) -> None:
        """Kernels that carry their version in their name would panic for want of an initramfs."""
        host.add("vmlinuz-6.1.0-51-amd64", "initrd.img-6.1.0-51-amd64", "vmlinuz-other", "initrd-other.img")
        assert [names(entry) for entry in host.entries()] == [
            ["vmlinuz-other", "initrd-other.img"],
            ["vmlinuz-6.1.0-51-amd64", "initrd.img-6.1.0-51-amd64"],
        ]

    def test_fallback_is_never_the_main_one(self, host: Host) -> None:
        """The fallback image is large and slow; it belongs behind the ordinary entries."""
        host.add("vmlinuz-linux", "initramfs-linux.img", "initramfs-linux-fallback.img")
        main, fallback = host.entries()
        assert names(main) == ["vmlinuz-linux", "initramfs-linux.img"]
        assert names(fallback) == ["vmlinuz-linux", "initramfs-linux-fallback.img"]
        assert fallback.title.endswith("(fallback initramfs)")

    def test_no_initramfs(self, host: Host) -> None:
        """A kernel with all its drivers built in needs no initramfs, and must not get another's."""
        host.add("vmlinuz-linux", "initramfs-linux-lts.img")
        (entry,) = host.entries()
        assert names(entry) == ["vmlinuz-linux"]

    def test_root_is_mounted_read_write(self, host: Host) -> None:
        """With `ro`, dom0 comes up with a root file system that nothing makes writable."""
        host.add("vmlinuz-linux")
        (entry,) = host.entries()
        kernel = entry.of("module2")[0]
        assert kernel[1] == "placeholder"
        assert "rw" in kernel
        assert "ro" not in kernel

    def test_command_lines(self, host: Host) -> None:
        """Options that a user sets in /etc/xen/grub.conf and /etc/default/grub must arrive."""
        host.add("vmlinuz-linux")
        (host.path / "grub.conf").write_text(
            'XEN_CMDLINE="com1=115200,8n1 console=com1 ucode=-1"\nDOM0_CMDLINE="console=hvc0"\n'
        )
        host.variables |= {
            "GRUB_CMDLINE_LINUX": "cryptdevice=/dev/sda3:x",
            "GRUB_CMDLINE_LINUX_DEFAULT": "loglevel=3 quiet",
            "GRUB_CMDLINE_XEN": "iommu=1",
        }
        (entry,) = host.entries()
        assert entry.of("multiboot2")[0][1:] == [
            "placeholder", "com1=115200,8n1", "console=com1", "ucode=-1", "iommu=1", "${xen_platform}",
        ]  # fmt: skip
        assert entry.of("module2")[0][3:] == [
            "rw", "cryptdevice=/dev/sda3:x", "loglevel=3", "quiet", "console=hvc0",
        ]  # fmt: skip

    def test_no_microcode_when_not_wanted(self, host: Host) -> None:
        """A user whose machine hangs with new microcode must be able to turn it off."""
        host.add("vmlinuz-linux", "amd-ucode.img")
        (host.path / "grub.conf").write_text("XEN_UCODE=\n")
        (entry,) = host.entries()
        assert names(entry) == ["vmlinuz-linux"]
        assert not [word for word in entry.of("multiboot2")[0] if word.startswith("ucode")]

    def test_root_on_lvm(self, host: Host) -> None:
        """The wiki's own example has its root on LVM, where the device is named, not its UUID."""
        (host.path / "grub-probe").write_text(probe("lvm"))
        host.variables |= {"GRUB_DEVICE": "/dev/mapper/vg0-arch", "GRUB_DEVICE_BOOT": "/dev/mapper/vg0-arch"}
        host.add("vmlinuz-linux")
        (entry,) = host.entries()
        assert "root=/dev/mapper/vg0-arch" in entry.of("module2")[0]
        assert ["lvm"] in entry.of("insmod")

    def test_root_by_uuid(self, host: Host) -> None:
        """Disks change their names from one start to the next; the UUID stays."""
        host.add("vmlinuz-linux")
        (host.path / "by-uuid").mkdir()
        (entry,) = host.entries()
        assert "root=/dev/sda2" in entry.of("module2")[0]
        (host.path / "by-uuid" / UUID).touch()
        (entry,) = host.entries()
        assert f"root=UUID={UUID}" in entry.of("module2")[0]

    def test_kernel_without_dom0_support(self, host: Host) -> None:
        """An entry that can only panic is worse than none."""
        host.add("vmlinuz-6.1-cloud", "vmlinuz-6.1-full")
        (host.boot / "config-6.1-cloud").write_text("# CONFIG_XEN_DOM0 is not set\n")
        (host.boot / "config-6.1-full").write_text("CONFIG_XEN_DOM0=y\n")
        done = host.generate()
        assert [names(entry) for entry in parse(done.stdout)] == [["vmlinuz-6.1-full"]]
        assert "vmlinuz-6.1-cloud is left out" in done.stderr

    def test_quote_in_the_distributor(self, host: Host) -> None:
        """A quotation mark in /etc/default/grub must not make the whole grub.cfg unreadable."""
        host.variables["GRUB_DISTRIBUTOR"] = "Bob's"
        host.add("vmlinuz-linux", "initramfs-linux-fallback.img")
        assert host.entries()[0].title == "Bob's Linux, with Xen and Linux linux"

    def test_other_shell(self, host: Host) -> None:
        """Arch's sh is bash, others' is dash or busybox: the menu must be the same."""
        host.add("vmlinuz-linux", "vmlinuz-6.1", "initramfs-linux.img")
        outputs = {host.generate([shell]).stdout for shell in ("sh", "bash", "dash") if shutil.which(shell)}
        assert len(outputs) == 1

    @pytest.mark.skipif(os.geteuid() != 0, reason="a loop device needs root")
    def test_real_probe(self, host: Host) -> None:
        """The stand-in for grub-probe may lie: here the real one reads a real file system."""
        image = host.path / "disk"
        with image.open("wb") as file:
            file.truncate(32 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-U", UUID, image], check=True)
        loop = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=False)
        if loop.returncode != 0:
            pytest.skip(f"no loop device: {loop.stderr.strip()}")
        device = loop.stdout.strip()
        # GRUB's library looks behind a device with a loop device's name, at the disk of its file.
        link = host.path / "sda1"
        link.symlink_to(device)
        try:
            host.variables |= {"GRUB_DEVICE": str(link), "GRUB_DEVICE_BOOT": str(link), "grub_probe": ""}
            host.add("vmlinuz-linux")
            (entry,) = host.entries()
        finally:
            subprocess.run(["losetup", "-d", device], check=True)
        assert ["ext2"] in entry.of("insmod")
        assert UUID in entry.of("search")[0]


@needs_grub
class TestNoMenu:
    """A failing generator stops grub-mkconfig: then not even the entries without Xen are made."""

    def test_no_kernel(self, host: Host) -> None:
        """Says why there is no entry, and lets grub-mkconfig go on."""
        done = host.generate()
        assert (done.returncode, done.stdout) == (0, "")
        assert "no kernel that could be dom0" in done.stderr

    def test_no_hypervisor(self, host: Host) -> None:
        """Says that /boot is not mounted, or Xen removed, instead of making an entry that fails."""
        (host.boot / "xen.gz").unlink()
        host.add("vmlinuz-linux")
        done = host.generate()
        assert (done.returncode, done.stdout) == (0, "")
        assert "xen.gz is missing" in done.stderr

    def test_no_settings(self, host: Host) -> None:
        """A lost grub.conf costs the options, not the entry."""
        (host.path / "grub.conf").unlink()
        host.add("vmlinuz-linux")
        done = host.generate()
        assert len(parse(done.stdout)) == 1
        assert "grub.conf is missing" in done.stderr


class TestXenstored:
    """xenstored-start: which daemon runs, and how."""

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        for name in ("oxenstored", "xenstored"):
            (tmp_path / name).write_text('#!/bin/sh\necho "${0##*/} $*"\n')
            (tmp_path / name).chmod(0o755)
        return tmp_path

    def start(self, place: Path, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "XEN_BIN_DIR": str(place),
            "XEN_RUN_DIR": str(place / "run"),
        }
        return subprocess.run(
            ["sh", str(PACKAGE / "xenstored-start")],
            env=environment | settings, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_oxenstored_is_preferred(self, place: Path) -> None:
        """The wiki promises oxenstored; the old unit started the other one."""
        assert self.start(place).stdout == "oxenstored --no-fork\n"

    def test_c_daemon_where_there_is_no_other(self, place: Path) -> None:
        """A package built without OCaml must still start."""
        (place / "oxenstored").unlink()
        assert self.start(place).stdout == f"xenstored --no-fork --pid-file {place}/run/xenstored.pid\n"

    def test_choice_and_arguments(self, place: Path) -> None:
        """What the user wrote into /etc/conf.d/xenstored is what runs."""
        done = self.start(place, XENSTORED=str(place / "xenstored"), XENSTORED_ARGS="-T /x -V")
        assert done.stdout.endswith("xenstored.pid -T /x -V\n")

    def test_no_daemon(self, place: Path) -> None:
        """A wrong path is an error with a name, not a service that hangs."""
        done = self.start(place, XENSTORED="/nonexistent/xenstored")
        assert done.returncode == 1
        assert "there is no program /nonexistent/xenstored" in done.stderr

    def test_dom0_gets_its_name(self, tmp_path: Path) -> None:
        """Without its name, `xl list` shows dom0 as (null), and libvirt does not start."""
        script = '#!/bin/sh\necho "${0##*/} $*"\n'
        (tmp_path / "xenstore-write").write_text(script)
        (tmp_path / "xenstore-write").chmod(0o755)
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "XEN_LIB_DIR": str(tmp_path / "xen")}

        def ready(**settings: str) -> str:
            return subprocess.run(
                ["sh", str(PACKAGE / "xenstored-ready")],
                env=environment | settings, capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip

        assert ready() == "xenstore-write /local/domain/0/name Domain-0 /local/domain/0/domid 0\n"
        program = tmp_path / "xen/bin/xen-init-dom0"
        program.parent.mkdir(parents=True)
        program.write_text(script)
        program.chmod(0o755)
        assert ready() == "xen-init-dom0 \n"
        assert ready(XEN_DOM0_UUID=UUID) == f"xen-init-dom0 {UUID}\n"


@needs_systemd
class TestUnits:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """A root folder that holds the units, and every program that they name."""
        units = tmp_path / "usr/lib/systemd/system"
        units.mkdir(parents=True)
        for name in UNITS:
            shutil.copy(PACKAGE / name, units)
            for program in re.findall(r"^Exec\w+=(/\S+)", (PACKAGE / name).read_text(), re.MULTILINE):
                path = tmp_path / program.lstrip("/")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(0o755)
        for target in ("multi-user", "network-online", "remote-fs", "sysinit", "basic", "shutdown", "umount"):
            (units / f"{target}.target").write_text("[Unit]\nDescription=For the test\n")
        (units / "local-fs.target").write_text("[Unit]\nDescription=For the test\n")
        (units / "system.slice").write_text("[Unit]\nDescription=For the test\n")
        return tmp_path

    def verify(self, root: Path) -> str:
        """What systemd has to say about the units; empty if it is content."""
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", f"--root={root}", *UNITS],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        # A template is looked at as an instance of it.
        names = {unit.partition("@")[0] for unit in UNITS}
        lines = [line for line in done.stderr.splitlines() if any(name in line for name in names)]
        return "\n".join(lines)

    def test_verify(self, root: Path) -> None:
        """A unit that systemd does not understand is a host without its guests after a restart."""
        assert self.verify(root) == ""

    def test_verify_finds_faults(self, root: Path) -> None:
        """The check itself must be able to fail."""
        for name in ("xenstored.service", "xendomU@.service"):
            unit = root / "usr/lib/systemd/system" / name
            before = unit.read_text()
            unit.write_text(before.replace("ExecStart=", "ExecStrat="))
            assert "ExecStrat" in self.verify(root)
            unit.write_text(before)


class TestText:
    @pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
    @pytest.mark.parametrize("name", SCRIPTS)
    def test_shellcheck(self, name: str) -> None:
        """These run as root at every start of a user's host."""
        subprocess.run(["shellcheck", PACKAGE / name], check=True)

    @pytest.mark.parametrize("name", SCRIPTS)
    def test_executable(self, name: str) -> None:
        """grub-mkconfig passes over a generator that is not executable, without a word."""
        assert (PACKAGE / name).stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.conf")), ids=lambda path: path.name)
    def test_settings_are_shell_and_systemd(self, path: Path) -> None:
        """One typing error in a file shipped with the package, and a service does not start."""
        subprocess.run(["sh", "-eu", path], check=True)
        for line in path.read_text().splitlines():
            assert re.fullmatch(r"(#.*|[A-Z0-9_]+=.*|)", line), line

    def test_settings_of_units_exist(self) -> None:
        """A unit that reads another file than the one the user edits ignores every setting."""
        for name in UNITS:
            for used in re.findall(r"EnvironmentFile=-/etc/conf.d/(\S+)", (PACKAGE / name).read_text()):
                assert (PACKAGE / f"{used}.conf").is_file()

    def test_messages_name_what_exists(self) -> None:
        """The steps that pacman shows are typed in as they stand."""
        install = PACKAGE / "xen.install"
        for function in ("post_install", "post_upgrade"):
            shown = subprocess.run(
                ["sh", "-e", "-c", f". {install}; {function}"], capture_output=True, text=True, check=True
            ).stdout
            assert "host" in shown
        text = install.read_text()
        units = re.findall(r"\S+\.service", text)
        assert len(units) >= 3
        assert set(units) <= set(UNITS)
        recipe = rendered()
        for path in re.findall(r"(?<=\s)/(?:boot/xen|usr/|etc/xen/)\S+[a-z]", text):
            assert path[1:] in recipe, path

    def test_every_file_is_installed(self) -> None:
        """A support file that the recipe forgets is one that users do not get."""
        # What installs them, not the list of sources, in which all stand.
        recipe = rendered().partition("package_xen()")[2]
        for path in PACKAGE.iterdir():
            assert path.is_dir() or path.name in recipe, path.name


def rendered() -> str:
    """The recipe of the release that needs no mirror of its own."""
    return recipes.render(releases.read("4.17"), "http://mirror.example/debian").pkgbuild


class TestRecipe:
    def run(self, folder: Path, commands: str) -> subprocess.CompletedProcess[str]:
        """Runs shell commands with the recipe's functions, failing as makepkg makes them fail."""
        return subprocess.run(
            ["bash", "-e", "-c", f"{rendered()}\ncd {folder}\n{commands}"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def test_stale_adaptation(self, tmp_path: Path) -> None:
        """An adaptation that no longer fits the source must stop the build, not vanish from it."""
        (tmp_path / "file").write_text("old\n")
        assert self.run(tmp_path, "_edit file s/old/new/").returncode == 0
        assert (tmp_path / "file").read_text() == "new\n"
        done = self.run(tmp_path, "_edit file s/old/new/\necho reached")
        assert done.returncode != 0
        assert "no longer changes anything" in done.stderr
        assert "reached" not in done.stdout

    def test_part_left_out_by_configure(self, tmp_path: Path) -> None:
        """A missing library would silently cost a feature: here, kernels packed with zstd."""
        (tmp_path / "config").mkdir()
        (tmp_path / "config/Tools.mk").write_text("OCAML_TOOLS         := y\nCONFIG_SYSTEMD := y\n")
        (tmp_path / "config/Docs.mk").write_text("")
        done = self.run(tmp_path, "_assert_configured\necho reached")
        assert done.returncode != 0
        assert "XENSTAT_XENTOP" in done.stderr
        assert "reached" not in done.stdout

    def test_part_left_out_by_make(self, tmp_path: Path) -> None:
        """xen.efi is not made by an old linker, and nothing says so: users on UEFI cannot start."""
        done = self.run(tmp_path, f"srcdir={tmp_path}\nmkdir staging\n_assert_staged\necho reached")
        assert done.returncode != 0
        assert "did not make xen/boot/xen.gz" in done.stderr
        assert "reached" not in done.stdout

    @pytest.fixture
    def staged(self, tmp_path: Path) -> Path:
        """A staging folder with a file for each one that the recipe asks for."""
        recipe = rendered()
        for name in re.findall(r"^\t(xen(?:-docs)?/\S+)$", recipe, re.MULTILINE):
            path = tmp_path / "staging" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("content\n")
        (tmp_path / "staging/xen/boot/xen.gz").write_bytes(gzip.compress(b"hypervisor"))
        modules = tmp_path / "staging/xen/usr/lib/python3/site-packages"
        (modules / "grub").mkdir(parents=True)
        (modules / "grub/GrubConf.py").touch()
        (modules / "xenfsimage.cpython-311.so").touch()
        return tmp_path

    @pytest.mark.parametrize("options", ["+o pipefail", "-o pipefail"])
    def test_staging(self, staged: Path, options: str) -> None:
        """A folder name in a program tells users where its debug files are not, and builds differ."""

        def check() -> subprocess.CompletedProcess[str]:
            settings = f"set {options}\nsrcdir={staged}\npython_dir=/usr/lib/python3/site-packages"
            return self.run(staged, f"{settings}\n_assert_staged\necho reached")

        assert check().stdout == "reached\n", check().stderr
        image = staged / "staging/xen/boot/xen.gz"
        image.write_bytes(gzip.compress(os.fsencode(staged) + os.urandom(1 << 20)))
        done = check()
        assert done.returncode != 0
        assert "boot/xen.gz" in done.stderr
        image.write_bytes(gzip.compress(b"hypervisor"))
        program = staged / "staging/xen/usr/bin/xl"
        program.write_bytes(b"\0" + os.fsencode(staged))
        assert "staging/xen/usr/bin/xl" in check().stderr
        program.write_text("content")
        for name in ("usr/local/x", "lib64/x", "etc/init.d/x", "usr/lib/libx.a", "usr/sbin/x", "var/run/x"):
            path = staged / "staging/xen" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            done = check()
            assert done.returncode != 0
            assert name in done.stderr
            path.unlink()
            if not name.startswith("usr/lib/"):
                path.parent.rmdir()
        assert check().returncode == 0
        next(staged.rglob("xenfsimage*")).unlink()
        assert "pygrub's module xenfsimage*.so is not in" in check().stderr


class TestOldXen:
    """What the support files become for a Xen older than they were written for."""

    @pytest.fixture(params=["4.2", "4.17"])
    def installed(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
        """A release's name, and a package's folder with the support files in it."""
        series: str = request.param
        new = series != "4.2"
        header = bytes(64) + (0xE85250D6 if new else 0x1BADB002).to_bytes(4, "little")
        (tmp_path / "boot").mkdir()
        (tmp_path / "boot/xen.gz").write_bytes(gzip.compress(header))
        for name in ("usr/bin/xenstored", "usr/bin/oxenstored", "usr/lib/xen/bin/xen-init-dom0"):
            if new or name.startswith("usr/bin"):
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name).write_text("\0sd_notify\0" if new else "\0/var/lib/xenstored\0")
        if new:
            (tmp_path / "usr/lib/xen/bin/xendomains").touch()
        text = recipes.render(releases.read(series), "http://mirror.example/debian").pkgbuild
        script = f'source /dev/stdin\nsrcdir={PACKAGE}\ncd "$1"\n_install_support_files'
        subprocess.run(["bash", "-ec", script, "bash", tmp_path], input=text, text=True, check=True)
        return series, tmp_path

    def test_boot_menu_speaks_the_protocol_of_the_hypervisor(self, installed: tuple[str, Path]) -> None:
        """GRUB refuses to load a hypervisor by a protocol whose header it lacks."""
        series, root = installed
        script, conf = root / "etc/grub.d/09_xen", (root / "etc/xen/grub.conf").read_text()
        commands = set(re.findall(r"\b(multiboot2?|module2?) (?=[$-])", script.read_text()))
        assert commands == ({"multiboot", "module"} if series == "4.2" else {"multiboot2", "module2"})
        assert ("XEN_UCODE=scan" in script.read_text()) == ('XEN_UCODE="scan"' in conf) == (series != "4.2")
        for path in (script, root / "etc/xen/grub.conf"):
            subprocess.run(["sh", "-n", path], check=True)

    def test_units_wait_for_the_store_in_its_way(self, installed: tuple[str, Path]) -> None:
        """systemd would wait for a word that an old xenstored never says, and stop it after a minute."""
        series, root = installed
        units = root / "usr/lib/systemd/system"
        unit = (units / "xenstored.service").read_text()
        if series == "4.2":
            assert "\nType=forking\nPIDFile=/run/xen/xenstored.pid\n" in unit
            assert "\nEnvironment=XENSTORED_FORKS=yes\n" in unit
        else:
            assert "\nType=notify\n" in unit
        assert (units / "var-lib-xenstored.mount").exists() == (series == "4.2")
        assert (units / "xen-qemu-dom0-disk-backend.service").exists() == (series != "4.2")

    def test_guests_are_started_by_a_script_that_can(self, installed: tuple[str, Path]) -> None:
        """Upstream's own script is kept where there is one."""
        series, root = installed
        script = root / "usr/lib/xen/bin/xendomains"
        assert script.read_text() == ((PACKAGE / "xendomains").read_text() if series == "4.2" else "")
