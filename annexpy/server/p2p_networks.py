"""A repository on P2P networks: what ``git annex remotedaemon`` does for ``p2p-annex::`` addresses.

For each address of ``git annex p2p --enable NETWORK`` there is a unix socket in ``annex/p2p``, and the program
``git-annex-p2p-NETWORK`` is told to bring to it whoever comes for that address. Who comes has to know a token of
``git annex p2p --gen-addresses``. The socket is open to its owner only, where git-annex lets everybody connect.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import anyio

from annexpy.errors import ConnectFailed
from annexpy.repo.p2p_networks import P2PAddress, is_token_of, own_addresses
from annexpy.repo.repository import Repository
from annexpy.server.limits import Authenticate, ServerMode
from annexpy.transport.base import Transport
from annexpy.transport.sockets import Listener, listen_unix
from annexpy.uuids import UUID

__all__ = ["authenticate_by_token", "serve_p2p_networks"]

log = logging.getLogger(__name__)

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_END_SECONDS: Final = 2.0
Answer = Callable[[Transport, Authenticate], Awaitable[object]]


def authenticate_by_token(repository: Repository, address: P2PAddress, mode: ServerMode) -> Authenticate:
    """Let in who knows a token of *address*; a token that is made or taken away later counts from then on."""

    async def authenticate(client: UUID, token: str) -> ServerMode | None:
        return mode if is_token_of(repository.files, address, token) else None

    return authenticate


async def serve_p2p_networks(
    repository: Repository,
    answer: Answer,
    mode: ServerMode,
    *,
    ready: Callable[[Sequence[P2PAddress]], None] = lambda _: None,
) -> None:
    """Listen for the addresses of *repository* and *answer* who comes, until cancelled.

    Args:
        repository: Whose addresses.
        answer: Takes a connection, and who judges its AUTH.
        mode: What who has a token may do.
        ready: Called once all sockets are there.

    Raises:
        ConnectFailed: There are no addresses, or somebody (``git annex remotedaemon``) serves them already.
    """
    addresses = own_addresses(repository.files)
    if not addresses:
        raise ConnectFailed("p2p", "no address of this repository; see: git annex p2p --enable NETWORK")
    async with AsyncExitStack() as stack:
        sockets: list[tuple[P2PAddress, Listener, str]] = []
        repository.files.make_folders(b"annex/p2p", 0o700)
        for address in addresses:
            path = _socket(repository, address)
            listener = await stack.enter_async_context(await listen_unix(path))
            sockets.append((address, listener, path))
        ready(addresses)
        async with anyio.create_task_group() as group:
            for address, listener, path in sockets:
                group.start_soon(_serve, listener, answer, authenticate_by_token(repository, address, mode))
                group.start_soon(_carry, address, _from(repository.path, path), repository.path)


def _socket(repository: Repository, address: P2PAddress) -> str:
    """Where the socket for *address* is, from here: paths of sockets must be short."""
    name = hashlib.md5(str(address).encode(), usedforsecurity=False).hexdigest()
    return min(path := os.path.join(os.fsdecode(repository.git_dir), "annex", "p2p", name), _from(".", path), key=len)


def _from(folder: str, path: str) -> str:
    return os.path.relpath(path, folder)


async def _serve(listener: Listener, answer: Answer, authenticate: Authenticate) -> None:
    await listener.serve(lambda transport: answer(transport, authenticate))


async def _carry(address: P2PAddress, path: str, folder: str) -> None:
    """Run the network's program, again when it ends, ever more rarely when that is at once."""
    pause = _FIRST_PAUSE
    while True:
        began = anyio.current_time()
        why = await _carried(address, path, folder)
        pause = _FIRST_PAUSE if anyio.current_time() - began > _LONGEST_PAUSE else min(pause * 2, _LONGEST_PAUSE)
        log.warning("%s: %s; again in %.0f s", address.program, why, pause)
        await anyio.sleep(pause)


async def _carried(address: P2PAddress, path: str, folder: str) -> str:
    try:
        process = await anyio.open_process(
            [*address.argv, path], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=None
        )
    except OSError as error:
        return error.strerror or str(error)
    try:
        return f"ended with status {await process.wait()}"
    finally:
        with anyio.CancelScope(shield=True):
            if process.returncode is None:
                process.terminate()
                with anyio.move_on_after(_END_SECONDS):
                    await process.wait()
            if process.returncode is None:
                process.kill()
            await process.aclose()
