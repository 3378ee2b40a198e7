"""``annexpy-shell p2pstdio`` for another UUID than the repository's own: a node or a cluster behind it."""

from __future__ import annotations

import logging
import os
import sys
from functools import partial

import anyio

from annexpy.errors import AnnexError, ProtocolError
from annexpy.repo.lock_quota import SharedLockQuota
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.server.direct import open_repository
from annexpy.server.gateway import Gateway
from annexpy.server.limits import PER_CLIENT, PER_CROWD
from annexpy.server.refusal import Refusal
from annexpy.server.serve import serve
from annexpy.server.stdio import PATIENCE, mode_of_environment
from annexpy.transport.pipe import stdio
from annexpy.uuids import UUID, parse_uuid

__all__ = ["check_known", "serve_proxied"]


def check_known(directory: str, uuid: str, own: str) -> None:
    """See that the repository at *directory* is a proxy for *uuid*.

    Raises:
        Refusal: It is not, or cannot be served.
    """
    with open_repository(directory) as repository:
        _check(Gateway(repository), uuid, own)


def _check(gateway: Gateway, uuid: str, own: str) -> UUID:
    try:
        if gateway.knows(wanted := parse_uuid(uuid)):
            return wanted
    except AnnexError as error:
        raise Refusal(str(error)) from error
    raise Refusal(f"expected repository UUID {uuid} but found UUID {own}")


def serve_proxied(directory: str, uuid: str, own: str, *, client: str, debug: bool) -> int:
    """Serve *uuid* on stdin and stdout.

    Args:
        directory: The gateway.
        uuid: Who is asked for.
        own: The gateway's own UUID.
        client: UUID of the client.
        debug: Show every message on stderr.

    Returns:
        Exit code.

    Raises:
        Refusal: The gateway is no proxy for it; nothing was said.
    """
    if debug:
        logging.basicConfig(stream=sys.stderr, level=logging.DEBUG, format="[%(asctime)s] (%(name)s) %(message)s")
    with open_repository(directory) as repository:
        durability: Durability = "fast" if repository.config.get("annexpy.durability") == "fast" else "full"
        gateway = Gateway(repository, durability=durability, client=parse_uuid(client))
        wanted = _check(gateway, uuid, own)
        try:
            ended = anyio.run(partial(_serve, repository, gateway, wanted, client), backend="asyncio")
        except AnnexError as error:
            ended = error
    if ended is None:
        return 0
    text = "protocol error" if isinstance(ended, ProtocolError) else str(ended)
    sys.stderr.write(f"git-annex: {text}\np2pstdio: 1 failed\n")
    return 1


async def _serve(repository: Repository, gateway: Gateway, uuid: UUID, client: str) -> AnnexError | None:
    async with gateway:
        ended = await serve(
            stdio(),
            gateway.shown(uuid),
            mode=mode_of_environment(),
            client=client,
            who=os.environ.get("ANNEXPY_NAME", ""),
            deadlines=PATIENCE,
            locks=SharedLockQuota(repository, limit=PER_CLIENT, crowd=PER_CROWD),
            bypass=gateway.bypassing(uuid),
            clock=repository.clock,
            on_idle=gateway.commit,
        )
        await gateway.commit()
        await gateway.linger()
    return ended
