"""Makes the corpus: one or two small inputs a target, of what the pipeline itself writes where it can.

python -m tests.fuzz.seeds
"""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import subprocess
import tempfile
from pathlib import Path

import msgspec

from pipeline import evidence, provenance, records
from pipeline.build import read as read_build
from pipeline.bundle import archive
from pipeline.bundle.manifest import Entry, Manifest, Requirements
from pipeline.evidence import Kind
from pipeline.image import lock
from tests import builds

CORPUS = Path(__file__).parent / "corpus"
_SUM = "0" * 64
_DESC = (
    b"%FILENAME%\nbash-5.2-1-x86_64.pkg.tar.zst\n\n%NAME%\nbash\n\n%VERSION%\n5.2-1\n\n%CSIZE%\n10\n\n"
    b"%SHA256SUM%\n" + b"0" * 64 + b"\n\n%PGPSIG%\niQE=\n\n"
)
_COMMIT = (
    b"tree "
    + b"0" * 40
    + b"\nauthor A <a@b> 1600000000 +0000\ncommitter A <a@b> 1600000000 +0000\n\nmessage\n"
)
_TAG = b"object " + b"0" * 40 + b"\ntype commit\ntag v1\ntagger A <a@b> 1600000000 +0000\n\nmessage\n"


def _texts() -> dict[str, bytes]:
    debian = lock.read_lock("debian-bookworm")
    assert isinstance(debian, lock.DebianLock)
    return {
        "key-values": b"# made\npkgname = small\npkgver = 1.0-1\ndepend = bash\ndepend = glibc\n",
        "mtree": b"#mtree\n/set type=file uid=0\n./a\\040b time=1.0 size=3\n./c type=link link=a\n",
        "debian-lock": lock.render_lock(
            msgspec.structs.replace(debian, packages=debian.packages[:2])
        ).encode(),
        "arch-lock": lock.render_lock(_arch_lock()).encode(),
        "arch-entry": _DESC,
        "release": b'version = "1"\n'
        b'xen_version = "1.0"\nsource_date_epoch = 1\nimage = "x"\n[tokens]\nA = [""]\n',
        "agent": b"done 7 0 0 aGVsbG8=\r\n",
        "serial": b" Xen 4.17.5\r\n"
        b"(XEN) Xen version 4.17.5 (x)\n(XEN) Panic on CPU 0:\n\xff\x1b[0m[ 0.0] Linux\n",
        "qmp": b'{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 1, "microseconds": 2}}',
        "branch-lock": b'{"release":"unstable","branch":"staging","commit":"'
        + b"0" * 40
        + b'","count":1,"version":"4.23.r1.g0","xen_version":"4.23-unstable","source_date_epoch":1}',
        "gpg-status": b"[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG 0123456789ABCDEF A <a@b>\n[GNUPG:] VALIDSIG "
        + b"0" * 40
        + b" 2026-01-01 1767225600 0 4 0 22 8 00 "
        + b"0" * 40
        + b"\n",
        "git-commit": _COMMIT,
        "git-tree": b"100644 a\0" + bytes(20) + b"40000 b\0" + bytes(range(20)),
        "tag": _TAG,
        "bzimage": _bzimage(),
        "apt": b"http://deb.example/debian\tDebian\tDebian\nfile:/srv\t$(ORIGIN)\t\n",
        "retry-after": b"Wed, 21 Oct 2026 07:28:00 GMT",
        "guard": b"a line\n\x1exen-aur-pipeline\tnetwork\tcurl\tcurl x\t192.0.2.1 port 80\n",
        "seal": b"0" * 64 + b"  small-1.0-1-any.pkg.tar.xz\n",
        "srcinfo": b"pkgbase = xen\n\tpkgver = 1\n\tsource = a::https://x/y\n\npkgname = xen\n",
        "probe": b"machine x86_64\nuid 0\ntool pacman\nfree 100\nsize a.pkg.tar.xz 3\n",
        "xtf-info": b'{"name":"x","category":"xsa","environments":["pv64"],"variations":["hap"]}',
        "xtf-console": b"xen_caps : xen-3.0-x86_64 \nvirt_caps : pv hvm\nTest result: SUCCESS\r\n",
        "guest-config": b"# a guest\nname = 'web'; memory=0x200\nvif += ['a',]\nx = [['a'], [\n1]]\n",
        "guest-disk": b"format=qcow2, vdev=xvda, access=rw, target=/srv/web.qcow2",
        "timeline": b"[     1.000] (XEN) hello\n[     2.000] more\n",
    }


