"""A source whose bytes are counted as they come, so that limits and pauses hold from the next chunk on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import annexpy as annex

__all__ = ["Metered"]


class Metered:
    """Passes everything on to *remote*, and asks *spend* before each chunk of a content is handed on.

    Args:
        remote: Where the contents are.
        spend: Told the size of a chunk; may wait, and may raise to end the transfer.
    """

    def __init__(self, remote: annex.Remote, spend: Callable[[int], Awaitable[None]]) -> None:
        self._remote, self._spend = remote, spend

    @property
    def uuid(self) -> annex.UUID:
        return self._remote.uuid

    @property
    def name(self) -> str:
        return self._remote.name

    @property
    def cost(self) -> int:
        return self._remote.cost

    async def check_present(self, key: annex.Key) -> bool:
        return await self._remote.check_present(key)

    def lock_content(self, key: annex.Key) -> AbstractAsyncContextManager[annex.LockedCopy]:
        return self._remote.lock_content(key)

    async def remove_content(self, key: annex.Key, *, deadline: annex.Deadline | None = None) -> annex.Removed:
        raise annex.AccessDenied(f"{self.name}: a source gives nothing up")

    def put(self, key: annex.Key, *, associated_file: str = "") -> AbstractAsyncContextManager[annex.Upload]:
        raise annex.AccessDenied(f"{self.name}: a source takes nothing")

    @asynccontextmanager
    async def get(
        self, key: annex.Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AsyncIterator[annex.Download]:
        async with self._remote.get(key, offset=offset, end=end, associated_file=associated_file) as download:
            yield _Metered(download, self._spend)

    async def aclose(self) -> None:
        """It belongs to whoever opened it."""


class _Metered:
    def __init__(self, download: annex.Download, spend: Callable[[int], Awaitable[None]]) -> None:
        self._download, self._spend = download, spend
        self.length, self._left = download.length, download.length

    @property
    def source(self) -> annex.UUID:
        return self._download.source

    @property
    def valid(self) -> bool:
        return self._download.valid

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._download:
            await self._spend(len(chunk))
            yield chunk
