"""The repository that a command works in, or its configuration, where there is one."""

from __future__ import annotations

from annexpy.cli.options import Options
from annexpy.errors import NotARepository
from annexpy.repo.config import GitConfig
from annexpy.repo.discovery import find_repository
from annexpy.repo.files import DiskFiles
from annexpy.repo.repository import Repository

__all__ = ["config_around", "repository_around"]


def repository_around(options: Options) -> Repository | None:
    """What -C names, or the repository around the current directory; None outside of any.

    Raises:
        NotARepository: What -C names is none.
    """
    if options.repository is not None:
        return Repository.open(options.repository)
    try:
        return Repository.open(options.place)
    except NotARepository:
        return None


def config_around(options: Options) -> GitConfig | None:
    """The configuration of the git repository there, an annex or not; as ``repository_around`` else."""
    try:
        place = find_repository(options.place)
    except NotARepository:
        if options.repository is not None:
            raise
        return None
    files = DiskFiles(place.git_dir)
    try:
        return GitConfig(files, git_dir=place.worktree_git_dir)
    finally:
        files.close()
