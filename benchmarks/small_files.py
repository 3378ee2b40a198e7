"""Small files: copy, drop, get and drop --from, locally and over ssh, with all that git-annex does around them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.harness import Figures, Row, annexpy, git_annex, run, warm_pages
from benchmarks.references import hash_alone

__all__ = ["agree", "keys_of", "make_pair", "small_files"]


def _git(*argv: str, cwd: Path, env: Mapping[str, str]) -> None:
    subprocess.run(argv, cwd=cwd, env=dict(env), check=True, capture_output=True, timeout=600)


def make_pair(base: Path, env: Mapping[str, str], *, files: int, size: int, url: str = "../b.git") -> None:
    """``base/w`` with *files* annexed files and ``base/b.git``, its empty bare remote ``b``; made by git-annex."""
    work, bare = base / "w", base / "b.git"
    base.mkdir(parents=True)
    _git("git", "init", "-q", str(work), cwd=base, env=env)
    _git("git", "init", "-q", "--bare", str(bare), cwd=base, env=env)
    _git(git_annex(), "init", "-q", "work", cwd=work, env=env)
    _git(git_annex(), "init", "-q", "bare", cwd=bare, env=env)
    for number in range(files):
        folder = work / f"d{number // 500:03}"
        folder.mkdir(exist_ok=True)
        if size <= 1 << 20:
            (folder / f"f{number:06}.bin").write_bytes(os.urandom(size))
        else:
            with (folder / f"f{number:06}.bin").open("wb") as file:
                for _ in range(size >> 20):
                    file.write(os.urandom(1 << 20))
    _git(git_annex(), "add", "-q", ".", cwd=work, env=env)
    _git("git", "commit", "-qm", "files", cwd=work, env=env)
    _git("git", "remote", "add", "b", url, cwd=work, env=env)
    # Both sides begin knowing each other's uuid and branch, with everything packed.
    _git(git_annex(), "sync", "-q", "--no-content", "b", cwd=work, env=env)
    for repository in (work, bare):
        _git("git", "gc", "-q", cwd=repository, env=env)


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
    urls: tuple[str, str] = ("../b.git", "../b.git"),
    config: Mapping[str, tuple[str, str]] | None = None,
) -> list[Row]:
    """The cycle copy → drop → get → drop --from, *pairs* times on either side, in turn."""
    large = size > 1 << 20
    rows = {
        name: Row(f"{kind}, {files} x {_human(size)}: {name}", files, targets.get(name), size * files if large else 0)
        for name in ("copy --to", "drop", "get", "drop --from")
    }
    theirs, ours = base / "theirs", base / "ours"
    make_pair(theirs, env, files=files, size=size)
    shutil.copytree(theirs, ours, symlinks=True)
    for side, url in zip((theirs, ours), urls, strict=True):
        _git("git", "config", "remote.b.url", url.format(base=side), cwd=side / "w", env=env)
        for name, value in (config or {}).items():
            _git("git", "config", name, value[side == ours], cwd=side / "w", env=env)
    # What a server does is up to the repository: --durability is about the client's side.
    _git("git", "config", "annexpy.durability", durability, cwd=ours / "b.git", env=env)
    keys = keys_of(theirs / "w", env)

    def measured(argv: list[str], side: Path, stdin: bytes | None = None) -> Callable[[], Figures]:
        def once() -> Figures:
            if large:
                warm_pages(base, 2 * size * files)
            return run(argv, cwd=side / "w", env=env, stdin=stdin)

        return once

    def annex(*words: str) -> Callable[[], Figures]:
        return measured([git_annex(), *words, "-q"], theirs)

    def we(*words: str) -> Callable[[], Figures]:
        return measured([annexpy(), *words, "--batch", "--quiet", "--durability", durability], ours, keys)

    steps = {
        "copy --to": (annex("copy", "--to", "b", "."), we("copy", ".", "b")),
        "drop": (annex("drop", "."), we("drop", ".", "--other", "b")),
        "get": (annex("get", "."), we("get", "b", "-C", ".")),
        "drop --from": (annex("drop", "--from", "b", "."), we("drop", "b", "--other", ".")),
    }
    for number in range(pairs):
        for name, (a, b) in steps.items():
            rows[name].pair(a, b, swap=bool(number % 2))
            if large and name in ("copy --to", "get"):
                rows[name].alone.append(files * hash_alone(size))
    # one more half cycle, so that there is something to agree on
    steps["copy --to"][1]()
    agree(ours, env, files)
    return list(rows.values())


def agree(side: Path, env: Mapping[str, str], files: int) -> None:
    """The real git-annex finds every file in both repositories and nothing to complain about."""
    for repository in (side / "w", side / "b.git"):
        checked = subprocess.run(
            [git_annex(), "fsck", "--all", "--quiet"],
            cwd=repository,
            env=dict(env),
            capture_output=True,
            text=True,
            check=False,
        )
        assert checked.returncode == 0, (repository.name, checked.stderr[-2000:])
        held = subprocess.run(
            [git_annex(), "find", "--anything", "--in=here", "--and", "--in=b", "--format=.\\n"]
            if repository.name == "w"
            else [git_annex(), "findkeys", "--in=here"],
            cwd=repository, env=dict(env), capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert len(held.stdout.splitlines()) == files, (repository.name, len(held.stdout.splitlines()), files)


def _human(size: int) -> str:
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"
