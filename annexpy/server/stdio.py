"""The rest of ``annexpy-shell p2pstdio``: the server, on stdin and stdout."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial

import anyio
import anyio._backends._asyncio  # anyio would import it when it runs, in the client's time

from annexpy.errors import AnnexError
from annexpy.p2p.connection import Connection, Role, State
from annexpy.p2p.messages import SUCCESS
from annexpy.remote.base import Remote
from annexpy.remote.local import Local
from annexpy.repo.lock_quota import SharedLockQuota
from annexpy.repo.repository import Repository
from annexpy.server.direct import complain, durability_of
from annexpy.server.limits import PER_CLIENT, PER_CROWD, Deadlines, ServerMode
from annexpy.server.serve import serve
from annexpy.transport.pipe import stdio
from annexpy.uuids import parse_uuid

__all__ = ["PATIENCE", "mode_of_environment", "serve_stdio"]

log = logging.getLogger(__name__)

PATIENCE = Deadlines.never()
"""Whoever started us (sshd, a parent) ends us when the client is gone; stock clients fall silent for hours."""


def mode_of_environment() -> ServerMode:
    """What ``GIT_ANNEX_SHELL_READONLY`` and ``…_APPENDONLY`` allow. Any value but the empty one counts."""
    if os.environ.get("GIT_ANNEX_SHELL_READONLY"):
        return ServerMode.READ_ONLY
    if os.environ.get("GIT_ANNEX_SHELL_APPENDONLY"):
        return ServerMode.APPEND_ONLY
    return ServerMode.WRITE


def serve_stdio(
    repository: Repository, *, client: str, version: int, prefix: bytes, locked: bytes = b"", debug: bool = False
) -> int:
    """Serve *repository* on stdin and stdout, and close it; AUTH-SUCCESS has been said.

    Args:
        repository: What to serve.
        client: UUID of the client.
        version: What has been agreed on.
        prefix: What was read from stdin already.
        locked: A LOCKCONTENT that was answered with SUCCESS, where the client goes on with something else than the end
            of that lock.
        debug: Show every message on stderr.

    Returns:
        Exit code.
    """
    if debug:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="[%(asctime)s] (%(name)s) %(message)s")
    try:
        ended = anyio.run(partial(_serve, repository, client, version, prefix, locked), backend="asyncio")
    except AnnexError as error:
        ended = error
    return 0 if ended is None else complain(ended)


async def _serve(repository: Repository, client: str, version: int, prefix: bytes, locked: bytes) -> AnnexError | None:
    remote = Local(repository, durability=durability_of(repository), client=parse_uuid(client))
    connection = Connection(Role.SERVER, state=State.IDLE, version=version)
    if locked:
        connection.receive_data(locked)
        connection.next_event()
        connection.send(SUCCESS)
    try:
        return await serve(
            stdio(prefix),
            _shown(remote, repository),
            mode=mode_of_environment(),
            connection=connection,
            client=client,
            who=os.environ.get("ANNEXPY_NAME", ""),
            deadlines=PATIENCE,
            locks=SharedLockQuota(repository, limit=PER_CLIENT, crowd=PER_CROWD),
            clock=repository.clock,
            on_idle=repository.branch.commit,
        )
    finally:
        with anyio.CancelScope(shield=True):
            await _close(remote, repository)
        repository.close()


def _shown(local: Local, repository: Repository) -> Remote:
    """*local*, held to its quota where it has one: most have none, and need not wait for the import."""
    if repository.config.get("annexpy.quota") is None:
        return local
    from annexpy.remote.quota import WithinQuota, quota_of

    return WithinQuota(local, partial(quota_of, repository))


async def _close(remote: Local, repository: Repository) -> None:
    """Commit what was recorded. What cannot be committed now is in the journal, and the next one takes it along."""
    try:
        await remote.aclose()
        await repository.branch.commit()
    except AnnexError as error:
        log.warning("%s: %s", repository.path, error)
