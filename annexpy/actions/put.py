"""Put: send a file, bytes or a stream to a remote, which proves size and hash before it says that it has it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from anyio import Semaphore

from annexpy.actions.attempts import transferred
from annexpy.actions.many import Each
from annexpy.actions.results import Progress, Transfer, Verified, verified_by
from annexpy.actions.sources import INLINE, Content, File, Source, opened
from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored, Upload, found
from annexpy.remote.kinds import is_local

__all__ = ["put", "put_many"]

Take: TypeAlias = Callable[[File, Callable[[int], None]], Awaitable[None]]

_JOBS: Final = 16


async def put(
    remote: Remote, key: Key, source: Source, *, associated_file: str = "", progress: Progress | None = None
) -> Stored:
    """Store *source* as the content of *key*.

    A partial that the remote has is resumed. When it turns out not to be a prefix of *source*, the whole is
    sent again, once; of several nodes, to those where that was so. Cancelled or cut off, the remote keeps what
    arrived, so that the next put resumes.

    Args:
        remote: Where to.
        key: The key of *source* (``key_of``): the far side compares them.
        source: A path (links are followed), the content, or a stream of all of it.
        associated_file: Path in the work tree, a hint for preferred content.
        progress: Told how much of the content the remote has.

    Returns:
        Who has it now, one by one. For a cluster some may have failed all the same.

    Raises:
        ContentChanged: *source* has another size, or changed while it was sent and was not stored.
        VerificationFailed: *source* is not the content of *key*.
        InvalidPath: *source* cannot be read.
        AnnexError: Whatever else the remote has against it.
    """
    result = await _put(remote, key, source, associated_file, progress)
    if result.error is not None:
        raise result.error
    return result.stored


def put_many(
    remote: Remote,
    items: Iterable[tuple[Key, Source]] | AsyncIterable[tuple[Key, Source]],
    *,
    jobs: int = _JOBS,
    progress: Progress | None = None,
) -> Each[tuple[Key, Source], Transfer]:
    """``put`` for many keys, *jobs* of them at a time; each result as it comes.

    One that fails does not stop the others. A path is also the associated file. Into a repository on this machine
    three times as many small ones go at a time: they wait for the disk together.

    Args:
        remote: Where to.
        items: Keys, and where the content of each is; taken as there is room for them.
        jobs: How many at a time.
        progress: Told of every transfer while bytes move.
    """
    slots = Semaphore(jobs) if jobs > 1 and is_local(remote) else None

    async def work(item: tuple[Key, Source]) -> Transfer:
        key, source = item
        file = source if isinstance(source, str) else ""
        if slots is None or (key.size is not None and key.size <= INLINE):
            return await _put(remote, key, source, file, progress)
        async with slots:
            return await _put(remote, key, source, file, progress)

    return Each(items, work, jobs=jobs if slots is None else 3 * jobs, same=lambda item: item[0])


async def _put(remote: Remote, key: Key, source: Source, associated_file: str, progress: Progress | None) -> Transfer:
    """As ``put``; what goes wrong is in the result."""
    again = not isinstance(source, AsyncIterable)  # a stream can be read once
    try:
        with opened(source, key) as content:
            return await transferred(
                key,
                lambda: _Sending(key, content, progress),
                lambda sending: sending.to(remote, associated_file),
                again=again,
            )
    except AnnexError as error:
        return Transfer(key, Stored(), error)


class _Sending:
    """One attempt."""

    __slots__ = ("_content", "_key", "_progress", "moved", "offset", "verified")

    def __init__(self, key: Key, content: Content, progress: Progress | None) -> None:
        self._key, self._content, self._progress = key, content, progress
        self.offset = self.moved = 0
        self.verified = Verified.NOT

    async def to(self, remote: Remote, associated_file: str) -> Stored:
        async with remote.put(self._key, associated_file=associated_file) as upload:
            if upload.already is not None:
                self._report(self._content.size)
                return found(upload)
            return await self._send(upload)

    async def _send(self, upload: Upload) -> Stored:
        content = self._content
        self.offset = upload.offset
        # A partial longer than the content: nothing to send, and the far side will find it wrong.
        await upload.start(max(0, content.size - self.offset))
        self._report(min(self.offset, content.size))
        take: Take | None = getattr(upload, "take", None)  # as ``LocalUpload`` has it
        if take is not None and isinstance(content, File) and content.size > INLINE:
            await take(content, self._moved)  # no byte passes the event loop
        else:
            while chunk := await content.read(self.offset + self.moved):
                await upload.write(chunk)
                self._moved(len(chunk))
        stored = await upload.finish(not content.changed())
        self.verified = verified_by(self._key)
        return stored

    def _moved(self, more: int) -> None:
        self.moved += more
        self._report(self.offset + self.moved)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._progress(self._key, done, self._content.size)
