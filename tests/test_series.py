"""The adaptations of Xen 4.2's sources, each on a sample written for it.

An adaptation that finds nothing to change is out of date, and must stop the build instead of leaving
out in silence what it was for.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline import recipe, release

TOP = "src"
SEABIOS = "tools/firmware/seabios-dir-remote"
QEMU = "tools/qemu-xen-dir-remote"
QEMU_TRADITIONAL = "tools/qemu-xen-traditional-dir-remote"
OCAML = "tools/ocaml"

# By adaptation: files, each as it comes and as it must be afterwards.
SAMPLES: dict[str, dict[str, tuple[str, str]]] = {
    "build_identity": {
        "xen/Makefile": (
            "\t@sed -e 's/@@date@@/$(shell LC_ALL=C date)/g' \\\n"
            "\t    -e 's/@@time@@/$(shell LC_ALL=C date +%T)/g' \\\n"
            "\t    -e 's/@@hostname@@/$(shell hostname)/g' \\\n"
            "\t    -e 's!@@changeset@@!$(shell ((hg parents x) || echo \"no\") 2>/dev/null)!g'\n",
            "\t@sed -e 's/@@date@@/$(XEN_BUILD_DATE)/g' \\\n"
            "\t    -e 's/@@time@@/$(XEN_BUILD_TIME)/g' \\\n"
            "\t    -e 's/@@hostname@@/$(XEN_BUILD_HOST)/g' \\\n"
            "\t    -e 's!@@changeset@@!$(XEN_CHANGESET)!g'\n",
        ),
        "tools/firmware/hvmloader/Makefile": (
            'smbios.o: CFLAGS += -DDATE="\\"$(shell date +%m/%d/%Y)\\""\n',
            'smbios.o: CFLAGS += -DDATE="\\"$(SMBIOS_REL_DATE)\\""\n',
        ),
        f"{SEABIOS}/Makefile": (
            'VERSION=1.2.3-$(shell date +"%Y%m%d_%H%M%S")-$(shell hostname)\n',
            "VERSION=1.2.3\n",
        ),
    },
    "same_hypervisor": {
        "xen/Makefile": ("\tgzip -f -9 < $< > $@.new\n", "\tgzip -n -f -9 < $< > $@.new\n"),
        "xen/arch/x86/boot/mkelf32.c": (
            "    char       buffer[1024];\n",
            "    char       buffer[1024] = { 0 };\n",
        ),
        "xen/arch/x86/Makefile": (
            "EFI_LDFLAGS = -mi386pep\nEFI_LDFLAGS += --strip-debug\n",
            "EFI_LDFLAGS = -mi386pep --no-insert-timestamp\nEFI_LDFLAGS += --strip-debug\n",
        ),
    },
    "efi_image": {
        "xen/arch/x86/efi/boot.c": (
            "static module_t __initdata mb_modules[3];\nmb_modules[3] = x;\n",
            "static module_t __initdata mb_modules[3 + 1];\nmb_modules[3] = x;\n",
        ),
        "xen/arch/x86/setup.c": (
            "    modules_headroom = bzimage_headroom(bootstrap_map(mod), mod->mod_end);\n"
            "            end = consider_modules(s, e, size, mod, mbi->mods_count, j);\n"
            "                             mod, mbi->mods_count, -1);\n"
            "    for ( i = 0; i < mbi->mods_count; ++i )\n",
            "    if ( efi_enabled )\n    {\n"
            "        mod[mbi->mods_count].mod_start = xen_phys_start >> PAGE_SHIFT;\n"
            "        mod[mbi->mods_count].mod_end = __pa(&_end) - xen_phys_start;\n    }\n\n"
            "    modules_headroom = bzimage_headroom(bootstrap_map(mod), mod->mod_end);\n"
            "            end = consider_modules(s, e, size, mod, mbi->mods_count + efi_enabled, j);\n"
            "                             mod, mbi->mods_count + efi_enabled, -1);\n"
            "    for ( i = 0; i < mbi->mods_count; ++i )\n",
        ),
    },
    "fsgsbase": {
        "xen/arch/x86/traps.c": (
            "b &= (cpufeat_mask(X86_FEATURE_RTM)  |\n      cpufeat_mask(X86_FEATURE_FSGSBASE));\n",
            "b &= (cpufeat_mask(X86_FEATURE_RTM) );\n",
        ),
        "tools/libxc/xc_cpuid_x86.c": (
            "a &= (bitmaskof(X86_FEATURE_RTM)  |\n      bitmaskof(X86_FEATURE_FSGSBASE));\n"
            "static void xc_cpuid_pv_policy(\n    int x)\n{\n"
            "b &= (bitmaskof(X86_FEATURE_RTM)  |\n      bitmaskof(X86_FEATURE_FSGSBASE));\n}\n",
            "a &= (bitmaskof(X86_FEATURE_RTM)  |\n      bitmaskof(X86_FEATURE_FSGSBASE));\n"
            "static void xc_cpuid_pv_policy(\n    int x)\n{\n"
            "b &= (bitmaskof(X86_FEATURE_RTM) );\n}\n",
        ),
    },
    "device_numbers": {
        "tools/blktap/drivers/blktapctrl_linux.c": (
            "#include <sys/stat.h>\n",
            "#include <sys/stat.h>\n#include <sys/sysmacros.h>\n",
        ),
        "tools/blktap2/control/tap-ctl-allocate.c": (
            "#include <sys/types.h>\n",
            "#include <sys/types.h>\n#include <sys/sysmacros.h>\n",
        ),
        "tools/libxl/libxl_osdeps.h": (
            "#include <pty.h>\n",
            "#include <pty.h>\n#include <sys/sysmacros.h>\n",
        ),
    },
    "acpi_names": {
        "tools/firmware/hvmloader/acpi/Makefile": (
            "\tsed -e 's/AmlCode/$*/g' $*.hex >$@\n",
            "\tsed -e 's/AmlCode/$*/g' -e 's/_aml_code//g' $*.hex >$@\n",
        ),
    },
    "ocaml_integers": {
        f"{OCAML}/libs/xb/xs_ring_stubs.c": ("(volatile uint32*)&x\n", "(volatile uint32_t*)&x\n"),
    },
    "oxenstored_answers": {
        f"{OCAML}/xenstored/connections.ml": (
            "\t\tif Connection.has_more_input con then\n",
            "\t\tif Connection.has_more_input con || Connection.has_new_output con"
            " && not (Xenbus.Xb.has_old_output con.Connection.xb) then\n",
        ),
        f"{OCAML}/libs/xb/xs_ring_stubs.c": (
            "ml_interface_read(x)\n{\n\tresult = Val_int(res);\n}\n"
            "ml_interface_write(x)\n{\n\tresult = Val_int(res);\n}\n",
            "ml_interface_read(x)\n{\n\tresult = Val_int(res);\n}\n"
            "ml_interface_write(x)\n{\n"
            "\tif (res > 0 && res < Int_val(len))\n"
            "\t\tres += xs_ring_write(GET_C_STRUCT(interface), String_val(buffer) + res,"
            " Int_val(len) - res);\n"
            "\tresult = Val_int(res);\n}\n",
        ),
    },
    "ipxe_flags": {
        "tools/firmware/etherboot/Config": (
            "CFLAGS += -UPXE_DHCP_STRICT\n",
            "CFLAGS += -fno-pie -fcommon\nCFLAGS += -UPXE_DHCP_STRICT\n",
        ),
    },
    "seabios": {
        f"{SEABIOS}/Makefile": (
            "COMMONCFLAGS = -I$(OUT) -Os -MD\n",
            "COMMONCFLAGS = -I$(OUT) -Os -fno-pie -fgnu89-inline -MD\n",
        ),
        f"{SEABIOS}/tools/layoutrom.py": (
            "            if section.category == category and section.name.startswith(prefix)]\n",
            "            if section.category == category and (section.name.startswith(prefix)\n"
            '                or prefix == ".rodata.str1.1" and section.name.endswith(".str1.1"))]\n',
        ),
    },
    "qemu_librt": {
        f"{QEMU}/configure": (
            "int main(void) { clockid_t id; return clock_gettime(id, NULL); }\n",
            "int main(void) { timer_t id; return timer_create(CLOCK_REALTIME, NULL, &id); }\n",
        ),
    },
    "qemu_coroutines": {
        f"{QEMU}/Makefile": (
            "include $(SRC_PATH)/Makefile.objs\nendif\n",
            "include $(SRC_PATH)/Makefile.objs\ncoroutine-ucontext.o: CFLAGS += -U_FORTIFY_SOURCE\nendif\n",
        ),
    },
    "qemu_traditional_librt": {
        f"{QEMU_TRADITIONAL}/xen-hooks.mak": ("EXESUF=-xen\n", "EXESUF=-xen\nLIBS += -lrt\n"),
    },
    "stub_domains": {
        "extras/mini-os/Makefile": (
            "LWC\t:= $(shell find $(LWIPDIR)/ -type f -name '*.c')\n\tgzip -f -9 -c $@ >$@.gz\n",
            "LWC\t:= $(sort $(shell find $(LWIPDIR)/ -type f -name '*.c'))\n"
            "\tstrip $@\n\tgzip -n -f -9 -c $@ >$@.gz\n",
        ),
        "stubdom/Makefile": ("\ttar xjf $<\n\ttar xzf $<\n", "\ttar xf $<\n\ttar xzf $<\n"),
        "extras/mini-os/lib/math.c": (
            "#if !defined(__ia64__)\n#endif /* !defined(__ia64__) */\n",
            "#if !defined(__ia64__)\nu_quad_t __udivmoddi4(u_quad_t a, u_quad_t b, u_quad_t *rem)"
            " { return __qdivrem(a, b, rem); }\n#endif /* !defined(__ia64__) */\n",
        ),
    },
    "default_device_model": {
        "tools/libxl/libxl_create.c": (
            "        if (b_info->type == LIBXL_DOMAIN_TYPE_HVM)\n"
            "                MODEL_QEMU_XEN_TRADITIONAL;\n"
            "        else {\n"
            "                MODEL_QEMU_XEN_TRADITIONAL;\n",
            "        if (b_info->type == LIBXL_DOMAIN_TYPE_HVM)\n"
            "                MODEL_QEMU_XEN;\n"
            "        else {\n"
            "                MODEL_QEMU_XEN_TRADITIONAL;\n",
        ),
    },
    "same_documentation": {
        "docs/xen-headers": (
            "sort { $a->{Seq} <=> $b->{Seq} } @incontents\n",
            "sort { $a->{Seq} <=> $b->{Seq} || $a->{Href} cmp $b->{Href} } @incontents\n",
        ),
    },
    "manual_pages": {
        "docs/man/xl.pod.1": ("=over 4\n\n=item a\n\n=item\n\n=back\n", "=over 4\n\n=item a\n\n=back\n"),
        "docs/man/xl.cfg.pod.5": (
            "=item B<pci_permissive=BOOLEAN>\n\n=back\n\n=item B<ioports=X>\n\n"
            "=head2 Paravirtualised (PV) Guest\n\n"
            '=item B<"native_paravirt">\n\n=back\n\n=back\n\nPlease see\n\n'
            "=head3 Support for Paravirtualisation of HVM Guests\n",
            "=item B<pci_permissive=BOOLEAN>\n\n\n=item B<ioports=X>\n\n"
            "=back\n\n=head2 Paravirtualised (PV) Guest\n\n"
            '=item B<"native_paravirt">\n\n\n\n=back\n\nPlease see\n\n'
            "=back\n\n=head3 Support for Paravirtualisation of HVM Guests\n",
        ),
    },
    "ocaml_bytes": {
        f"{OCAML}/libs/xb/xb.ml": (
            "NoHdr of int * string\nString.make\nUnix.write fd s\nappend partial_pkt s sz\nof_string buf)\n",
            "NoHdr of int * bytes\nBytes.make\nUnix.write_substring fd s\n"
            "append partial_pkt (Bytes.to_string s) sz\nof_string (Bytes.to_string buf))\n",
        ),
        f"{OCAML}/libs/xb/xb.mli": (
            "val read_fd : fd -> 'a -> string -> int\nval read : t -> string -> int\nval write : string\n",
            "val read_fd : fd -> 'a -> bytes -> int\nval read : t -> bytes -> int\nval write : string\n",
        ),
        f"{OCAML}/libs/xb/xs_ring.ml": (
            "external read: m -> string -> int\nexternal write: m -> string\n",
            "external read: m -> bytes -> int\nexternal write: m -> string\n",
        ),
        f"{OCAML}/libs/xc/xenctrl.ml": ("Unix.write fd s\n", "Unix.write_substring fd s\n"),
        f"{OCAML}/xenstored/stdext.ml": ("Unix.write fd s\n", "Unix.write_substring fd s\n"),
        f"{OCAML}/xenstored/utils.ml": (
            "\ths.[i * 2 + 1] <- seq.[1];\n\ths\nlet unhexify hs =\n"
            "\tlet s = String.create (String.length hs / 2) in\n\tfor i = 0 to String.length s - 1\n"
            "\ts.[i] <- f hs.[i * 2] hs.[1]\n\ts\n\nlet trim_path path =\nString.sub buf 0 sz\n",
            "\tBytes.set hs (i * 2 + 1) (seq.[1]);\n\tBytes.to_string hs\nlet unhexify hs =\n"
            "\tlet s = Bytes.create (String.length hs / 2) in\n\tfor i = 0 to Bytes.length s - 1\n"
            "\tBytes.set s (i) (f hs.[i * 2] hs.[1])\n\tBytes.to_string s\n\nlet trim_path path =\n"
            "Bytes.sub_string buf 0 sz\n",
        ),
        f"{OCAML}/xenstored/logging.ml": (
            "\t\tString.blit line 0 dst_line 0\n\t\tdst_line.[len-2] <- '.';\n\t\tdst_line\n"
            "let data = String.copy data in\nfor i = 0 to String.length data - 1\n"
            "if data.[i] = 'x' then\n\tdata.[i] <- ' '\nString.escaped data\n",
            "\t\tBytes.blit_string line 0 dst_line 0\n\t\tBytes.set dst_line (len-2) ('.');\n"
            "\t\tBytes.to_string dst_line\n"
            "let data = Bytes.of_string data in\nfor i = 0 to Bytes.length data - 1\n"
            "if Bytes.get data i = 'x' then\n\tBytes.set data (i) (' ')\n"
            "String.escaped (Bytes.to_string data)\n",
        ),
    },
}


@pytest.fixture(scope="module")
def pkgbuild() -> str:
    return recipe.render(release.read("4.2"), "http://mirror.example/debian").pkgbuild


def adapt(pkgbuild: str, top: Path, name: str, bins: str = "") -> subprocess.CompletedProcess[str]:
    """Run one adaptation as makepkg would."""
    script = f'source /dev/stdin\ncd "$1"\n{bins}\n_adapt_{name}\necho adapted\n'
    return subprocess.run(
        ["bash", "-ec", script, "bash", top], input=pkgbuild, capture_output=True, text=True, check=False
    )


def ocaml(safe: bool) -> str:
    return f"ocamlc() {{ echo 'default_safe_string: {'true' if safe else 'false'}'; }}"


@pytest.mark.parametrize("name", SAMPLES)
def test_an_adaptation_does_what_it_says_once(pkgbuild: str, tmp_path: Path, name: str) -> None:
    """Without it, the build breaks or differs from the one before; see the recipe's own comment."""
    for path, (before, _) in SAMPLES[name].items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(before)
    done = adapt(pkgbuild, tmp_path, name, ocaml(safe=True))
    assert done.stdout == "adapted\n", done.stderr
    for path, (_, after) in SAMPLES[name].items():
        assert (tmp_path / path).read_text() == after, path


