"""Two repositories that the real git-annex makes, fills and, at the end, judges."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import git_annex

__all__ = ["agree", "git", "keys_of", "make_pair", "names_of"]


def git(*argv: str, cwd: Path, env: Mapping[str, str]) -> None:
    subprocess.run(argv, cwd=cwd, env=dict(env), check=True, capture_output=True, timeout=600)


def make_pair(base: Path, env: Mapping[str, str], *, files: int, size: int, nodes: int = 0) -> None:
    """``base/w`` with *files* annexed files and ``base/b.git``, its empty bare remote ``b``; made by git-annex.

    With *nodes*, ``b.git`` is the gateway of a cluster ``safe`` of so many bare repositories beside it.
    """
    work, bare = base / "w", base / "b.git"
    base.mkdir(parents=True)
    git("git", "init", "-q", str(work), cwd=base, env=env)
    git("git", "init", "-q", "--bare", str(bare), cwd=base, env=env)
    git(git_annex(), "init", "-q", "work", cwd=work, env=env)
    git(git_annex(), "init", "-q", "bare", cwd=bare, env=env)
    for name in names_of(nodes):
        node = base / f"{name}.git"
        git("git", "init", "-q", "--bare", str(node), cwd=base, env=env)
        git(git_annex(), "init", "-q", name, cwd=node, env=env)
        git("git", "remote", "add", name, str(node), cwd=bare, env=env)
        git("git", "config", f"remote.{name}.annex-cluster-node", "safe", cwd=bare, env=env)
    if nodes:
        git(git_annex(), "initcluster", "safe", cwd=bare, env=env)
        git(git_annex(), "updatecluster", cwd=bare, env=env)
    for number in range(files):
        folder = work / f"d{number // 500:03}"
        folder.mkdir(exist_ok=True)
        if size <= 1 << 20:
            (folder / f"f{number:06}.bin").write_bytes(os.urandom(size))
        else:
            with (folder / f"f{number:06}.bin").open("wb") as file:
                for _ in range(size >> 20):
                    file.write(os.urandom(1 << 20))
    git(git_annex(), "add", "-q", ".", cwd=work, env=env)
    git("git", "commit", "-qm", "files", cwd=work, env=env)
    git("git", "remote", "add", "b", "../b.git", cwd=work, env=env)
    # Both sides begin knowing each other's uuid and branch, with everything packed.
    git(git_annex(), "sync", "-q", "--no-content", "b", cwd=work, env=env)
    for repository in (work, bare):
        git("git", "gc", "-q", cwd=repository, env=env)


def names_of(nodes: int) -> list[str]:
    """What the nodes of a cluster of so many are called."""
    return [f"n{number}" for number in range(1, nodes + 1)]


def keys_of(work: Path, env: Mapping[str, str]) -> bytes:
    found = subprocess.run(
        [git_annex(), "find", "--anything", "--format=${key}\\n"],
        cwd=work,
        env=dict(env),
        capture_output=True,
        check=True,
    )
    return found.stdout


def agree(side: Path, env: Mapping[str, str], files: int, *, nodes: int = 0) -> None:
    """The real git-annex finds every file in all repositories and nothing to complain about."""
    holders = names_of(nodes) or ["b"]
    for repository in (side / "w", *(side / f"{name}.git" for name in holders)):
        checked = subprocess.run(
            [git_annex(), "fsck", "--all", "--quiet"],
            cwd=repository,
            env=dict(env),
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, (repository.name, checked.stderr[-2000:])
        everywhere = [f"--in=b-{name}" if nodes else f"--in={name}" for name in holders]
        held = subprocess.run(
            [git_annex(), "find", "--anything", "--in=here", *everywhere, "--format=.\n"]
            if repository.name == "w"
            else [git_annex(), "findkeys", "--in=here"],
            cwd=repository, env=dict(env), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert len(held.stdout.splitlines()) == files, (repository.name, len(held.stdout.splitlines()), files)
