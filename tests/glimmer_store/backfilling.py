"""Datasets to backfill: a repository that knows of keys in two sources, and a bare one that is to get them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import annexpy as annex

LIAR = Path(__file__).with_name("lying_server.py")


@dataclass
class Backfill:
    """A dataset with the sources ``a`` and ``b``, and ``new``, which has nothing."""

    root: Path
    uuids: dict[str, annex.UUID] = field(default_factory=dict)
    keys: list[annex.Key] = field(default_factory=list)

    @property
    def dataset(self) -> Path:
        return self.root / "dataset"

    def bare(self, name: str) -> Path:
        return self.root / f"{name}.git"

    def object(self, name: str, key: annex.Key) -> Path | None:
        """The file that holds a content."""
        with annex.Repository.open(self.bare(name)) as repository:
            path = repository.content.path(key)
        return None if path is None else self.bare(name) / os.fsdecode(path)

    def holds(self, name: str) -> set[annex.Key]:
        """The keys whose content is there and right, by reading all of it."""
        with annex.Repository.open(self.bare(name)) as repository:
            return {key for key in self.keys if repository.content.verified(key)}

    def recorded(self, name: str) -> set[annex.Key]:
        """The keys that the dataset's location log says are there."""
        with annex.Repository.open(self.dataset) as repository:
            return {key for key in self.keys if self.uuids[name] in repository.branch.locations(key).present}

    def address(self, name: str, url: str) -> None:
        """Have the git remote *name* lead somewhere else."""
        git(self.dataset, "config", f"remote.{name}.url", url)

    def lie(self, name: str, *how: str) -> None:
        """Have *name* be reached through a server that lies."""
        words = [sys.executable, str(LIAR), str(self.bare(name)), *how]
        self.address(name, "exec:" + " ".join(words))

    def spoil(self, name: str, key: annex.Key) -> None:
        """Flip a bit of a stored content."""
        path = self.object(name, key)
        assert path is not None
        data = bytearray(path.read_bytes())
        data[0] ^= 1
        path.chmod(0o644)
        path.write_bytes(data)
        path.chmod(0o444)

    def run(self, *words: str, expect: int = 0) -> dict[str, object]:
        """``glimmer-store backfill run … --json``, to the end."""
        argv = [sys.executable, "-m", "glimmer_store.cli.app", "backfill", "run", "-C", str(self.dataset), "--json"]
        ended = subprocess.run([*argv, *words], capture_output=True, text=True, check=False)
        assert ended.returncode == expect, ended.stderr + ended.stdout
        told: dict[str, object] = json.loads(ended.stdout)
        return told


def git(path: Path, *words: str) -> str:
    """What git says."""
    return subprocess.run(["git", "-C", str(path), *words], capture_output=True, text=True, check=True).stdout


async def make_backfill(root: Path, contents: Iterable[tuple[bytes, str]], bares: str = "a b new") -> Backfill:
    """One with these (content, names of those that have it)."""
    made = Backfill(root)
    git(root, "init", "-q", "-b", "main", str(made.dataset))
    dataset = annex.Repository.init(made.dataset, bare=False, description="dataset")
    locals_: dict[str, annex.Local] = {}
    for name in bares.split():
        repository = annex.Repository.init(made.bare(name), bare=True, description=name)
        made.uuids[name] = repository.uuid
        locals_[name] = annex.Local(repository, durability="fast")
        git(made.dataset, "config", f"remote.{name}.url", str(made.bare(name)))
        git(made.dataset, "config", f"remote.{name}.fetch", f"+refs/heads/*:refs/remotes/{name}/*")
        git(made.dataset, "config", f"remote.{name}.annex-uuid", repository.uuid)
    for content, having in contents:
        key = annex.Key.parse(f"SHA256E-s{len(content)}--{hashlib.sha256(content).hexdigest()}.bin")
        made.keys.append(key)
        for name in having.split():
            async with locals_[name].put(key) as upload:
                await upload.start(len(content))
                await upload.write(content)
                await upload.finish()
            dataset.branch.set_present(key, made.uuids[name], True)
    for local in locals_.values():
        await local.aclose()
        local.repository.close()
    await dataset.branch.commit()
    dataset.close()
    return made


def many(number: int, seed: int = 1) -> Iterable[tuple[bytes, str]]:
    """Small contents: a third in a, a third in b, a third in both."""
    random_ = random.Random(seed)
    for one in range(number):
        yield b"%d " % one + random_.randbytes(random_.choice((0, 10, 300, 3000))), ("a", "b", "a b")[one % 3]