@pytest.mark.parametrize(
    ("name", "path"), [(name, path) for name, files in SAMPLES.items() for path in files]
)
def test_an_adaptation_with_nothing_to_change_is_an_error(
    pkgbuild: str, tmp_path: Path, name: str, path: str
) -> None:
    """Upstream has moved on: what the adaptation was for may be broken again, and nothing would say so."""
    for other, (before, _) in SAMPLES[name].items():
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("something else\n" if other == path else before)
    done = adapt(pkgbuild, tmp_path, name, ocaml(safe=True))
    assert done.returncode != 0
    assert done.stdout == ""
    assert path in done.stderr


def test_stub_domains_get_their_archives(pkgbuild: str, tmp_path: Path) -> None:
    """Without them make asks the network; with files of several times it asks for the autotools of 2005."""
    (tmp_path / "lwip" / "src").mkdir(parents=True)
    (tmp_path / "lwip" / "src" / "a.c").write_text("a")
    (tmp_path / "stubdom").mkdir()
    script = 'source /dev/stdin\ncd "$1"\nsrcdir=$1\n_place_archive lwip lwip-1.3.0.tar.gz\n'
    subprocess.run(
        ["bash", "-ec", script, "bash", tmp_path],
        input=pkgbuild,
        check=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "SOURCE_DATE_EPOCH": "1000"},
    )
    with tarfile.open(tmp_path / "stubdom/lwip-1.3.0.tar.gz") as archive:
        assert {member.name: member.mtime for member in archive} == {
            "lwip": 1000,
            "lwip/src": 1000,
            "lwip/src/a.c": 1000,
        }


