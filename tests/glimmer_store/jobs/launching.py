"""A dataset with objects in two sources and an empty bare repository, for jobs that bring them there."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import annexpy as annex
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.shards import into_shards
from glimmer_store.jobs.spec import JobSpec

__all__ = ["Scene", "make_scene"]


@dataclass(frozen=True)
class Scene:
    """*folder* has ``dataset`` (no contents), ``one`` and ``two`` (contents are in one of them or both), ``new``."""

    folder: Path
    keys: tuple[annex.Key, ...]

    @property
    def dataset(self) -> Path:
        return self.folder / "dataset"

    @property
    def job(self) -> Path:
        return self.folder / "job"

    async def plan(self, *, per_shard: int = 8, **settings: object) -> JobSpec:
        """Freeze a job in small shards."""
        spec = new_job(self.dataset, "backfill", ["new"], sources=["one", "two"], **{"heartbeat": 0.2, **settings})  # type: ignore[arg-type]
        small = lambda tasks: into_shards(tasks, keys=per_shard)  # noqa: E731
        import glimmer_store.jobs.plan as planning

        before, planning.into_shards = planning.into_shards, small  # type: ignore[assignment]
        try:
            await plan(spec, self.job)
        finally:
            planning.into_shards = before
        return spec

    def missing(self, git_annex: str) -> set[str]:
        """What the real git-annex says is not in the new repository, after a merge of what it does not know yet."""
        argv = [git_annex, "findkeys", "--not", "--in", "new"]
        said = subprocess.run(argv, cwd=self.dataset, capture_output=True, text=True, check=True).stdout
        return set(said.split())

    def right(self) -> set[annex.Key]:
        """Keys whose content in the new repository, read from its files, is what it should be."""
        found = set()
        for path in (self.folder / "new" / "annex" / "objects").rglob("*"):
            if path.is_file():
                key = annex.Key.parse(os.fsencode(path.name))
                if annex.name_content([path.read_bytes()], b"SHA256").raw.split(b"--")[1] == key.raw.split(b"--")[1]:
                    found.add(key)
        return found


async def make_scene(folder: Path, count: int, *, size: int = 200) -> Scene:
    """Make it. Contents differ, and differ in length; *count* of them."""
    dataset = annex.Repository.init(folder / "dataset", bare=False, description="dataset")
    sources = [annex.Repository.init(folder / name, bare=True, description=name) for name in ("one", "two")]
    new = annex.Repository.init(folder / "new", bare=True, description="new")
    for name, repository in (("one", sources[0]), ("two", sources[1]), ("new", new)):
        for setting, value in (("url", str(folder / name)), ("annex-uuid", str(repository.uuid))):
            subprocess.run(["git", "config", f"remote.{name}.{setting}", value], cwd=folder / "dataset", check=True)
    keys = []
    with dataset:
        remotes = [annex.Local(repository, durability="fast") for repository in sources]
        for number in range(count):
            content = (number.to_bytes(4, "big") * (1 + (size + number % 50) // 4))[: size + number % 50]
            key = annex.name_content([content], b"SHA256")
            having = [remotes[number % 2]] if number % 3 else remotes
            for remote in having:
                async with remote.put(key) as upload:
                    await upload.start(len(content))
                    await upload.write(content)
                    await upload.finish()
                dataset.branch.set_present(key, remote.uuid, True)
            keys.append(key)
        await dataset.branch.commit()
    for repository in (*sources, new):
        repository.close()
    return Scene(folder, tuple(keys))
