"""The repository that a command works in, or its configuration, where there is one; all without an event loop."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from annexpy.cli.options import Options
from annexpy.errors import NotARepository, RepositoryError
from annexpy.repo.config import GitConfig
from annexpy.repo.discovery import find_repository
from annexpy.repo.files import DiskFiles
from annexpy.repo.repository import Repository

if TYPE_CHECKING:
    from annexpy.actions.repository_facts import RepositoryFacts

__all__ = ["config_around", "facts_around", "merge_fetched", "outside", "repository_around", "show_debug"]

_log = logging.getLogger(__name__)


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


def outside(options: Options) -> NotARepository:
    """For a command that needs a repository where there is none."""
    return NotARepository(options.repository or ".", "not in a git-annex repository; say which with -C REPO")


@contextmanager
def facts_around(options: Options) -> Iterator[RepositoryFacts]:
    """What the repository knows, all that was fetched or pushed to it included, for commands that only look at it.

    In the end what waits there is committed, as every command does: a process that died may have left it.

    Raises:
        NotARepository: There is none.
        LockHeld: Somebody kept the journal locked; nothing is lost.
    """
    from annexpy.actions.repository_facts import RepositoryFacts

    show_debug(options)
    repository = repository_around(options)
    if repository is None:
        raise outside(options)
    try:
        merge_fetched(repository)
        yield RepositoryFacts(repository)
        if repository.writable:
            repository.branch.commit_now()
    finally:
        repository.close()


def merge_fetched(repository: Repository) -> None:
    """Merge other refs named ``git-annex``, as git-annex does at the start of its commands.

    Whatever stands in the way is a warning: the command goes on with what the branch itself says.
    """
    if not repository.writable or not repository.config.get_bool("annex.merge-annex-branches", True):
        return  # read-only repositories are read together with what is not merged
    try:
        if repository.branch.unmerged():
            repository.branch.merge_now()
    except RepositoryError as error:
        _log.warning("%s", error)


def show_debug(options: Options) -> None:
    """Every protocol message on stderr, if that is wanted."""
    if options.debug:
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="[%(asctime)s] (%(name)s) %(message)s")
        logging.getLogger("annexpy").setLevel(logging.DEBUG)


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
