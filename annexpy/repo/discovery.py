"""Where the repository of a path is.

Source: gitrepository-layout(5), git(1) "GIT_DIR"; fact sheet repository-format, section 2.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass

from annexpy.errors import NotARepository
from annexpy.repo.config import GitConfig

__all__ = ["Place", "as_git_finds", "find_exactly", "find_repository", "is_git_dir"]


@dataclass(frozen=True, slots=True)
class Place:
    """The directories of one repository, absolute.

    Attributes:
        git_dir: Of the main repository.
        worktree_git_dir: Of this worktree; the same unless it is a linked one.
        top: Where ``.git`` was found; None when the path led to a git directory itself.
    """

    git_dir: bytes
    worktree_git_dir: bytes
    top: bytes | None

    def work_tree(self, config: GitConfig) -> bytes | None:
        """The top of the work tree; None when bare."""
        if self.top is not None and self.git_dir != self.worktree_git_dir:
            return self.top  # a worktree may belong to a bare repository
        if config.get_bool("core.bare", self.top is None and os.path.basename(self.git_dir) != b".git"):
            return None
        configured = config.get("core.worktree")
        if configured is not None:
            return os.path.normpath(os.path.join(self.git_dir, os.fsencode(configured)))
        if self.top is not None:
            return self.top
        return os.path.dirname(self.git_dir) if os.path.basename(self.git_dir) == b".git" else None


def find_repository(path: str) -> Place:
    """Look at *path* and at the directories above it.

    Raises:
        NotARepository: None of them is in a git repository.
    """
    here = start = os.path.abspath(os.fsencode(as_git_finds(path)))
    if not os.path.exists(start):
        raise NotARepository(path, "no such directory")
    _check_access(start)
    while True:
        found = _at(here)
        if found is not None:
            return found
        above = os.path.dirname(here)
        if above == here:
            raise NotARepository(path, "not in a git repository")
        here = above


def find_exactly(path: str) -> Place | None:
    """The repository whose top or git directory is *path* itself.

    Raises:
        NotARepository: What is there may not be looked at, or leads nowhere.
    """
    here = os.path.abspath(os.fsencode(path))
    _check_access(here)
    return _at(here)


def _check_access(folder: bytes) -> None:
    if os.path.isdir(folder) and not os.access(folder, os.X_OK):
        raise NotARepository(os.fsdecode(folder), os.strerror(errno.EACCES))


def as_git_finds(path: str) -> str:
    """*path*, or what has ``.git`` behind it where only that is there."""
    bare = path.rstrip("/") + ".git"
    return path if os.path.lexists(path) or not os.path.isdir(bare) else bare


def _at(here: bytes) -> Place | None:
    dot_git = here + b"/.git"
    if os.path.isdir(dot_git):
        if is_git_dir(dot_git):
            # git-annex turns the .git of a linked worktree into a symbolic link
            return _place(os.path.realpath(dot_git) if os.path.islink(dot_git) else dot_git, here)
    elif os.path.isfile(dot_git):
        line = _content(dot_git)  # the way to the repository, so not yet through Files
        if line.startswith(b"gitdir:"):
            target = os.path.normpath(os.path.join(here, line[7:].strip()))
            if is_git_dir(target):
                return _place(target, here)
            raise NotARepository(os.fsdecode(here), f".git leads to {os.fsdecode(target)}, which is no git directory")
    return _place(here, None) if is_git_dir(here) else None


def is_git_dir(path: bytes) -> bool:
    """*path* looks like a git directory to git."""
    if not os.path.lexists(path + b"/HEAD"):
        return False
    if os.path.isfile(path + b"/commondir"):
        return True
    return os.path.isdir(path + b"/objects") and os.path.isdir(path + b"/refs")


def _place(git_dir: bytes, top: bytes | None) -> Place:
    try:
        common = os.path.normpath(os.path.join(git_dir, _content(git_dir + b"/commondir")))
    except FileNotFoundError:
        return Place(git_dir, git_dir, top)
    if top is None:
        with suppress(FileNotFoundError):
            top = os.path.dirname(os.path.join(git_dir, _content(git_dir + b"/gitdir")))  # of that worktree's .git
    return Place(common, git_dir, top)


def _content(path: bytes) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read(65536).strip()
