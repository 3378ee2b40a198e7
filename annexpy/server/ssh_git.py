"""git for a client of the ssh server: fetches for everybody, pushes for who may, and judged for who may not do all."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import anyio
import anyio.abc

from annexpy.errors import TransportError
from annexpy.server.gateway import Gateway
from annexpy.server.git_process import RunningGit, git_protocol
from annexpy.server.judged_push import judged_push
from annexpy.server.limits import READ_ONLY_TEXT, ServerMode
from annexpy.server.refusal import Refusal
from annexpy.server.ssh_session import SSHSession
from annexpy.transport.base import CHUNK

__all__ = ["push", "relay"]

_NONE: Final[Mapping[str, str]] = MappingProxyType({})


async def push(session: SSHSession, directory: str, gateway: Gateway | None) -> int:
    """Run ``git receive-pack`` in *directory*, as the client's rights allow; its exit code.

    Args:
        session: Whose push it is.
        directory: The repository.
        gateway: The same, if it is one of git-annex.

    Raises:
        Refusal: They may not push.
        AccessDenied, ConnectFailed: It cannot be judged.
    """
    rights = session.rights
    if rights.mode is ServerMode.READ_ONLY:
        raise Refusal(READ_ONLY_TEXT)
    append_only = rights.mode is ServerMode.APPEND_ONLY
    async with judged_push(directory, gateway, rights.uuids, append_only=append_only) as (words, variables):
        return await relay(session, [*words, "receive-pack", directory], variables)


async def relay(session: SSHSession, words: list[str], variables: Mapping[str, str] = _NONE) -> int:
    """Run git with these *words* on the other end of *session*; its exit code."""
    argv = ["git", *words]
    protocol = git_protocol(session.environment(b"GIT_PROTOCOL"))
    lost: list[TransportError] = []
    async with RunningGit(argv, protocol, heard=True, environment=variables) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        async with anyio.create_task_group() as group:
            group.start_soon(_feed, session, process)
            async with anyio.create_task_group() as saying:
                saying.start_soon(_complain, session, process.stderr)
                saying.start_soon(_say, session, process, lost)
            code = await process.wait()
            group.cancel_scope.cancel()
    if lost:
        raise lost[0]
    return code if code >= 0 else 128 - code


async def _say(session: SSHSession, process: anyio.abc.Process, lost: list[TransportError]) -> None:
    assert process.stdout is not None
    try:
        async for piece in process.stdout:
            await session.send(piece)
    except TransportError as error:
        lost.append(error)
        process.kill()


async def _feed(session: SSHSession, process: anyio.abc.Process) -> None:
    assert process.stdin is not None
    try:
        while piece := await session.receive(CHUNK):
            await process.stdin.send(piece)
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # git has heard enough; what it says tells why


async def _complain(session: SSHSession, stderr: anyio.abc.ByteReceiveStream) -> None:
    async for piece in stderr:
        session.complain(piece)
