"""A wrapper that tells the log of every request and its outcome."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TypeVar

from annexpy.clock import Deadline
from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.remote.base import BatchRemove, Download, LockedCopy, Removed, Stored, Upload, check_present_many, found
from annexpy.remote.wrappers import Wrapper
from annexpy.uuids import UUID

__all__ = ["Traced"]

log = logging.getLogger(__name__)
T = TypeVar("T")


class Traced(Wrapper):
    """Logs every request and its outcome at DEBUG: keys, lengths, UUIDs and reasons, never content."""

    async def check_present(self, key: Key) -> bool:
        return await self.told("CHECKPRESENT", key, self.remote.check_present(key))

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        return await self.told("CHECKPRESENT", f"{len(keys)} keys", check_present_many(self.remote, keys))

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return _Traced(
            self, "LOCKCONTENT", key, self.remote.lock_content(key), lambda lock: f"until {lock.expires:.0f}"
        )

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        until = "" if deadline is None else f" before {deadline.at:.0f}"
        return await self.told(f"REMOVE{until}", key, self.remote.remove_content(key, deadline=deadline))

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        removal = super().remove_content_many(keys, deadline=deadline)
        return (
            await self.told("REMOVE", f"{len(keys)} keys", removal)
            if isinstance(self.remote, BatchRemove)
            else await removal
        )

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        inner = self.remote.put(key, associated_file=associated_file)
        return _TracedPut(self, "PUT", key, inner, _wanted)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        inner = self.remote.get(key, offset=offset, end=end, associated_file=associated_file)
        return _Traced(
            self, f"GET {offset}", key, inner, lambda download: f"{download.length} bytes from {download.source}"
        )

    async def told(self, verb: str, key: object, answer: Awaitable[T]) -> T:
        self.tell(">", verb, key)
        try:
            given = await answer
        except AnnexError as error:
            self.tell("<", verb, error)
            raise
        self.tell("<", verb, given)
        return given

    def tell(self, direction: str, verb: str, what: object) -> None:
        log.debug("%s %s %s %s", self.name, direction, verb, ascii(str(what))[1:-1])


class _Traced(AbstractAsyncContextManager[T]):
    """Tells how a context was entered and left."""

    def __init__(
        self, traced: Traced, verb: str, key: Key, inner: AbstractAsyncContextManager[T], shown: Callable[[T], str]
    ) -> None:
        self._traced, self._verb, self._key, self._inner, self._shown = traced, verb, key, inner, shown

    async def __aenter__(self) -> T:
        self._traced.tell(">", self._verb, self._key)
        try:
            entered = await self._inner.__aenter__()
        except AnnexError as error:
            self._traced.tell("<", self._verb, error)
            raise
        self._traced.tell("<", self._verb, self._shown(entered))
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._traced.tell(">", f"end of {self._verb}", "" if error is None else repr(error))
        return await self._inner.__aexit__(kind, error, traceback)


class _TracedPut(_Traced[Upload]):
    async def __aenter__(self) -> Upload:
        return _TracedUpload(self._traced, await super().__aenter__())


class _TracedUpload:
    __slots__ = ("_traced", "_upload", "already", "offset", "write")

    def __init__(self, traced: Traced, upload: Upload) -> None:
        self._traced, self._upload = traced, upload
        self.already, self.offset, self.write = upload.already, upload.offset, upload.write

    @property
    def failed(self) -> Mapping[UUID, AnnexError]:
        return found(self._upload).failed

    async def start(self, length: int) -> None:
        self._traced.tell(">", "DATA", length)
        await self._upload.start(length)

    async def finish(self, valid: bool = True) -> Stored:
        return await self._traced.told("VALID" if valid else "INVALID", "", self._upload.finish(valid))

    async def data_present(self) -> Stored:
        return await self._traced.told("DATA-PRESENT", "", self._upload.data_present())


def _wanted(upload: Upload) -> str:
    return f"from {upload.offset}" if upload.already is None else f"already in {', '.join(sorted(upload.already))}"
