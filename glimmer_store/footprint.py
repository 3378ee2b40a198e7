"""What there is below a folder: repositories, files in none of them, history, contents. Nothing is changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import annexpy as annex
from glimmer_store.gates import git

__all__ = ["Found", "ahead", "around", "has_commit", "held", "refs", "uncommitted", "walk"]


@dataclass(slots=True)
class Found:
    """What is below a folder: repositories with a work tree, bare ones, files in none, and what cannot be read."""

    repositories: list[Path] = field(default_factory=list)
    bares: list[Path] = field(default_factory=list)
    loose: list[Path] = field(default_factory=list)
    unreadable: list[Path] = field(default_factory=list)


def around(top: Path) -> Path | None:
    """The repository that *top* is a folder of."""
    return next((folder for folder in top.parents if (folder / ".git").exists()), None)


def walk(top: Path) -> Found:
    """What is below *top*. Links are not followed; a bare repository is looked at as a whole."""
    found = Found()

    def note(error: OSError) -> None:
        found.unreadable.append(Path(error.filename))

    for name, folders, files in os.walk(top, onerror=note):
        folder = Path(name)
        if {"HEAD", "objects", "refs"} <= {*folders, *files} and folder.name != ".git":
            found.bares.append(folder)
            folders.clear()
            continue
        if ".git" in folders or ".git" in files:
            found.repositories.append(folder)
            folders[:] = [one for one in folders if one != ".git"]
            found.repositories += [nested for nested in _nested(folder) if nested not in found.repositories]
            folders.clear()
            continue
        paths = [folder / file for file in files]
        found.loose += [p for p in paths if not p.is_symlink() and p.is_file() and p.stat().st_size]
    return found


def _nested(root: Path) -> Iterator[Path]:
    """Repositories in the work tree of another."""
    for name, folders, files in os.walk(root):
        if Path(name) != root and (".git" in folders or ".git" in files):
            yield Path(name)
        folders[:] = [one for one in folders if one != ".git"]


def uncommitted(root: Path) -> list[Path]:
    """Files with something in them that no commit has as they are, but for what git ignores."""
    said = git(root, "status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames")
    found = []
    for entry in filter(None, said.split(b"\0")):
        path = root / os.fsdecode(entry[3:])
        gone = not path.is_symlink() and not path.exists()
        if gone or path.is_symlink() or (path.is_file() and path.stat().st_size):
            found.append(path)
    return found


def refs(root: Path) -> dict[str, str]:
    """Branches, tags, what is stashed, and a detached HEAD, with what they point to."""
    lines = git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags", "refs/stash")
    found = dict(line.rsplit(" ", 1) for line in lines.decode(errors="surrogateescape").splitlines())
    head = git(root, "rev-parse", "--verify", "--quiet", "HEAD", check=False).decode().strip()
    if head and head not in found.values():
        found["HEAD"] = head
    return found


def has_commit(root: Path, commit: str) -> bool:
    """The repository *root* has *commit*."""
    return git(root, "cat-file", "-t", commit, check=False).strip() in (b"commit", b"tag")


def ahead(root: Path, commit: str, there: set[str]) -> int:
    """How many commits lead from what is *there* to *commit*."""
    if commit in there:
        return 0
    known = git(root, "cat-file", "--batch-check", given="".join(f"{one}\n" for one in sorted(there)).encode())
    usable = [line.split(b" ")[0].decode() for line in known.splitlines() if line.split(b" ")[1] in (b"commit", b"tag")]
    given = "\n".join([commit, *(f"^{one}" for one in usable), ""]).encode()
    return int(git(root, "rev-list", "--count", "--stdin", given=given))


def held(git_dir: Path) -> list[annex.Key]:
    """The keys of which the repository has the content."""
    keys = []
    for name, _, files in os.walk(git_dir / "annex" / "objects"):
        folder = os.path.basename(name)
        if folder in files:
            plain = folder.replace("%", "/").replace("&c", ":").replace("&s", "%").replace("&a", "&")  # in this order
            keys.append(annex.Key.parse(os.fsencode(plain)))
    return keys
