"""Findings on programs and libraries, each seen to fail on one that the image's compiler has made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.engine.bubblewrap import Bubblewrap
from pipeline.engine.job import Job
from pipeline.image.assembly import Image
from tests.check.planted import Draft, Entry, good
from tests.check.test_faults import findings

pytestmark = pytest.mark.integration

COMPILE = r"""
set -e
cd output
printf 'int main(void) { char s[64]; return __builtin_snprintf(s, 64, "%%p", (void *)s); }\n' > /tmp/m.c
printf 'int f(void) { return 0; }\n' > /tmp/f.c
printf '.globl _start\n_start: ret\n' > /tmp/s.s
printf '.text\n.globl f\nf: .quad puts\n.section .note.GNU-stack,"",@progbits\n' > /tmp/t.s
hard='-s -fstack-protector-all -Wl,-z,relro,-z,now'
gcc $hard -o good /tmp/m.c
gcc $hard -shared -fPIC -Wl,-soname,libown.so.9 -o library /tmp/f.c
gcc $hard -shared -fPIC -Wl,-soname,libelsewhere.so.7 -o libelsewhere.so /tmp/f.c
gcc $hard -Wl,-rpath,/opt/lib -o rpath /tmp/m.c
gcc $hard -Wl,-z,execstack -o execstack /tmp/m.c
gcc $hard -Wl,-z,norelro -o norelro /tmp/m.c
gcc -s -fstack-protector-all -Wl,-z,relro,-z,lazy -o lazy /tmp/m.c
gcc $hard -no-pie -o fixed /tmp/m.c
gcc ${hard#-s} -o symbols /tmp/m.c
gcc -s -fno-stack-protector -Wl,-z,relro,-z,now -o unguarded /tmp/m.c
gcc $hard -Wl,--no-as-needed -o zlib /tmp/m.c -lz
gcc $hard -Wl,--no-as-needed -o elsewhere /tmp/m.c ./libelsewhere.so
gcc $hard -shared -fPIC -nostdlib -Wl,-z,notext -o textrel /tmp/t.s
as --32 -o /tmp/s.o /tmp/s.s
ld -s -m elf_i386 -z noexecstack -o static32 /tmp/s.o
ld -s -m elf_i386 -z noexecstack -z relro -z now -pie -dynamic-linker /lib/ld-linux.so.2 -o dynamic32 /tmp/s.o
"""


@pytest.fixture(scope="module")
def programs(image: Image, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Entry]:
    """All of them, from one job."""
    work = tmp_path_factory.mktemp("programs")
    (work / "output").mkdir()
    job = Job(("/bin/bash", "-c", COMPILE))
    Bubblewrap(work).run(job, image, work / "output", lambda _: None)
    return {path.name: Entry(path.read_bytes(), 0o755) for path in (work / "output").iterdir()}


# How a program is planted: its name, its path, and what is said of it.
FAULTS = {
    "rpath": ("usr/bin/x", "error rpath usr/bin/x"),
    "execstack": ("usr/bin/x", "error executable-stack usr/bin/x"),
    "norelro": ("usr/bin/x", "warning relro usr/bin/x"),
    "lazy": ("usr/bin/x", "warning relro usr/bin/x"),
    "fixed": ("usr/bin/x", "warning pie usr/bin/x"),
    "symbols": ("usr/bin/x", "warning not-stripped usr/bin/x"),
    "zlib": ("usr/bin/x", "error depends usr/bin/x"),
    "elsewhere": ("usr/bin/x", "error unknown-need usr/bin/x"),
    "good": ("usr/share/small/x", "error elf-place usr/share/small/x"),
    "textrel": ("usr/lib/x.so", "error text-relocations usr/lib/x.so"),
    "library": ("usr/lib/libown.so.9.1", "error soname-link usr/lib/libown.so.9.1"),
    "static32": ("usr/bin/x", "warning elf-class usr/bin/x"),
    "dynamic32": ("usr/bin/x", "error elf-class usr/bin/x"),
    "unguarded": ("usr/bin/x", "warning stack-protector"),
    "libelsewhere.so": (
        "usr/lib/python3/dist-packages/x.cpython-311-x86_64-linux-gnu.so",
        "warning python-abi usr/lib/python3/dist-packages/x.cpython-311-x86_64-linux-gnu.so",
    ),
}


def draft(programs: dict[str, Entry], names: dict[str, str]) -> Draft:
    """A package for x86_64 of programs, path to name."""
    made = good(**{path: programs[name] for path, name in names.items()})
    made.info["arch"] = ["x86_64"]
    made.info["depend"] = ["bash", "glibc"]
    return made


@pytest.mark.parametrize("fault", FAULTS)
def test_one_fault_is_one_finding(fault: str, programs: dict[str, Entry], tmp_path: Path) -> None:
    """Each of these has come to users in some package; here it is named before it does."""
    path, wanted = FAULTS[fault]
    # Beside an unguarded program, a good one would be half of all.
    others = {} if fault == "unguarded" else {"usr/bin/good": "good"}
    made = draft(programs, {path: fault, **others})
    assert findings(made.write(tmp_path), tmp_path) == [wanted]


def test_programs_without_a_fault(programs: dict[str, Entry], tmp_path: Path) -> None:
    """Or people would learn to look away."""
    paths = {"usr/bin/good": "good", "usr/lib/libown.so.9": "library", "boot/loader": "static32"}
    assert findings(draft(programs, paths).write(tmp_path), tmp_path) == []


def for_any(made: Draft) -> Draft:
    made.info["arch"] = ["any"]
    return made


def for_one(made: Draft) -> Draft:
    made.info |= {"arch": ["x86_64"], "depend": ["bash"]}
    del made.files["usr/bin/good"]
    return made


@pytest.mark.parametrize(
    ("change", "wanted"), [(for_any, "error arch usr/bin/good"), (for_one, "warning arch .PKGINFO")]
)
def test_the_architecture(
    change: Callable[[Draft], Draft], wanted: str, programs: dict[str, Entry], tmp_path: Path
) -> None:
    """A package for any machine that runs on one, and the other way round."""
    made = change(draft(programs, {"usr/bin/good": "good"}))
    assert findings(made.write(tmp_path), tmp_path) == [wanted]


def test_a_library_of_the_same_build(programs: dict[str, Entry], tmp_path: Path) -> None:
    """What a package needs of its sibling is that package's, if depends names it."""
    library = draft(programs, {"usr/lib/libelsewhere.so.7": "libelsewhere.so"})
    library.info["pkgname"] = ["small-libs"]
    brought = library.write(tmp_path / "libs")
    made = draft(programs, {"usr/bin/x": "elsewhere"})
    assert findings(made.write(tmp_path), tmp_path, brought) == ["error unknown-need usr/bin/x"]
    made.info["depend"].append("small-libs")
    assert findings(made.write(tmp_path), tmp_path, brought) == []
