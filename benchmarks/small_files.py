"""Copy, drop, get and drop --from, locally, to servers and to clusters, with all that git-annex does around them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import TypeAlias

from benchmarks.harness import Figures, Row, annexpy, git_annex, run, run_beside, warm_pages
from benchmarks.references import hash_alone

__all__ = ["Serving", "agree", "git", "keys_of", "make_pair", "names_of", "small_files"]

Serving: TypeAlias = Callable[[Path, bool], AbstractContextManager[int]]
"""Folder of a side, and whether it is ours → the process of a server for ``b.git`` there, which ``w`` was told of."""


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


def small_files(
    base: Path,
    env: Mapping[str, str],
    *,
    files: int,
    pairs: int,
    kind: str,
    durability: str,
    targets: Mapping[str, float],
    size: int = 4096,
    url: str = "../b.git",
    config: Mapping[str, tuple[str, str]] | None = None,
    serving: Serving | None = None,
    server: int | None = None,
    nodes: int = 0,
    stock: bool = False,
) -> list[Row]:
    """The cycle copy → drop → get → drop --from, *pairs* times on either side, in turn.

    Args:
        base: New folder for everything.
        env: Environment of all commands.
        files: How many.
        pairs: How often.
        kind: What the rows are called.
        durability: Of our side.
        targets: Ratios wanted, by step.
        size: Bytes of a file.
        url: Where ``w`` finds ``b``; ``{base}`` is the folder of the side.
        config: More git configuration of ``w``: for their side and for ours.
        serving: Runs a server for a side, as long as it is entered.
        server: The process of one that is there already, for both sides.
        nodes: ``b`` is the gateway of a cluster of so many nodes, and the cluster is what is used.
        stock: The client is the real git-annex on both sides, and what is compared are the servers.
    """
    large = size > 1 << 20
    remote = "b-safe" if nodes else "b"
    rows = {
        name: Row(f"{kind}, {files} x {_human(size)}: {name}", files, targets.get(name), size * files if large else 0)
        for name in ("copy --to", "drop", "get", "drop --from")
    }
    theirs, ours = base / "theirs", base / "ours"
    make_pair(theirs, env, files=files, size=size, nodes=nodes)
    shutil.copytree(theirs, ours, symlinks=True)
    for side in (theirs, ours):
        git("git", "config", "remote.b.url", url.format(base=side), cwd=side / "w", env=env)
        for name, value in (config or {}).items():
            git("git", "config", name, value[side == ours], cwd=side / "w", env=env)
        for node in names_of(nodes):
            git("git", "config", f"remote.{node}.url", str(side / f"{node}.git"), cwd=side / "b.git", env=env)
    # What a server does is up to the repository: --durability is about the client's side.
    for name in ("b", *names_of(nodes)):
        git("git", "config", "annexpy.durability", durability, cwd=ours / f"{name}.git", env=env)
    keys = keys_of(theirs / "w", env)

    servers: dict[Path, int] = {} if server is None else {theirs: server, ours: server}

    def measured(argv: list[str], side: Path, stdin: bytes | None = None) -> Callable[[], Figures]:
        def once() -> Figures:
            if large:
                warm_pages(base, max(nodes, 2) * size * files)
            if side in servers:
                return run_beside(servers[side], argv, cwd=side / "w", env=env, stdin=stdin)
            return run(argv, cwd=side / "w", env=env, stdin=stdin)

        return once

    def annex(*words: str, side: Path = theirs) -> Callable[[], Figures]:
        return measured([git_annex(), *words, "-q"], side)

    def we(*words: str) -> Callable[[], Figures]:
        return measured([annexpy(), *words, "--batch", "--quiet", "--durability", durability], ours, keys)

    their_words = {
        "copy --to": ("copy", "--to", remote, "."),
        "drop": ("drop", "."),
        "get": ("get", "."),
        "drop --from": ("drop", "--from", remote, "."),
    }
    our_words = {
        "copy --to": ("copy", ".", remote),
        "drop": ("drop", ".", "--other", remote),
        "get": ("get", remote, "-C", "."),
        "drop --from": ("drop", remote, "--other", "."),
    }
    steps = {
        name: (annex(*words), annex(*words, side=ours) if stock else we(*our_words[name]))
        for name, words in their_words.items()
    }
    single = Row(f"{kind}: put to one | to {nodes}, both ours", files, 0.5, size * files if large else 0)
    with ExitStack() as stack:
        for side in (theirs, ours) if serving is not None else ():
            assert serving is not None
            servers[side] = stack.enter_context(serving(side, side == ours))
        for number in range(pairs):
            for name, (a, b) in steps.items():
                rows[name].pair(a, b, swap=bool(number % 2))
                if large and name in ("copy --to", "get"):
                    rows[name].alone.append(files * hash_alone(size))
            if nodes and not stock:
                single.pair(we("copy", ".", "b"), lambda: rows["copy --to"].ours[-1])
                we("drop", "b", "--other", ".")()
        # one more half cycle, so that there is something to agree on
        steps["copy --to"][1]()
    agree(ours, env, files, nodes=nodes)
    return [*rows.values(), *([single] if single.ours else [])]


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


def _human(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
