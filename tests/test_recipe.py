"""Recipes: what fills PKGBUILD.in, and what does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from pipeline import recipe, release
from pipeline.errors import UsageError
from pipeline.release import Release
from pipeline.source import Source

MIRROR = "http://mirror.example/debian"
SOURCE = Source(name="xen.tar.gz", urls=("debian:pool/main/x/other.tar.gz",), size=1, sha256="a" * 64)
RELEASE = Release(
    name="test",
    version="1.2",
    xen_version="1.2",
    source_date_epoch=1,
    image="any",
    sources=(SOURCE,),
    tokens={"WORD": "it's", "WORDS": ("a b", "$c", "d'e")},
)
TEMPLATE = """pkgver=@PKGVER@-@PKGREL@
source=(
@SOURCES@
)
sha256sums=(
@SHA256SUMS@
)
word=@WORD@
words=(
@WORDS@
)
xen=@XEN_VERSION@
package_a() {
  :
}
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "unit.service").write_text("[Unit]\n")
    (tmp_path / "PKGBUILD.in").write_text(TEMPLATE)
    monkeypatch.setattr(recipe, "TEMPLATE", tmp_path / "PKGBUILD.in")
    monkeypatch.setattr(recipe, "SUPPORT", tmp_path / "package")
    return tmp_path


def test_words_reach_bash_as_they_are(project: Path) -> None:
    """A badly quoted option would configure another Xen than the release file says."""
    template = TEMPLATE.replace("word=@WORD@\n", "")
    (project / "PKGBUILD.in").write_text(template)
    changed = msgspec.structs.replace(RELEASE, tokens={"WORDS": RELEASE.tokens["WORDS"]})
    (project / "out").write_text(recipe.render(changed, MIRROR).pkgbuild)
    script = 'source "$1"; printf "%s\\n" "${words[@]}" "${source[@]}" "${sha256sums[0]}" "$pkgver"'
    said = subprocess.run(
        ["bash", "-c", script, "bash", project / "out"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[:3] == ["a b", "$c", "d'e"]
    assert said[3:] == [f"xen.tar.gz::{MIRROR}/pool/main/x/other.tar.gz", "unit.service", "a" * 64, "1.2-1"]


def test_tokens_must_fit(project: Path) -> None:
    """A misspelt token would leave its at signs, or its meaning, out of the package in silence."""
    with pytest.raises(UsageError, match=r"releases/test\.toml does not fill @WORD@ of PKGBUILD\.in"):
        recipe.render(msgspec.structs.replace(RELEASE, tokens={"WORDS": ()}), MIRROR)
    more: dict[str, str | tuple[str, ...]] = {**RELEASE.tokens, "MORE": "x"}
    with pytest.raises(UsageError, match=r"PKGBUILD\.in has no @MORE@ \(at tokens\.MORE of"):
        recipe.render(msgspec.structs.replace(RELEASE, tokens=more), MIRROR)
    own: dict[str, str | tuple[str, ...]] = {**RELEASE.tokens, "PKGVER": "9"}
    with pytest.raises(UsageError, match=r"releases/test\.toml: PKGVER is filled by the pipeline"):
        recipe.render(msgspec.structs.replace(RELEASE, tokens=own), MIRROR)
    (project / "PKGBUILD.in").write_text(TEMPLATE.replace("package_a", "other"))
    with pytest.raises(UsageError, match="no package function"):
        recipe.render(RELEASE, MIRROR)


def test_support_files_are_no_reason_to_compile(project: Path) -> None:
    """A corrected comment in a unit must not cost ten minutes."""
    before = recipe.render(RELEASE, MIRROR)
    (project / "package" / "unit.service").write_text("[Unit]\n# more\n")
    (project / "PKGBUILD.in").write_text(TEMPLATE.replace("  :\n", "  install more\n"))
    after = recipe.render(RELEASE, MIRROR)
    assert before.pkgbuild != after.pkgbuild
    assert before.compile_part == after.compile_part
    (project / "PKGBUILD.in").write_text(TEMPLATE.replace("word=", "other="))
    assert recipe.render(RELEASE, MIRROR).compile_part != before.compile_part


def test_the_releases_of_this_project_fill_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the first user of a release finds out."""
    monkeypatch.undo()
    for name in release.known():
        rendered = recipe.render(release.read(name), MIRROR)
        assert "@" not in rendered.pkgbuild.split("build()")[0].replace('"$@"', "").replace("[@]", ""), name
