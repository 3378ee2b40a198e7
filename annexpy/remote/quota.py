"""A repository on this machine that may hold so many bytes of content, and no more.

What lies on the disk counts, and what is on its way there; not what logs say, because whoever may push could say in
them that there is room. Others than this process are seen when it counts again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final

import anyio
from anyio import to_thread

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, InvalidInput, NoSpace
from annexpy.keys.key import Key
from annexpy.remote.base import Removed, Stored, Upload, found
from annexpy.remote.local import Local
from annexpy.remote.wrappers import Wrapper
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

__all__ = ["WithinQuota", "quota_of"]

log = logging.getLogger(__name__)

_RECOUNT: Final = 30.0
"""Seconds between two counts of a repository that seems to be full: somebody else may have removed something."""


def quota_of(repository: Repository) -> int | None:
    """``annexpy.quota``, as it is set now: bytes of content that may be held; what does not parse lets nothing come."""
    try:
        repository.config.refresh()
        return repository.config.get_size("annexpy.quota")
    except InvalidInput as error:
        log.warning("%s: %s", repository.path, error)
        return 0


class WithinQuota(Wrapper):
    """Passes everything on, but for contents that would not fit in any more: these get ``NoSpace`` before they come."""

    def __init__(self, local: Local, limit: Callable[[], int | None]) -> None:
        """Watch *local*.

        Args:
            local: The repository.
            limit: Gives bytes, or None for no limit; asked at each put.
        """
        super().__init__(local)
        self._local, self._limit = local, limit
        self._held = self._coming = 0
        self._counted: float | None = None
        self._counting = anyio.Lock()

    async def held(self) -> int:
        """Bytes of content that are here, as far as this process knows."""
        async with self._counting:
            if self._counted is None:
                await self._count()
        return self._held

    async def _count(self) -> None:
        self._held = await to_thread.run_sync(self._sum)
        self._counted = self._local.repository.clock.now()

    def _sum(self) -> int:
        store = self._local.store
        here = store.keys()
        return sum(store.size(key) or 0 for key in here)

    async def take(self, key: Key, more: int) -> None:
        """Let *more* bytes come.

        Raises:
            NoSpace: They would not fit.
        """
        limit = self._limit()
        if limit is not None and await self.held() + self._coming + more > limit:
            async with self._counting:
                assert self._counted is not None
                if self._local.repository.clock.now() - self._counted >= _RECOUNT:
                    await self._count()
            if (free := limit - self._held - self._coming) < more:
                raise NoSpace(key, self.name, more, max(0, free), said=f"the quota is {limit} bytes")
        self._coming += more

    def came(self, size: int, *, stays: bool) -> None:
        """*size* of the bytes that were to come are here, or will not come any more."""
        self._coming -= size
        if stays:
            self._held += size

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return _Put(self, key, self.remote.put(key, associated_file=associated_file))

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return (await self.remove_content_many((key,), deadline=deadline))[0]

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        sizes = [self._local.store.size(key) or 0 for key in keys]
        removed = await super().remove_content_many(keys, deadline=deadline)
        if self._counted is not None:
            self._held -= sum(size for size, one in zip(sizes, removed, strict=True) if one.ok)
        return removed


class _Put(AbstractAsyncContextManager[Upload]):
    __slots__ = ("_inner", "_key", "_quota", "_upload")

    def __init__(self, quota: WithinQuota, key: Key, inner: AbstractAsyncContextManager[Upload]) -> None:
        self._quota, self._key, self._inner = quota, key, inner
        self._upload: _Upload | None = None

    async def __aenter__(self) -> Upload:
        upload = await self._inner.__aenter__()
        self._upload = _Upload(self._quota, self._key, upload)
        try:
            if upload.already is None and self._key.size is not None:
                await self._upload.reserve(self._key.size)
        except BaseException as error:
            await self._inner.__aexit__(type(error), error, error.__traceback__)
            raise
        return self._upload

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        try:
            return await self._inner.__aexit__(kind, error, traceback)
        finally:
            assert self._upload is not None
            self._upload.leave()


class _Upload:
    __slots__ = ("_key", "_quota", "_reserved", "_upload", "already", "offset", "write")

    def __init__(self, quota: WithinQuota, key: Key, upload: Upload) -> None:
        self._quota, self._key, self._upload = quota, key, upload
        self._reserved = 0
        self.already, self.offset, self.write = upload.already, upload.offset, upload.write

    @property
    def failed(self) -> Mapping[UUID, AnnexError]:
        return found(self._upload).failed

    async def reserve(self, size: int) -> None:
        await self._quota.take(self._key, size)
        self._reserved = size

    def leave(self, *, stored: bool = False) -> None:
        size, self._reserved = self._reserved, 0
        self._quota.came(size, stays=stored)

    async def start(self, length: int) -> None:
        if self._key.size is None:
            await self.reserve(self.offset + length)
        await self._upload.start(length)

    async def finish(self, valid: bool = True) -> Stored:
        stored = await self._upload.finish(valid)
        self.leave(stored=bool(stored.uuids))
        return stored

    async def data_present(self) -> Stored:
        stored = await self._upload.data_present()
        self.leave(stored=bool(stored.uuids))
        return stored
