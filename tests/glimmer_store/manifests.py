"""A dataset with durable bares and a manifest, for the tests of manifests."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import datamanifest

from glimmer_store.manifest.library import Project


@dataclass(frozen=True)
class Study:
    """A dataset with three durable bares, a manifest, and the place where its sources are."""

    top: Path
    root: Path
    sources: Path

    @property
    def manifest(self) -> Path:
        return self.root / "datamanifest.toml"

    def bare(self, number: int) -> Path:
        return self.top / f"vault{number}.git"

    @property
    def project(self) -> Project:
        return Project(self.manifest)

    def library(self) -> datamanifest.Database:
        """The project as plain datamanifestpy sees it."""
        return datamanifest.Database(datasets_toml=str(self.manifest))

    def download(self, *names: str) -> list[Path]:
        """As a user does it."""
        return [Path(datamanifest.download_dataset(name, db=self.library())) for name in names]

    def produce(self, *, version: str = "v1", grid: str = "5x5", value: int = 1) -> Path:
        """An artefact of a cached function; its folder."""
        library = self.library()

        @library.cached(cachetype="anomaly", version=version, format="json")
        def anomaly(*, grid: str) -> dict[str, object]:
            return {"grid": grid, "value": value}

        anomaly(grid=grid)
        (found,) = (self.root / "cached" / "anomaly" / version).glob("*/data.json")
        return found.parent

    def lose_sources(self) -> None:
        """Every URL of the manifest is dead from now on."""
        shutil.rmtree(self.sources)


MANIFEST = """\
[_META]
schema = 1

[_STORAGE]
datasets_dir = "$repo/data"
datacache_dir = "cached"

# the curve
[co2]
uri = "file://{sources}/co2.csv"
key = "example.org/co2.csv"

[mask]
shell = "cp -r {sources}/mask $download_path"
key = "made/mask"
"""