def test_old_ocaml_needs_no_bytes(pkgbuild: str, tmp_path: Path) -> None:
    """Before 4.02 there are none: what helps new compilers would break the one that Xen 4.2 was made for."""
    assert adapt(pkgbuild, tmp_path, "ocaml_bytes", ocaml(safe=False)).stdout == "adapted\n"


def test_every_adaptation_has_a_sample(pkgbuild: str) -> None:
    """One that nothing tests breaks in the middle of somebody's compile."""
    assert set(re.findall(r"^_adapt_(\w+)\(\)", pkgbuild, re.MULTILINE)) == set(SAMPLES)


def test_a_missing_program_is_named(pkgbuild: str, tmp_path: Path) -> None:
    """Upstream's makefiles leave manual pages out where pod2man is missing, and end well."""
    script = 'source /dev/stdin\ncd "$1"\n_assert_programs bash pod2paper\necho reached\n'
    done = subprocess.run(
        ["bash", "-ec", script, "bash", tmp_path], input=pkgbuild, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert "pod2paper is not installed" in done.stderr


PLUGIN = """\
install: all
\t$(INSTALL_PROG) oxenstored $(DESTDIR)$(sbindir)
"""


@pytest.mark.parametrize("name", ["4.20", "unstable"])
def test_oxenstored_gets_its_plugin(name: str, tmp_path: Path) -> None:
    """Without it oxenstored ends at once, and so does every host of Xen 4.20 and later."""
    pkgbuild = recipe.render(release.read(name), "http://mirror.example/debian").pkgbuild
    makefile = tmp_path / "tools/ocaml/xenstored/Makefile"
    makefile.parent.mkdir(parents=True)
    makefile.write_text(PLUGIN)
    done = adapt(pkgbuild, tmp_path, "oxenstored_plugin")
    assert done.stdout == "adapted\n", done.stderr
    line = "\t$(MAKE) -C $(OCAML_TOPLEVEL)/libs/xsd_glue/domain_getinfo_plugin_v1 install\n"
    assert makefile.read_text() == PLUGIN.replace("install: all\n", "install: all\n" + line)
    makefile.write_text("something else\n")
    assert "tools/ocaml/xenstored/Makefile" in adapt(pkgbuild, tmp_path, "oxenstored_plugin").stderr
