"""The repository that a command works in, where there is one."""

from __future__ import annotations

from annexpy.cli.options import Options
from annexpy.errors import NotARepository
from annexpy.repo.repository import Repository

__all__ = ["repository_around"]


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
