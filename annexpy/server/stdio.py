"""The rest of ``annexpy-shell``: what it does with a repository, once it may take its time to import."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial

import anyio
import anyio._backends._asyncio  # anyio would import it when it runs, in the client's time

from annexpy.errors import AnnexError, InvalidKey, NotARepository, ProtocolError
from annexpy.keys.key import Key
from annexpy.p2p.connection import Connection, Role, State
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.server.limits import Deadlines, ServerMode
from annexpy.server.serve import serve
from annexpy.server.shell import Refusal
from annexpy.transport.pipe import stdio
from annexpy.uuids import parse_uuid

__all__ = ["commit_records", "find_uuid", "in_annex", "mode_of_environment", "serve_stdio"]

log = logging.getLogger(__name__)

_PATIENCE = Deadlines.never()
"""Whoever started us (sshd, a parent) ends us when the client is gone; stock clients fall silent for hours."""


def mode_of_environment() -> ServerMode:
    """What ``GIT_ANNEX_SHELL_READONLY`` and ``…_APPENDONLY`` allow. Any value but the empty one counts."""
    if os.environ.get("GIT_ANNEX_SHELL_READONLY"):
        return ServerMode.READ_ONLY
    if os.environ.get("GIT_ANNEX_SHELL_APPENDONLY"):
        return ServerMode.APPEND_ONLY
    return ServerMode.WRITE


def serve_stdio(directory: str, *, client: str, version: int, prefix: bytes, debug: bool) -> int:
    """Serve the repository at *directory* on stdin and stdout; AUTH-SUCCESS has been said.

    Args:
        directory: Where it is.
        client: UUID of the client.
        version: What has been agreed on.
        prefix: What was read from stdin already.
        debug: Show every message on stderr.

    Returns:
        Exit code.
    """
    if debug:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="[%(asctime)s] (%(name)s) %(message)s")
    try:
        ended = anyio.run(partial(_serve, directory, client, version, prefix), backend="asyncio")
    except AnnexError as error:
        ended = error
    if ended is None:
        return 0
    text = "protocol error" if isinstance(ended, ProtocolError) else str(ended)
    sys.stderr.write(f"git-annex: {text}\np2pstdio: 1 failed\n")
    return 1


async def _serve(directory: str, client: str, version: int, prefix: bytes) -> AnnexError | None:
    transport = stdio(prefix)
    with Repository.open(directory) as repository:
        durability: Durability = "fast" if repository.config.get("annexpy.durability") == "fast" else "full"
        remote = Local(repository, durability=durability, client=parse_uuid(client))
        connection = Connection(Role.SERVER, state=State.IDLE, version=version)
        try:
            return await serve(
                transport,
                remote,
                mode=mode_of_environment(),
                connection=connection,
                client=client,
                deadlines=_PATIENCE,
                clock=repository.clock,
                on_idle=repository.branch.commit,
            )
        finally:
            with anyio.CancelScope(shield=True):
                await _close(remote, repository)


async def _close(remote: Local, repository: Repository) -> None:
    """Commit what was recorded. What cannot be committed now is in the journal, and the next one takes it along."""
    try:
        await remote.aclose()
        await repository.branch.commit()
    except AnnexError as error:
        log.warning("%s: %s", repository.path, error)


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
