"""CONNECT and NOTIFYCHANGE of a repository: git over the wire, and word of what has changed in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import anyio
import anyio.abc

from annexpy.errors import AnnexError
from annexpy.repo.refs import Refs
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.server.gateway import Gateway
from annexpy.server.git_process import RunningGit, make_visible, take_in
from annexpy.server.judged_push import judged_push
from annexpy.uuids import UUID

__all__ = ["RepositoryServices", "WatchedRefs"]

_OFTEN: Final = 0.25
"""Seconds between two looks at the refs, for all sessions together."""


class WatchedRefs:
    """The branches of a repository as they are, at most a quarter of a second old; shared between sessions.

    Attributes:
        repository: Whose. Closing it is its owner's business.
    """

    def __init__(self, repository: Repository) -> None:
        self.repository = repository
        self._refs = Refs(repository.files, Lockdown())
        self._looked = float("-inf")
        self._last: dict[bytes, bytes] = {}

    def look(self) -> dict[bytes, bytes]:
        """Branch → commit. Do not change it."""
        now = anyio.current_time()
        if now - self._looked >= _OFTEN * 0.9:
            self._last = self._refs.heads()
            self._looked = now
        return self._last


class RepositoryServices:
    """``Services`` of one session.

    The session remembers what it has told, so that nothing is missed between two NOTIFYCHANGE of it.
    """

    def __init__(
        self, watched: WatchedRefs, *, uuids: frozenset[UUID] | None = None, gateway: Gateway | None = None
    ) -> None:
        """Offer git and news of the repository whose branches are *watched*.

        Args:
            watched: Shared between sessions.
            uuids: For which a push may speak, as for ``judged_push``.
            gateway: Of the repository, where it is one.
        """
        self._repository, self._watched = watched.repository, watched
        self._uuids, self._gateway = uuids, gateway
        self._told: dict[bytes, bytes] | None = None

    async def connect(
        self, service: bytes, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]
    ) -> int:
        """Run git; what is journalled is in the branch before, and what was pushed beside it is merged afterwards."""
        await make_visible(self._repository)
        path = self._repository.path
        if service != b"git-receive-pack":
            return await _run(RunningGit(["git", service.decode().removeprefix("git-"), path], ""), receive, send)
        place = self._repository if self._gateway is None else self._gateway
        try:
            async with judged_push(path, place, self._uuids) as (words, variables):
                pushed = RunningGit(["git", *words, "receive-pack", path], "", environment=variables)
                return await _run(pushed, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await take_in(self._repository)

    async def changed(self) -> tuple[bytes, ...]:
        """The commits that branches have now and had not when this session last heard of them."""
        if self._told is None:
            self._told = self._watched.look()
        while (now := self._watched.look()) == self._told:  # noqa: ASYNC110  # nobody tells us; git writes files
            await anyio.sleep(_OFTEN)
        before, self._told = self._told, now
        return tuple(dict.fromkeys(sha for ref, sha in now.items() if before.get(ref) != sha))


async def _run(
    running: RunningGit, receive: Callable[[], Awaitable[bytes]], send: Callable[[bytes], Awaitable[None]]
) -> int:
    lost: list[AnnexError] = []

    async def feed(stdin: anyio.abc.ByteSendStream) -> None:
        try:
            while piece := await receive():
                await stdin.send(piece)
            await stdin.aclose()
        except AnnexError as error:
            lost.append(error)
            await stdin.aclose()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass  # git has heard enough; what it says tells why

    async with running as process:
        assert process.stdin is not None
        assert process.stdout is not None
        async with anyio.create_task_group() as group:
            group.start_soon(feed, process.stdin)
            try:
                async for piece in process.stdout:
                    await send(piece)
            except AnnexError as error:
                lost.append(error)
                process.kill()
            code = await process.wait()
            group.cancel_scope.cancel()
    if lost:
        raise lost[0]
    return code if code >= 0 else 128 - code
