"""A node that is asked for by itself: one that hangs costs one deadline a minute, as in a cluster.

Nobody else can answer for it, so it gets more time than a node of a cluster. Stock clients wait for ever, and ask
node after node before they drop, two questions each: what nobody refuses here hangs there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, TypeVar

from annexpy.clock import Clock, Deadline
from annexpy.keys.key import Key
from annexpy.remote.ask_nodes import answer_within
from annexpy.remote.base import Download, LockedCopy, Remote, Removed, Upload
from annexpy.remote.health import Node, Usage, not_asked
from annexpy.remote.wrappers import Wrapper

__all__ = ["Lone"]

T = TypeVar("T")

_LONGER: Final = 4.0
"""Times the deadline that a node of a cluster has."""


class Lone(Wrapper):
    """*remote*, with a deadline for questions; and while it is down, everything is refused without asking it.

    Contents, removals and questions by the batch have the remote's own deadlines: they may take long.
    """

    def __init__(self, remote: Remote, clock: Clock, deadline: float, usage: Usage | None = None) -> None:
        """Ask *remote*.

        Args:
            remote: The node.
            clock: Time for its standing.
            deadline: Seconds that a node of a cluster would have for an answer.
            usage: What other processes know of it.
        """
        super().__init__(remote)
        self._node = Node(remote, clock, deadline * _LONGER, usage)

    def _check_up(self) -> None:
        if (error := self._node.down()) is not None:
            raise not_asked(self.name, error) from error

    async def check_present(self, key: Key) -> bool:
        self._check_up()
        return await answer_within(self._node, "answer to CHECKPRESENT", self.remote.check_present(key))

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        self._check_up()
        return await super().check_present_many(keys)

    @asynccontextmanager
    async def lock_content(self, key: Key) -> AsyncIterator[LockedCopy]:
        self._check_up()
        async with AsyncExitStack() as stack:
            lock = stack.enter_async_context(self.remote.lock_content(key))
            yield await answer_within(self._node, "answer to LOCKCONTENT", lock)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        self._check_up()
        return await super().remove_content(key, deadline=deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        self._check_up()
        return await super().remove_content_many(keys, deadline=deadline)

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return self._if_up(self.remote.put(key, associated_file=associated_file))

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        return self._if_up(self.remote.get(key, offset=offset, end=end, associated_file=associated_file))

    def _if_up(self, transfer: AbstractAsyncContextManager[T]) -> AbstractAsyncContextManager[T]:
        return transfer if self._node.error is None else self._checked(transfer)

    @asynccontextmanager
    async def _checked(self, transfer: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
        self._check_up()
        async with transfer as entered:
            yield entered
