"""Remotes around a Remote: one that passes everything on, to build others on, and those that refuse.

``recording``, ``traced`` and ``quota`` are others. Batches pass through as batches where the inner remote has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from annexpy.clock import Deadline
from annexpy.errors import AccessDenied
from annexpy.keys.key import Key
from annexpy.remote.base import (
    BatchRemove,
    Connects,
    Download,
    LockedCopy,
    Ranged,
    Remote,
    Removed,
    Upload,
    check_present_many,
)
from annexpy.remote.health import Limited, Patient
from annexpy.remote.possession import possession, proves
from annexpy.uuids import UUID

__all__ = ["AppendOnly", "ReadOnly", "Wrapper"]


class Wrapper:
    """Passes everything on to *remote*."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    @property
    def uuid(self) -> UUID:
        return self.remote.uuid

    @property
    def name(self) -> str:
        return self.remote.name

    @property
    def cost(self) -> int:
        return self.remote.cost

    @property
    def patience(self) -> float:
        """As in ``Patient``; 0 when the inner remote has nothing to say about that."""
        return self.remote.patience if isinstance(self.remote, Patient) else 0.0

    @property
    def transfers(self) -> int:
        """As in ``Limited``; plenty when the inner remote has nothing to say about that."""
        return self.remote.transfers if isinstance(self.remote, Limited) else 64

    @property
    def ranges(self) -> bool:
        """As in ``Ranged``."""
        return isinstance(self.remote, Ranged) and self.remote.ranges

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.remote!r})"

    async def connect(self) -> UUID:
        """The UUID, connecting to the inner remote when it has to, to know it."""
        return await self.remote.connect() if isinstance(self.remote, Connects) else self.remote.uuid

    async def check_present(self, key: Key) -> bool:
        return await self.remote.check_present(key)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        return await check_present_many(self.remote, keys)

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return self.remote.lock_content(key)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return await self.remote.remove_content(key, deadline=deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        if isinstance(self.remote, BatchRemove):
            return await self.remote.remove_content_many(keys, deadline=deadline)
        return [await self.remove_content(key, deadline=deadline) for key in keys]

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return self.remote.put(key, associated_file=associated_file)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        return self.remote.get(key, offset=offset, end=end, associated_file=associated_file)

    async def proves(self) -> bool:
        """As in ``Proves``."""
        return await proves(self.remote)

    async def prove(self, key: Key, nonce: bytes) -> bytes:
        """As in ``Proves``."""
        return await possession(self.remote, key, nonce)

    async def aclose(self) -> None:
        await self.remote.aclose()


class AppendOnly(Wrapper):
    """Takes content and never gives it up. Locking stays possible, as with git-annex."""

    def _no_removal(self) -> AccessDenied:
        return AccessDenied("this repository is append-only; removal denied")

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        raise self._no_removal()

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        raise self._no_removal()


class ReadOnly(AppendOnly):
    """Gives content, and never takes any or gives it up. Locking stays possible, as with git-annex."""

    def _no_removal(self) -> AccessDenied:
        return AccessDenied("this repository is read-only; write access denied")

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        raise self._no_removal()
