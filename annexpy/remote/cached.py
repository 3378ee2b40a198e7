"""Reading through a cache: what it has comes from there, and what it has not goes into it as it passes.

Nothing but ``get`` knows of it. What comes from the cache is verified as it is sent, when all of it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from anyio import to_thread

from annexpy.clock import Deadline
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Download, Removed
from annexpy.remote.wrappers import Wrapper
from annexpy.repo.settings import INLINE
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.repo.read_cache import CachedContent, Filling, ReadCache

__all__ = ["ReadsThrough"]

_PIECE: Final = 256 * 1024


class ReadsThrough(Wrapper, ABC):
    """A remote that is read through a cache, where there is one."""

    @abstractmethod
    def cache(self, key: Key) -> ReadCache | None:
        """Where to look for *key*; None: nowhere."""

    @abstractmethod
    def is_near(self, uuid: UUID) -> bool:
        """What a repository has costs no more than what the cache has."""

    async def before_removal(self, keys: Sequence[Key]) -> None:
        """End whatever could bring *keys* back after they were removed."""

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        get = partial(super().get, key, offset=offset, end=end, associated_file=associated_file)
        cache = self.cache(key)
        if cache is None:
            return get()
        return _reading_through(
            cache, key, offset, end, get, shown=self.uuid, worth=lambda uuid: not self.is_near(uuid)
        )

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        await self.before_removal((key,))
        self._forget((key,))
        return await super().remove_content(key, deadline=deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        await self.before_removal(keys)
        self._forget(keys)
        return await super().remove_content_many(keys, deadline=deadline)

    def _forget(self, keys: Sequence[Key]) -> None:
        for key in keys:
            cache = self.cache(key)
            if cache is not None:
                cache.forget(key)


@asynccontextmanager
async def _reading_through(
    cache: ReadCache,
    key: Key,
    offset: int,
    end: int | None,
    get: Callable[[], AbstractAsyncContextManager[Download]],
    *,
    shown: UUID,
    worth: Callable[[UUID], bool],
) -> AsyncIterator[Download]:
    """As the context that *get* makes.

    Args:
        cache: Where to look first.
        key: Which content.
        offset: From this byte on.
        end: Up to, and without, this one.
        get: Asks those who have it.
        shown: The source that is named when it comes from the cache.
        worth: Whether what a repository has is worth being kept here.
    """
    content = cache.open(key)
    if content is not None:
        download = _Cached(cache, key, content, shown, offset, content.size if end is None else min(end, content.size))
        try:
            yield download
        finally:
            content.close()
        return
    async with get() as asked:
        filling = cache.fill(key) if offset == 0 and end is None and worth(asked.source) else None
        if filling is None:
            yield asked
            return
        passing = _Passing(asked, filling)
        try:
            yield passing
        finally:
            passing.leave()


class _Cached:
    """``Download`` of a cached content."""

    def __init__(self, cache: ReadCache, key: Key, content: CachedContent, source: UUID, offset: int, end: int) -> None:
        self._cache, self._key, self._content = cache, key, content
        self._offset, self._end = offset, end
        self.source = source
        self.valid = True

    @property
    def length(self) -> int:
        return max(0, self._end - self._offset)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        hashing = verifier(self._key) if self.length == self._content.size else None
        offset = self._offset
        while offset < self._end:
            size = min(_PIECE, self._end - offset)
            if self.length <= INLINE:
                piece = self._content.read(size, offset)
            else:
                piece = await to_thread.run_sync(self._content.read, size, offset)
            if hashing is not None:
                hashing.update(piece)
            if len(piece) < size:
                self.valid = False
                piece = piece.ljust(size, b"\0")
            offset += size
            if offset >= self._end and hashing is not None and not hashing.matches():
                self.valid = False  # it has rotted
            yield piece
        if not self.valid:
            self._cache.forget(self._key)


class _Passing:
    """``Download`` of which the cache hears."""

    def __init__(self, asked: Download, filling: Filling) -> None:
        self._asked = asked
        self._filling: Filling | None = filling

    @property
    def length(self) -> int:
        return self._asked.length

    @property
    def source(self) -> UUID:
        return self._asked.source

    @property
    def valid(self) -> bool:
        return self._asked.valid

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._asked:
            if self._filling is not None:
                self._filling.write(piece)
            yield piece
        filling, self._filling = self._filling, None
        if filling is not None:
            if self._asked.valid:
                filling.finish()
            else:
                filling.leave()

    def leave(self) -> None:
        """Nobody reads on."""
        filling, self._filling = self._filling, None
        if filling is not None:
            filling.leave()
