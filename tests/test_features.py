"""Features: what a build can do without, in release files, recipes, settings and commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from pipeline import recipe, release
from pipeline.errors import UsageError
from pipeline.release import Release
from pipeline.settings import Settings
from pipeline.steps import Steps

MIRROR = "http://mirror.example/debian"
BASE = """
version = "1.0"
xen_version = "1.0"
source_date_epoch = 1
image = "any"

[[sources]]
name = "base.tar.gz"
urls = ["https://example.org/base.tar.gz"]
size = 1
sha256 = "{a}"

[tokens]
TEXT = "one"
CONFIGURE = ["--base"]

[expected]
xen = ["usr/bin/base"]

[features.plain]

[features.extra]
tokens = {{ CONFIGURE = ["--enable-extra"] }}
without = {{ CONFIGURE = ["--disable-extra"] }}
expected = {{ xen = ["usr/bin/extra"], xen-extra = ["usr/share/extra"] }}
[[features.extra.sources]]
name = "extra.tar.gz"
urls = ["https://example.org/extra.tar.gz"]
size = 2
sha256 = "{b}"
[[features.extra.git]]
name = "more"
urls = ["https://example.org/more.git"]
commit = "{commit}"

[features.top]
needs = ["extra"]
""".format(a="a" * 64, b="b" * 64, commit="c" * 40)


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(release, "RELEASES", tmp_path)
    (tmp_path / "base.toml").write_text(BASE)
    return tmp_path


@pytest.mark.usefixtures("releases")
class TestRelease:
    def test_all_are_in_by_default(self) -> None:
        """A release without a part that nobody asked to leave out is not that release."""
        found = release.read("base")
        assert [source.name for source in found.sources] == ["base.tar.gz", "extra.tar.gz"]
        assert [git.name for git in found.git] == ["more"]
        assert found.tokens["CONFIGURE"] == ("--base", "--enable-extra")
        assert found.expected == {"xen": ("usr/bin/base", "usr/bin/extra"), "xen-extra": ("usr/share/extra",)}
        assert found.left_out == ()

    def test_what_is_left_out_is_left_out_everywhere(self) -> None:
        """Or a fetch asks for sources that cannot be had, and a check for files that cannot be there."""
        found = release.read("base", ["top", "extra"])
        assert [source.name for source in found.sources] == ["base.tar.gz"]
        assert found.git == ()
        assert found.tokens["CONFIGURE"] == ("--base", "--disable-extra")
        assert found.expected == {"xen": ("usr/bin/base",)}
        assert found.left_out == ("extra", "top")

    def test_an_unknown_feature_is_named(self) -> None:
        """A misspelt name must not build what was to be left out."""
        with pytest.raises(UsageError, match="no feature 'extar'") as caught:
            release.read("base", ["extar"])
        assert caught.value.hint == "Features: extra, plain, top."

    def test_what_another_one_needs_cannot_be_left_out_alone(self) -> None:
        """It would fail in the middle of a compile."""
        with pytest.raises(UsageError, match="top cannot be built without extra") as caught:
            release.read("base", ["extra"])
        assert caught.value.hint == "--without extra,top"

    @pytest.mark.parametrize(
        ("old", "new", "message"),
        [
            ('needs = ["extra"]', 'needs = ["extar"]', r"no feature extar \(at features\.top\.needs\)"),
            (
                'tokens = { CONFIGURE = ["--en',
                'tokens = { TEXT = ["--en',
                r"TEXT is no list .*features\.extra",
            ),
            ('name = "extra.tar.gz"', 'name = "base.tar.gz"', "two sources are called base"),
            ("[features.plain]", "[features.Plain]", "Plain|features"),
            ('image = "any"', 'image = "any"\nleft_out = ["extra"]', r"\(at left_out\)"),
        ],
    )
    def test_mistakes_are_named(self, releases: Path, old: str, new: str, message: str) -> None:
        """A mistake in a release file is one sentence, not a compile that ends strangely."""
        assert old in BASE
        (releases / "base.toml").write_text(BASE.replace(old, new))
        with pytest.raises(UsageError, match=message):
            release.read("base")


class TestLike:
    def test_a_release_says_only_what_differs(self, releases: Path) -> None:
        """What two releases share is corrected in one place."""
        text = 'like = "base"\nversion = "1.1"\n[tokens]\nTEXT = "two"\n[features.extra]\ngit = []\n'
        (releases / "next.toml").write_text(text)
        found, base = release.read("next"), release.read("base")
        assert (found.name, found.version, found.xen_version) == ("next", "1.1", "1.0")
        assert found.tokens == {**base.tokens, "TEXT": "two"}
        assert found.git == ()
        assert found.sources == base.sources
        assert found.expected == base.expected

    def test_a_release_may_be_like_one_that_is_like_another(self, releases: Path) -> None:
        """Otherwise the third release of a series repeats all that the second one says."""
        (releases / "next.toml").write_text('like = "base"\nversion = "1.1"\n[tokens]\nTEXT = "two"\n')
        (releases / "third.toml").write_text('like = "next"\nversion = "1.2"\n')
        found = release.read("third")
        assert (found.version, found.tokens["TEXT"]) == ("1.2", "two")
        assert found.sources == release.read("base").sources

    @pytest.mark.parametrize(
        ("like", "message"), [("none", "there is no release"), ("next", "next is like next")]
    )
    def test_what_it_is_like_must_be_there(self, releases: Path, like: str, message: str) -> None:
        """A circle of releases would never end."""
        (releases / "next.toml").write_text(f'like = "{like}"\n')
        with pytest.raises(UsageError, match=message):
            release.read("next")


@pytest.mark.usefixtures("releases")
class TestSettings:
    def steps(self, usual: object = (), *names: str, image: str = "") -> Steps:
        return Steps(Settings.read({"release": "base", "without": usual}), "base", names, image)

    def test_settings_and_command_add_up(self, releases: Path) -> None:
        """A user who never has one of the sources says so once."""
        (releases / "other.toml").write_text(BASE.replace("features.plain", "features.rare"))
        assert self.steps("top, extra").release.left_out == ("extra", "top")
        assert self.steps(["plain"], "top").release.left_out == ("plain", "top")
        # Of a feature that only another release has, nothing needs to be left out.
        assert self.steps("rare").release.left_out == ()

    def test_an_unknown_name_in_the_settings_is_named(self) -> None:
        """A misspelt setting that does nothing is the hardest to find."""
        with pytest.raises(UsageError, match="'extar', which is no release's feature"):
            _ = self.steps("extar").release

    def test_the_image_can_be_another_one(self) -> None:
        """A new compiler is tried without a release of its own."""
        assert self.steps().release.image == "any"
        assert self.steps(image="debian-trixie").release.image == "debian-trixie"
        with pytest.raises(UsageError, match="no image 'newer'"):
            _ = self.steps(image="newer").release


class TestTemplate:
    RELEASE = Release(
        name="test",
        version="1",
        xen_version="1",
        source_date_epoch=1,
        image="any",
        series="a",
        features={"in": release.Feature(), "out": release.Feature()},
        left_out=("out",),
    )
    TEMPLATE = "pkgdesc='it@WITHOUT@'\n@SERIES@\npackage() {\n  :\n}\n"

    @pytest.fixture(autouse=True)
    def project(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        (tmp_path / "package/series").mkdir(parents=True)
        (tmp_path / "PKGBUILD.in").write_text(self.TEMPLATE)
        monkeypatch.setattr(recipe, "TEMPLATE", tmp_path / "PKGBUILD.in")
        monkeypatch.setattr(recipe, "SUPPORT", tmp_path / "package")
        return tmp_path

    def render(self, project: Path, series: str) -> recipe.Recipe:
        (project / "package/series/a.in").write_text(series)
        return recipe.render(self.RELEASE, MIRROR)

    def test_only_what_is_in(self, project: Path) -> None:
        """Whoever reads the PKGBUILD reads what is built, and nothing else."""
        made = self.render(
            project, "a\n@IF in@\nb\n@IF out@\nc\n@FI@\nd\n@FI@\n\n@IF out@\n@IF in@\ne\n@FI@\n@FI@\n\nf\n"
        )
        assert made.pkgbuild.splitlines()[1:7] == ["a", "b", "d", "", "f", ""]
        assert made.pkgbuild.startswith("pkgdesc='it (without out)'\n")
        assert "series" not in made.support
        assert made.compile_part in made.pkgbuild

    @pytest.mark.parametrize("series", ["@IF in@\na\n", "a\n@FI@\n", "@IF In@\na\n@FI@\n"])
    def test_a_half_condition_is_an_error(self, project: Path, series: str) -> None:
        """It would leave out the rest of the recipe, or nothing."""
        with pytest.raises(UsageError):
            self.render(project, series)

    def test_a_later_series_is_laid_over_an_earlier_one(self, project: Path) -> None:
        """What is the same in both is written once; in a shell, the function that comes last counts."""
        (project / "package/series/b.in").write_text("_it() { echo b; }\n")
        (project / "package/series/a.in").write_text("_it() { echo a; }\n")
        both = msgspec.structs.replace(self.RELEASE, series=("a", "b"))
        made = recipe.render(both, MIRROR).pkgbuild
        said = subprocess.run(
            ["bash", "-ec", "source /dev/stdin; _it"], input=made, capture_output=True, text=True
        )
        assert said.stdout == "b\n"

    def test_a_release_without_a_series_is_named(self) -> None:
        """It would leave the recipe without a build."""
        with pytest.raises(UsageError, match="names no series"):
            recipe.render(msgspec.structs.replace(self.RELEASE, series=()), MIRROR)

    def test_an_unknown_series_is_named(self) -> None:
        """It would leave the recipe without a build."""
        with pytest.raises(UsageError, match=r"no series a \(at series\)"):
            recipe.render(self.RELEASE, MIRROR)


class TestProject:
    """The project's own releases and recipe."""

    def test_conditions_name_features(self) -> None:
        """A misspelt condition is never met: its part would be missing from every package."""
        series: dict[str, set[str]] = {}
        for name in release.known():
            found = release.read(name)
            for title in found.series_files:
                series.setdefault(title, set()).update(found.features)
        conditions = re.compile(r"^@IF (.*)@$", re.MULTILINE)
        for title, features in series.items():
            text = (recipe.SUPPORT / recipe.SERIES / f"{title}.in").read_text()
            assert set(conditions.findall(text)) <= features, title
        everything = set().union(*series.values())
        assert set(conditions.findall(recipe.TEMPLATE.read_text())) <= everything

    @pytest.mark.parametrize("name", release.known())
    def test_every_feature_can_be_left_out(self, name: str) -> None:
        """What is offered works, as far as bash can tell without a compile."""
        features = release.read(name).features
        for feature in features:
            left_out = {feature, *(other for other, f in features.items() if feature in f.needs)}
            found = release.read(name, left_out)
            made = recipe.render(found, MIRROR).pkgbuild
            script = 'source /dev/stdin && printf "%s\\n" "${pkgname[@]}" "$pkgdesc"'
            said = subprocess.run(
                ["bash", "-ec", script], input=made, capture_output=True, text=True, check=True
            ).stdout.splitlines()
            assert set(said[:-1]) == set(found.expected), feature
            assert feature in said[-1]
            for package in said[:-1]:
                assert re.search(rf"^package_{package}\(\)", made, re.MULTILINE), package
            # Every adaptation that is asked for is there, in the part that compiles.
            for word in found.tokens["ADAPTATIONS"]:
                assert f"\n_adapt_{word}() {{" in made, (feature, word)
