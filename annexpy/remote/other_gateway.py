"""Another gateway of the same cluster, as a node of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol, runtime_checkable

from anyio import create_task_group

from annexpy.abilities import Ability
from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ContentError, LocalProtocolError
from annexpy.keys.key import Key
from annexpy.remote.base import BatchRemove, Remote, Removed, Stored, Upload
from annexpy.remote.wrappers import Wrapper
from annexpy.uuids import UUID, is_cluster

__all__ = ["Relayed", "patience"]

_SLOWER: Final = 1.2
_ON_TOP: Final = 3.5
"""Seconds to connect, and to close a connection that hangs, which a child or ssh has two for."""


def patience(deadline: float, depth: int) -> float:
    """Seconds after which a gateway is dead that waits *deadline* seconds for a node, *depth* gateways away.

    Each gateway gets what the next one may need to find out that a node is dead, and what it costs to connect.
    """
    seconds = deadline
    for _ in range(depth):
        seconds = seconds * _SLOWER + _ON_TOP
    return seconds


class Relayed(Wrapper):
    """The nodes behind another gateway.

    When it answers a put with who has the content already, each of those is asked before it counts.

    Attributes:
        place: The gateway itself, which errors are told of: what it shows has the UUID of the cluster.
        members: Who is reached through it, as far as is known.
    """

    def __init__(
        self, remote: Remote, place: UUID, members: frozenset[UUID], patience: float, node: Callable[[UUID], Remote]
    ) -> None:
        """*node* gives one of the members, as it is reached through this gateway."""
        super().__init__(remote)
        self.place, self.members, self._patience, self._node = place, members, patience, node

    @property
    def patience(self) -> float:
        return self._patience

    def __reduce__(self) -> tuple[object, ...]:
        return Relayed, (self.remote, self.place, self.members, self._patience, self._node)

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return self._put(key, associated_file)

    @asynccontextmanager
    async def _put(self, key: Key, associated_file: str) -> AsyncIterator[Upload]:
        async with self.remote.put(key, associated_file=associated_file) as upload:
            if upload.already is None:
                yield upload
                return
            claimed = upload.claimed if isinstance(upload, _Claims) else frozenset[UUID]()
            named = frozenset(uuid for uuid in upload.already | claimed if not is_cluster(uuid)) & self.members
            found = await self._found(key, named or self.members)
            if not found:
                raise ContentError(
                    key, self.name, "it claims that a node has the content and none was found to have it"
                )
            yield _Found(found)

    async def _found(self, key: Key, named: frozenset[UUID]) -> frozenset[UUID]:
        """Those of *named* that have it, each asked for itself."""
        found: set[UUID] = set()

        async def ask(uuid: UUID) -> None:
            try:
                if await self._node(uuid).check_present(key):
                    found.add(uuid)
            except AnnexError:
                return  # it cannot say, so it does not count

        async with create_task_group() as group:
            for uuid in named:
                group.start_soon(ask, uuid)
        return frozenset(found)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return self._told(await self.remote.remove_content(key, deadline=deadline))

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        if isinstance(self.remote, BatchRemove):
            removed = await self.remote.remove_content_many(keys, deadline=deadline)
            return [self._told(one) for one in removed]
        return [await self.remove_content(key, deadline=deadline) for key in keys]

    def _told(self, removed: Removed) -> Removed:
        """Failures of "the cluster" are those of the gateway: ours has the same UUID."""
        if not any(map(is_cluster, removed.failed)):
            return removed
        failed = {self.place if is_cluster(uuid) else uuid: error for uuid, error in removed.failed.items()}
        return Removed(removed.ok, removed.uuids, failed)


@runtime_checkable
class _Claims(Protocol, metaclass=Ability):
    @property
    def claimed(self) -> frozenset[UUID]: ...


class _Found:
    """The ``Upload`` of a content that is there."""

    offset = 0

    def __init__(self, already: frozenset[UUID]) -> None:
        self.already = already

    async def start(self, length: int) -> None:
        raise LocalProtocolError("content was announced that is already there")

    async def write(self, data: bytes) -> None:
        raise LocalProtocolError("content was sent that is already there")

    async def finish(self, valid: bool = True) -> Stored:
        raise LocalProtocolError("the end of content that is already there")

    async def data_present(self) -> Stored:
        return Stored(already=self.already)
