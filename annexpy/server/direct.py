"""What ``annexpy-shell`` does with a repository without an event loop, so without importing one."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable

from annexpy.errors import AnnexError, InvalidKey, NotARepository, ProtocolError
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.server.at_once import Locking, answer_at_once
from annexpy.server.refusal import Refusal

__all__ = ["begin", "commit_records", "complain", "durability_of", "find_uuid", "in_annex", "open_repository"]

log = logging.getLogger(__name__)


def open_repository(directory: str) -> Repository:
    """The repository at *directory*.

    Raises:
        Refusal: It cannot be served.
    """
    try:
        return Repository.open(directory)
    except NotARepository as error:
        raise Refusal("Not a git-annex or gcrypt repository.") from error
    except AnnexError as error:
        raise Refusal(str(error)) from error


def begin(
    repository: Repository, client: str, said: bytes, ready: Callable[[], bool], *, alone: bool
) -> tuple[bytes | None, bytes]:
    """Begin a session on stdin and stdout, as ``answer_at_once``.

    Locks are for who is *alone*: what they need is imported here, and two threads that import what imports each other
    can wait for each other for ever (CPython 3.11).
    """
    store = repository.content_store(durability=durability_of(repository))

    def locking() -> Locking:
        from annexpy.repo.lock_quota import SharedLockQuota  # most sessions lock nothing
        from annexpy.server.limits import PER_CLIENT, PER_CROWD

        quota = SharedLockQuota(repository, limit=PER_CLIENT, crowd=PER_CROWD)
        return Locking(store, quota, client, os.environ.get("ANNEXPY_NAME", ""))

    return answer_at_once(store, said, ready, locking if alone else None)


def complain(error: AnnexError) -> int:
    """Say on stderr why a session ended; the exit code for that."""
    text = "protocol error" if isinstance(error, ProtocolError) else str(error)
    sys.stderr.write(f"git-annex: {text}\np2pstdio: 1 failed\n")
    return 1


def durability_of(repository: Repository) -> Durability:
    """What a session of its own process promises."""
    return "fast" if repository.config.get("annexpy.durability") == "fast" else "full"


def find_uuid(directory: str, *, wanted: bool, read_only: bool) -> str:
    """``annex.uuid`` of the repository at *directory*, "" when it has none.

    A git repository into which a git-annex branch was pushed is made an annex, as git-annex-shell does.

    Args:
        directory: Where it is, or a directory below.
        wanted: Make any git repository an annex.
        read_only: Make nothing.

    Raises:
        Refusal: It cannot be served.
    """
    try:
        with Repository.open(directory) as repository:
            return repository.uuid
    except NotARepository:
        pass
    except AnnexError as error:
        raise Refusal(str(error)) from error
    if not (wanted or _has_branch(directory)):
        return ""
    if read_only:
        raise Refusal("Action blocked by GIT_ANNEX_SHELL_READONLY")
    try:
        with Repository.init(directory) as repository:
            return repository.uuid
    except AnnexError as error:
        raise Refusal(str(error)) from error


def _has_branch(directory: str) -> bool:
    for folder in (directory, os.path.join(directory, ".git")):
        if os.path.exists(os.path.join(folder, "refs/heads/git-annex")):
            return True
        try:
            with open(os.path.join(folder, "packed-refs"), "rb") as file:
                return b" refs/heads/git-annex\n" in file.read()
        except OSError:
            continue
    return False


def in_annex(directory: str, names: list[str]) -> int:
    """0 when all of these keys are present, 1 when one is not, 100 when one is just being removed."""
    with Repository.open(directory) as repository:
        for name in names:
            try:
                key = Key.parse(os.fsencode(name))
            except InvalidKey as error:
                raise Refusal("bad key") from error
            try:
                present = repository.content.present(key)
            except AnnexError as error:
                raise Refusal(str(error), 100) from error
            if not present:
                return 1
            if _being_removed(repository, key):
                return 100
    return 0


def _being_removed(repository: Repository, key: Key) -> bool:
    """Somebody has the exclusive lock on the content."""
    path = repository.content.path(key)
    if path is None:
        return True
    try:
        fd = repository.files.open_write(path + b".lck", create=False)
    except OSError:
        return False  # nobody has locked it, or we may not know
    try:
        return not repository.files.try_lock(fd, exclusive=False)
    finally:
        repository.files.close_fd(fd)


def commit_records(directory: str) -> None:
    """Bring what waits in the journal into the git-annex branch, so that git shows it."""
    try:
        with Repository.open(directory) as repository:
            if repository.writable:
                repository.branch.commit_now()
    except AnnexError as error:
        log.warning("%s: %s", directory, error)