def _bzimage() -> bytes:
    payload = gzip.compress(b"\x7fELF\x02\x01 and so on", mtime=0)
    image = bytearray(0x400)
    image[0x1F1] = 1
    image[0x1FE:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", image, 0x206, 0x20C)
    struct.pack_into("<II", image, 0x248, 0, len(payload))
    return bytes(image) + payload


def _arch_lock() -> lock.ArchLock:
    package = lock.LockedPackage(
        repository="core", name="bash", version="5.2-1", file="bash-5.2-1-x86_64.pkg.tar.zst", size=1,
        sha256=_SUM, signature="good",
    )  # fmt: skip
    database = lock.LockedDatabase(repository="core", url="https://x.example/core.db", size=1, sha256=_SUM)
    return lock.ArchLock(
        definition_sha256=_SUM, source_date_epoch=1, rootfs_sha256=_SUM, tree_sha256=_SUM,
        image_id=f"sha256:{_SUM}", snapshot="2013-11-01", databases=(database,),
        urls=("https://x.example/{file}",), packages=(package,),
    )  # fmt: skip


def _compiled(folder: Path) -> None:
    """A shared library and a kernel module, as small as compilers make them."""
    (folder / "library.c").write_text('int puts(const char *);\nint one(void) { return puts("one"); }\n')
    (folder / "module.c").write_text(
        'const char info[] __attribute__((section(".modinfo"), used)) = "depends=a,b\\0license=GPL";\n'
    )
    small = ["cc", "-Os", "-fno-asynchronous-unwind-tables"]
    link = (
        "-Wl,-soname,libone.so,-rpath,/opt/lib:/usr/lib,--no-as-needed,-lc,-z,noseparate-code,--build-id=none"
    )
    subprocess.run(
        [*small, "-shared", "-nostartfiles", "-s", link, "library.c", "-o", "library"], cwd=folder, check=True
    )
    subprocess.run([*small, "-c", "module.c", "-o", "module"], cwd=folder, check=True)
    for target in ("elf", "glibc"):
        _write(target, "first", (folder / "library").read_bytes())
    _write("modules", "first", (folder / "module").read_bytes())


def _signed(folder: Path) -> None:
    """A signature of nothing, by a key that is thrown away."""
    gpg = ["gpg", "--homedir", str(folder), "--batch", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-gen-key", "Nobody <n@example.org>", "ed25519"], check=True)
    listed = subprocess.run(
        [*gpg, "--list-keys", "--with-colons"], capture_output=True, text=True, check=True
    )
    fingerprint = next(line.split(":")[9] for line in listed.stdout.splitlines() if line.startswith("fpr"))
    signed = subprocess.run([*gpg, "--detach-sign"], input=b"", capture_output=True, check=True)
    _write("signature", "first", fingerprint.encode() + signed.stdout)


def main() -> None:
    """Write every seed."""
    for name, data in _texts().items():
        _write(name, "first", data)
    _write("package", "first", builds.package("small"))
    _write("layer", "first", builds.package("small"))
    with tempfile.TemporaryDirectory() as name:
        _compiled(Path(name))
        _signed(Path(name))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "build"
        builds.make(folder)
        build = read_build(folder)
        _write("build-record", "first", (build.folder / "build.json").read_bytes())
        _write("evidence", "first", evidence.path(build.folder, Kind.CHECK).read_bytes())
        _write("provenance", "first", (build.folder / provenance.FILE).read_bytes())
    _bundles()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "bash-5.2-1"
        folder.mkdir()
        (folder / "desc").write_bytes(_DESC)
        made = subprocess.run(["tar", "-cz", folder.name], cwd=name, capture_output=True, check=True)
        _write("arch-database", "first", made.stdout)


def _bundles() -> None:
    """A bundle of two small files, by the code that writes them."""
    contents = {"build/build.json": b"{}\n", "build/a.pkg.tar.xz": b"hello\n"}
    entries = tuple(
        Entry(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in contents.items()
    )
    manifest = records.encode(
        Manifest(
            format=1,
            release="small",
            build_id="0" * 16,
            architecture="x86_64",
            unproven=True,
            requires=Requirements(glibc="2.36", pacman="6.0"),
            packages=("a.pkg.tar.xz",),
            entries=entries,
        )
    )
    out = io.BytesIO()
    archive.write_member(out, archive.MANIFEST, manifest)
    for path, data in contents.items():
        archive.write_member(out, path, data)
    out.write(bytes(1024))
    _write("bundle", "first", out.getvalue())
    _write("manifest", "first", manifest)


def _write(target: str, name: str, data: bytes) -> None:
    path = CORPUS / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


if __name__ == "__main__":
    main()
