"""The steps from a release file to packages, wired up from the settings.

Each step first looks whether what it makes is in place already, by the hash of all that goes in.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pipeline import build as builds
from pipeline import files, release
from pipeline import recipe as recipes
from pipeline import seal as seals
from pipeline.build import Build
from pipeline.builder import Builder, Plan
from pipeline.ccache import Ccache
from pipeline.engine.choice import EngineChoice
from pipeline.engine.job import Engine
from pipeline.errors import IntegrityError, UsageError
from pipeline.image import assembly
from pipeline.image.assembly import Image
from pipeline.image.definition import read_definition
from pipeline.image.lock import read_lock
from pipeline.release import BranchLock, Release
from pipeline.settings import Settings
from pipeline.source import GitSource, Source
from pipeline.version import PROJECT

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Steps:
    """What makes one release, with the settings of one run.

    ``without`` names features that are left out, besides those that the settings name; ``image_name`` is
    the image to use instead of the release's own. ``lock`` is what a branch stands for, in the place of the
    commit in the release file. ``series`` is laid over the release's own. ``ccache``
    lets builds of a branch take what the same compiler has compiled before.
    """

    settings: Settings
    release_name: str
    without: tuple[str, ...] = ()
    image_name: str = ""
    lock: BranchLock | None = None
    series: tuple[str, ...] = ()
    ccache: bool = False

    @cached_property
    def release(self) -> Release:
        """The release file, with the features that are in and the image that is meant."""
        features = release.read(self.release_name).features
        usual = self.settings.left_out
        unknown = set(usual) - features.keys()
        for name in sorted(unknown - release.known_features() if unknown else unknown):
            raise UsageError(f"The settings leave out {name!r}, which is no release's feature (at without).")
        found = release.read(self.release_name, {*self.without, *(n for n in usual if n in features)})
        if self.lock is not None:
            found = found.locked(self.lock)
        if self.image_name:
            read_definition(self.image_name)  # one that there is not is said before anything is fetched
        return msgspec.structs.replace(
            found, image=self.image_name or found.image, series=(*found.series_files, *self.series)
        )

    def like(self, built: Build) -> Steps:
        """The steps for a finished build: with its image, and without what was left out of it."""
        return dataclasses.replace(
            self,
            settings=msgspec.structs.replace(self.settings, without=()),
            without=built.record.without,
            image_name=built.record.image,
            lock=builds.read_lock(built.folder),
        )

    def at(self, lock: BranchLock) -> Steps:
        """The steps for what the release's branch was once."""
        return dataclasses.replace(self, lock=lock)

    @cached_property
    def engine(self) -> Engine:
        """The engine, chosen on first use."""
        choice = EngineChoice.parse(self.settings.engine)
        return choice.open(self.settings.open_store.root / "scratch")

    def fetch(self, folder: Path | None = None) -> dict[Source | GitSource, Path]:
        """Bring every source of the release into the store, from a local folder where it lies there."""
        from pipeline.sources import obtain

        settings = self.settings
        return obtain(
            self.release.sources,
            self.release.git,
            settings.open_store,
            settings.open_mirrors,
            project=PROJECT,
            jobs=settings.downloads,
            folder=folder,
        )

    def image(self) -> Image:
        """Make the release's image ready for use."""
        return self.named_image(self.release.image)

    def packaging_image(self) -> Image:
        """Make the image ready that has makepkg; mostly the release's image itself."""
        return self.named_image(read_definition(self.release.image).packaging or self.release.image)

    def named_image(self, name: str) -> Image:
        """Make an image ready for use; one without a lock gets it, unless locks are not to be made."""
        settings = self.settings
        self.locked_image(name)
        return assembly.prepare(name, settings.open_store, settings.open_mirrors, jobs=settings.downloads)

    def locked_image(self, name: str) -> Image:
        """An image that may have yet to be made; one without a lock gets it, as above."""
        from pipeline.image import locking

        settings = self.settings
        if not settings.keeps_locks:
            locking.ensure(name, settings.open_store, settings.open_mirrors, jobs=settings.downloads)
        return Image(name, read_lock(name), settings.open_store)

    def plan(self) -> Plan:
        """Fill the recipe; all that fixes the build's bytes is known then."""
        image, packaging = self.image(), self.packaging_image()
        rendered = recipes.render(self.release, recipes.public_mirror(packaging))
        return Plan(self.release, rendered, image, packaging, self.settings.packager)

    def recipe(self) -> Path:
        """Write the AUR folder and return it."""
        plan = self.plan()
        folder = self.settings.artifacts_folder / self.release.name / "aur"
        srcinfo = recipes.srcinfo(
            plan.recipe, plan.packaging, self.engine, self.settings.open_store.root / "scratch"
        )
        recipes.write(plan.recipe, folder)
        files.write_text(folder / ".SRCINFO", srcinfo)
        return folder

    def build(self) -> Build:
        """Build the packages, or find them built."""
        settings = self.settings
        builder = Builder(
            store=settings.open_store,
            artifacts=settings.artifacts_folder,
            engine=lambda: self.engine,
            sources=self.fetch,
            jobs=settings.compile_jobs,
            ccache=self._ccache,
        )
        return builder.build(self.plan())

    @property
    def _ccache(self) -> Ccache | None:
        size = round(self.settings.nightly.ccache * (1 << 30))
        if not self.ccache or not size:
            return None
        if self.release.branch is None:
            raise UsageError(
                f"Release {self.release.name} is not built with ccache.",
                hint="Only what follows a branch is.",
            )
        return Ccache(self.settings.open_store.root / "ccache", size)

    def newest(self, *, verified: bool = True) -> Build:
        """The release's newest build, with its packages ``verified`` unless told otherwise."""
        found = builds.newest(self.settings.artifacts_folder, self.release.name)
        if verified:
            found.verify()
        return found

    @property
    def host_image(self) -> str:
        """The image of the host that the full tier installs on; empty where none is named."""
        return read_definition(self.release.image).dom0 or ""

    def seal(self, build: Build, *, anew: bool = False) -> Path:
        """Write the table of a build's files, and sign it and the packages where the settings name a key."""
        build.verify()

        def check() -> None:
            # Its libraries take half a second to import.
            from pipeline import verify

            if wrong := verify.failures(verify.statements(build.folder, build.hashes)):
                raise IntegrityError(
                    f"The build in {build.folder} is damaged: {wrong}",
                    hint=f"Remove that folder: ./inv build {build.record.release} makes it again.",
                )

        return seals.seal(build.folder, build.hashes, self.settings.signing_key, anew=anew, check=check)
