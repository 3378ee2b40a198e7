"""What a gateway shows under a UUID, whatever that is at the moment of each request."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

from annexpy.errors import AnnexError, TransportError
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Upload
from annexpy.remote.cached import ReadsThrough
from annexpy.server.node_choice import Placing
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.repo.read_cache import ReadCache

__all__ = ["Current", "Gives"]


class Gives(Protocol):
    """What is asked of the gateway."""

    placing: Placing

    def now(self, uuid: UUID, bypass: tuple[UUID, ...]) -> Remote: ...

    def records(self, uuid: UUID, key: Key) -> bool: ...

    def cache_of(self, uuid: UUID) -> ReadCache | None: ...

    def is_near(self, uuid: UUID) -> bool: ...

    async def settle(self, keys: Iterable[Key]) -> None: ...


class Current(ReadsThrough):
    """What a UUID is at the moment of each request."""

    def __init__(self, gateway: Gives, uuid: UUID, bypass: tuple[UUID, ...]) -> None:
        self._gateway, self._uuid, self._bypass = gateway, uuid, bypass

    @property
    def remote(self) -> Remote:  # type: ignore[override]  # the wrapper's is an attribute, and so it looks
        return self._gateway.now(self._uuid, self._bypass)

    @property
    def uuid(self) -> UUID:
        return self._uuid

    async def check_present(self, key: Key) -> bool:
        """As the cluster; but nodes that are away and not recorded to have it do not keep the others from saying no.

        Stock clients ask before they put.
        """
        try:
            return await self.remote.check_present(key)
        except TransportError:
            if self._gateway.records(self._uuid, key):
                raise
            return False

    def cache(self, key: Key) -> ReadCache | None:
        cache = self._gateway.cache_of(self._uuid)
        return cache if cache is not None and self._gateway.records(self._uuid, key) else None

    def is_near(self, uuid: UUID) -> bool:
        return self._gateway.is_near(uuid)

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return self._gateway.placing.counted(key, super().put(key, associated_file=associated_file))

    async def before_removal(self, keys: Sequence[Key]) -> None:
        await self._gateway.settle(keys)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        try:
            return await super().check_present_many(keys)
        except TransportError:
            return [await self.check_present(key) for key in keys]

    @property
    def cost(self) -> int:
        try:
            return self.remote.cost
        except AnnexError:  # gone from the configuration, as the request is about to find out
            return 200
