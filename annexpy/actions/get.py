"""Get: bring a content from a remote to a file or into another remote, resuming what is there.

``relay`` is the heart of get, copy and move: one remote's download feeds another one's upload, chunk by
chunk, so nothing is ever stored in between and memory does not grow with the content.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from annexpy.actions.attempts import transferred
from annexpy.actions.destination import FilePlace
from annexpy.actions.results import Progress, Transfer, Verified, verified_by
from annexpy.errors import IncompleteTransfer, InvalidInput
from annexpy.keys.key import Key
from annexpy.remote.base import Download, Remote, Stored, Upload, found
from annexpy.remote.local_content import LocalDownload

__all__ = ["chunks_of", "from_any", "get", "relay"]

Copy: TypeAlias = Callable[[LocalDownload, Callable[[int], None] | None], Awaitable[None]]
"""``LocalUpload.copy``, which those that wrap one hand on."""


async def get(
    source: Remote | Sequence[Remote],
    key: Key,
    destination: str | os.PathLike[str] | Remote,
    *,
    associated_file: str = "",
    progress: Progress | None = None,
    durable: bool = True,
) -> Transfer:
    """Bring the content of *key* from *source* to *destination*.

    It is verified while it streams and appears at the destination whole or not at all. What arrived before
    an interruption stays there, and the next get goes on from it.

    Args:
        source: One remote, or several that may have it: the cheapest that answers is read, and when it
            breaks off in the middle another one goes on (keys with a verifiable hash).
        key: What to get.
        destination: A path, replaced when it exists; or a remote, such as a ``Local``.
        associated_file: A hint for whoever chooses among nodes.
        progress: Told how much of the content is at the destination.
        durable: For a path: it is on disk when this returns.

    Raises:
        KeyNotPresent: No source has it.
        VerificationFailed: What came, twice, was not the content of *key*.
        AnnexError: Whatever else either side has against it.
    """
    result = await relay(
        from_any(source), key, _entrance(destination, key, associated_file, durable), associated_file, progress
    )
    if result.error is not None:
        raise result.error
    return result


def from_any(source: Remote | Sequence[Remote]) -> Remote:
    """*source* as one remote; several take turns and stand in for each other."""
    if not isinstance(source, Sequence):
        return source
    if not source:
        raise InvalidInput("source", source, "at least one remote")
    if len(source) == 1:
        return source[0]
    from annexpy.remote.cluster import Cluster

    return Cluster(source, name=", ".join(remote.name for remote in source))


class chunks_of:
    """A context: the chunks of *download*. A generator among them is closed on leaving, not when it is collected."""

    __slots__ = ("_chunks",)

    def __init__(self, download: Download) -> None:
        self._chunks = aiter(download)

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self._chunks

    async def __aexit__(self, *_: object) -> None:
        if isinstance(self._chunks, AsyncGenerator):
            await self._chunks.aclose()


def _entrance(
    destination: str | os.PathLike[str] | Remote, key: Key, associated_file: str, durable: bool
) -> Callable[[], AbstractAsyncContextManager[Upload]]:
    if isinstance(destination, str | os.PathLike):
        place = FilePlace(destination, durable=durable)
        return lambda: place.put(key)
    return lambda: destination.put(key, associated_file=associated_file)


async def relay(
    source: Remote,
    key: Key,
    entrance: Callable[[], AbstractAsyncContextManager[Upload]],
    associated_file: str = "",
    progress: Progress | None = None,
) -> Transfer:
    """Move one content. What goes wrong is in the result.

    When a resumed partial turns out to be no prefix of the content, the whole is fetched again, once.
    """
    return await transferred(
        key, lambda: _Relaying(source, key, associated_file, progress), lambda relaying: relaying.into(entrance)
    )


class _Relaying:
    """One attempt."""

    __slots__ = ("_associated_file", "_key", "_progress", "_source", "_total", "moved", "offset", "verified")

    def __init__(self, source: Remote, key: Key, associated_file: str, progress: Progress | None) -> None:
        self._source, self._key, self._associated_file, self._progress = source, key, associated_file, progress
        self.offset = self.moved = self._total = 0
        self.verified = Verified.NOT

    async def into(self, entrance: Callable[[], AbstractAsyncContextManager[Upload]]) -> Stored:
        key = self._key
        async with entrance() as upload:
            if upload.already is not None:
                if key.size is not None:
                    self._report(key.size, key.size)
                return found(upload)
            self.offset = upload.offset
            if key.size is not None and self.offset > key.size:
                await upload.start(0)  # the far side finds its partial wrong, and throws it away
                return await upload.finish()
            async with self._source.get(key, offset=self.offset, associated_file=self._associated_file) as download:
                await self._pass_on(download, upload)
                # Inside, so that the sender hears whether what it sent was good.
                stored = await upload.finish(download.valid)
                self.verified = verified_by(key)
                return stored

    async def _pass_on(self, download: Download, upload: Upload) -> None:
        key, length = self._key, download.length
        if key.size is not None and self.offset + length != key.size:
            raise IncompleteTransfer(key, self.offset + length, key.size, self._source.name)
        self._total = self.offset + length
        await upload.start(length)
        self._report(self.offset, self._total)
        copy: Copy | None = getattr(upload, "copy", None)
        if copy is not None and isinstance(download, LocalDownload):
            await copy(download, self._moved)
            return
        async with chunks_of(download) as chunks:
            async for chunk in chunks:
                await upload.write(chunk)
                self._moved(len(chunk))

    def _moved(self, more: int) -> None:
        self.moved += more
        self._report(self.offset + self.moved, self._total)

    def _report(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(self._key, done, total)
