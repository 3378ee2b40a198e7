"""A new bare repository gets everything and all of it is read back: by us in one job, by git-annex in two commands."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.harness import Figures, Row, annexpy, git_annex, run, run_beside, warm_pages
from benchmarks.repositories import git, make_pair

__all__ = ["TARGET", "backfill"]

TARGET = 5.0


def backfill(
    base: Path,
    env: Mapping[str, str],
    *,
    files: int,
    pairs: int,
    kind: str,
    size: int = 4096,
    url: str = "{path}",
    config: Mapping[str, tuple[str, str]] | None = None,
    server: int | None = None,
) -> list[Row]:
    """A backfill with re-reading, then a verification of the same copies, *pairs* times on either side, in turn.

    On the left ``git annex copy --auto --to`` with ``git annex fsck --from``, and that fsck alone; on the right
    ``glimmer-store backfill run``, as a backfill and as a verification, with planning, the process that reads back,
    signed attestations and their commit.

    Args:
        base: New folder for everything.
        env: Environment of all commands.
        files: How many.
        pairs: How often.
        kind: What the rows are called.
        size: Bytes of a file.
        url: Where the destination is found; ``{path}`` is its folder.
        config: More git configuration of the dataset, for their side and for ours; ``{name}`` is the destination.
        server: The process of a server that serves both sides.
    """
    large = size > 1 << 20
    label = f"{size >> 20} MiB" if large else f"{size >> 10} KiB"
    moved = size * files if large else 0
    # one content that is read at the speed of SHA-256 on either side leaves nothing to win but the copy
    both = Row(f"{kind}, {files} x {label}: backfill, reread", files, None if large else TARGET, moved)
    again = Row(f"{kind}, {files} x {label}: verify", files, None, moved)
    theirs, ours = base / "theirs", base / "ours"
    make_pair(theirs, env, files=files, size=size)
    shutil.copytree(theirs, ours, symlinks=True)

    def timed(argv: list[str], side: Path) -> Figures:
        if large:
            warm_pages(base, 2 * moved)
        if server is not None:
            return run_beside(server, argv, cwd=side / "w", env=env)
        return run(argv, cwd=side / "w", env=env)

    def annex(*words: str) -> Callable[[], Figures]:
        return lambda: timed([git_annex(), *words, "-q"], theirs)

    def job(type_: str, name: str) -> Callable[[], Figures]:
        argv = [annexpy("glimmer-store"), "backfill", "run", "--type", type_, "--to", name, "--from", "here"]
        return lambda: timed([*argv, "--json"], ours)

    for number in range(pairs):
        name = f"new{number}"
        for side in (theirs, ours):
            _add_destination(side, name, url, config or {}, env, ours=side == ours)
        copy, fsck = annex("copy", "--auto", "--to", name, "."), annex("fsck", "--from", name, ".")
        both.pair(lambda a=copy, b=fsck: _sum(a(), b()), job("backfill", name), swap=bool(number % 2))  # type: ignore[misc]
        again.pair(fsck, job("verify", name), swap=bool(number % 2))
        _agree(ours, name, env, files)
    return [both, again]


def _sum(one: Figures, other: Figures) -> Figures:
    return Figures(one.wall + other.wall, one.cpu + other.cpu, max(one.rss, other.rss))


def _add_destination(
    side: Path, name: str, url: str, config: Mapping[str, tuple[str, str]], env: Mapping[str, str], *, ours: bool
) -> None:
    """An empty bare repository that both know of, and that wants everything, so that ``--auto`` copies it."""
    path, work = side / f"{name}.git", side / "w"
    git("git", "init", "-q", "--bare", str(path), cwd=side, env=env)
    git(git_annex(), "init", "-q", name, cwd=path, env=env)
    git("git", "config", "annexpy.durability", "fast", cwd=path, env=env)
    git("git", "remote", "add", name, url.format(path=path), cwd=work, env=env)
    for option, value in config.items():
        git("git", "config", option.format(name=name), value[ours], cwd=work, env=env)
    git(git_annex(), "wanted", name, "anything", cwd=work, env=env)
    git(git_annex(), "sync", "-q", "--no-content", name, cwd=work, env=env)


def _agree(side: Path, name: str, env: Mapping[str, str], files: int) -> None:
    """The real git-annex finds nothing that is missing, and nothing to complain about."""
    for argv, cwd in (
        (["findkeys", "--not", "--in", name], side / "w"),
        (["fsck", "--all", "--quiet"], side / f"{name}.git"),
    ):
        ended = subprocess.run([git_annex(), *argv], cwd=cwd, env=dict(env), capture_output=True, text=True, check=True)
        assert ended.stdout == "", (argv, ended.stdout[:500])
    there = subprocess.run(
        [git_annex(), "findkeys", "--in", "here"],
        cwd=side / f"{name}.git", env=dict(env), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(there.stdout.splitlines()) == files
