"""One get from many nodes: the next node takes over when one is dead, slow to answer, stale or cut off.

Before the first byte the source may be any node that answers. After it, only a key whose hash can be
verified may change nodes: of other keys (WORM, URL) two nodes may hold different bytes.

The first source is entered and left by the task that holds the get, as every context manager must
be. One that takes over in the middle cannot be: by then the holder may have opened a cancel scope of
its own, and ours would close out of order. So it lives in a task of its own, which owns its ``get()``
from enter to exit and hands the chunks over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf
from typing import Final

from anyio import CancelScope, create_task_group, current_time
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from annexpy.errors import (
    AnnexError,
    ConnectionLost,
    IncompleteTransfer,
    KeyNotPresent,
    NodesFailed,
    RemoteProtocolError,
    TimedOut,
)
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.remote.base import Download
from annexpy.remote.health import Node, reasons
from annexpy.remote.waiting import Waiting
from annexpy.uuids import UUID

__all__ = ["Candidates", "Failover", "Stream", "Wanted", "reading"]

_AHEAD: Final = 4 * 1024 * 1024
"""Bytes that a node which took over may be ahead of the reader."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a get asks for: bytes *offset* to *end* of *key*."""

    key: Key
    offset: int
    end: int | None
    associated_file: str

    def length(self, offset: int) -> int | None:
        """Bytes that must come from *offset* on, or None when the key does not tell."""
        size = self.key.size
        if size is None:
            return None
        return max(0, (size if self.end is None else min(size, self.end)) - offset)


class _Overtaken(TimedOut):
    """No answer within the hedge delay, while there was somebody else to ask."""


class Candidates:
    """Nodes in the order in which to ask them, each with the seconds that it gets to answer.

    While there is another one to ask, a node gets the hedge delay (longer when it is known to be
    slow); one that let it pass is asked once more at the end, with its whole deadline.

    Attributes:
        failed: Who is out, and why.
    """

    def __init__(
        self, name: str, key: Key, nodes: Iterable[Node], not_asked: dict[UUID, AnnexError], hedge: float
    ) -> None:
        self.name, self.key, self.failed = name, key, dict(not_asked)
        self._hedge = hedge
        self._first = deque(nodes)
        self._again: deque[Node] = deque()
        self._had_again: set[Node] = set()

    def __iter__(self) -> Iterator[tuple[Node, float]]:
        while self._first:
            node = self._first.popleft()
            if not self._first:
                yield node, node.patience
            else:
                known = self._hedge if node.speed is None else max(self._hedge / 4, 8 * node.speed)
                yield node, min(node.patience, known)
        while self._again:
            node = self._again.popleft()
            yield node, node.patience

    def out(self, node: Node, error: AnnexError, *, gave: bool = False) -> None:
        """*node* is out with *error*; *gave* says that some of the content came from it."""
        self.failed.update(reasons(node, error))
        worth_it = isinstance(error, _Overtaken) or (gave and isinstance(error, ConnectionLost))
        if worth_it and node not in self._had_again:
            self._had_again.add(node)
            self._again.append(node)

    def nobody(self) -> AnnexError:
        """The error when no candidate is left. That the content is absent is said only if every node said so."""
        errors = list(self.failed.values())
        if errors and all(isinstance(error, KeyNotPresent) for error in errors):
            return KeyNotPresent(self.key, self.name)
        return errors[0] if len(errors) == 1 else NodesFailed(self.name, f"to send {self.key}", self.failed.items())


@asynccontextmanager
async def reading(wanted: Wanted, candidates: Candidates) -> AsyncIterator[Failover]:
    """The content from the first candidate that gives it.

    Raises:
        KeyNotPresent: On entering; every node was asked and none has it.
        NodesFailed: On entering; no node gave it, and at least one could not say that it is absent.
    """
    caught: Exception | None = None
    download: Failover | None = None
    async with create_task_group() as group:
        try:
            for node, patience in candidates:
                download, done = None, False
                try:
                    async with _source(wanted, node, wanted.offset, patience) as first:
                        download = Failover(wanted, candidates, group, first)
                        yield download
                        done = True
                        download.over(good=True)
                    break
                except AnnexError as error:
                    if download is None:
                        candidates.out(node, error)
                    elif done and download.relieved:
                        break  # the source that broke off long ago cannot spoil what another one gave
                    else:
                        raise
            else:
                raise candidates.nobody()
        except Exception as error:  # a task group would wrap what the holder raised
            caught = error
            if download is not None:
                download.over(good=False)
    if caught is not None:
        raise caught


@asynccontextmanager
async def _source(wanted: Wanted, node: Node, offset: int, patience: float) -> AsyncIterator[Stream]:
    """The content from *node*, which has *patience* seconds to begin."""
    remote, key = node.remote, wanted.key
    began = node.begin()
    opened, whole = False, patience == node.patience
    scope = CancelScope(deadline=current_time() + patience)
    try:
        with scope:
            if whole:
                node.waiting.add(scope)
            async with remote.get(
                key, offset=offset, end=wanted.end, associated_file=wanted.associated_file
            ) as download:
                node.waiting.discard(scope)
                scope.deadline = inf
                if scope.cancel_called:  # the answer came, but so did the deadline: do not let it hit the holder
                    await checkpoint()
                node.heard(began)
                must = wanted.length(offset)
                if must is not None and download.length != must:
                    raise IncompleteTransfer(key, download.length, must, remote.name)
                opened = True
                stream = Stream(key, node, download)
                try:
                    yield stream
                finally:
                    await stream.aclose()
        if scope.cancelled_caught:
            if not whole:
                node.overtaken(patience)
                raise _Overtaken(remote.name, "answer to GET", patience)
            raise TimedOut(remote.name, "answer to GET", patience)
    except AnnexError as error:
        if not opened and not isinstance(error, _Overtaken):
            node.failed(error, began)
        raise
    finally:
        node.waiting.discard(scope)
        node.end(began)


class Stream:
    """The chunks of one node, counted, each within the node's deadline."""

    __slots__ = ("_chunks", "_key", "_node", "download", "given")

    def __init__(self, key: Key, node: Node, download: Download) -> None:
        self._key, self._node, self.download = key, node, download
        self._chunks = aiter(download)
        self.given = 0

    async def next(self) -> bytes | None:
        """The next chunk; None at a good end."""
        node, length = self._node, self.download.length
        name = node.remote.name
        with CancelScope(deadline=current_time() + node.deadline):
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                if self.given < length:
                    raise IncompleteTransfer(self._key, self.given, length, name) from None
                return None
            node.moves()
            if self.given + len(chunk) > length:
                raise RemoteProtocolError(f"{name} sent more of {self._key} than it announced")
            self.given += len(chunk)
            return chunk
        raise TimedOut(name, "content", node.deadline)

    def broke_off(self, candidates: Candidates, error: AnnexError) -> None:
        """It ended badly, with *error*."""
        self._node.failed(error)
        candidates.out(self._node, error, gave=self.given > 0)

    async def aclose(self) -> None:
        if isinstance(self._chunks, AsyncGenerator):
            await self._chunks.aclose()  # left to itself, it would be closed at some other time


class Failover:
    """``Download`` of a cluster.

    ``valid`` is the word of the node that sent the last byte. A node that was cut off in the middle
    never got to say whether its content changed meanwhile, so after a change of nodes a True promises
    no more than that no node was heard to say so. It only happens for keys with a verifiable hash;
    the receiver verifies that, as it has to for content from anywhere. Nothing is hashed here.
    """

    def __init__(self, wanted: Wanted, candidates: Candidates, group: TaskGroup, stream: Stream) -> None:
        self.length = stream.download.length
        self._wanted, self._candidates, self._group, self._stream = wanted, candidates, group, stream
        self._relief: _Relief | None = None

    @property
    def source(self) -> UUID:
        return (self._stream if self._relief is None else self._relief.stream).download.source

    @property
    def valid(self) -> bool:
        return (self._stream if self._relief is None else self._relief.stream).download.valid

    @property
    def relieved(self) -> bool:
        """Another node took over from the first."""
        return self._relief is not None

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._relief is None:
            try:
                chunk = await self._stream.next()
            except AnnexError as error:
                self._switch(error)
            else:
                if chunk is None:
                    raise StopAsyncIteration
                return chunk
        assert self._relief is not None
        chunk = await self._relief.next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    def over(self, *, good: bool) -> None:
        """The holder leaves. Who took over hears whether it got what it wanted."""
        if self._relief is not None:
            self._relief.over(good=good)

    def _switch(self, error: AnnexError) -> None:
        """Let the next candidate go on, or raise *error*."""
        stream = self._stream
        stream.broke_off(self._candidates, error)
        if not is_verifiable(self._wanted.key):
            raise error
        self._relief = _Relief(self._wanted, self._candidates, self._wanted.offset + stream.given, stream)
        self._group.start_soon(self._relief.run)


class _Relief:
    """The task that goes on where the first source broke off, changing nodes again if it must."""

    def __init__(self, wanted: Wanted, candidates: Candidates, position: int, stream: Stream) -> None:
        self._wanted, self._candidates, self._position = wanted, candidates, position
        self.stream = stream
        self._chunks: deque[bytes] = deque()
        self._ahead = 0
        self._ended = False
        self._good: bool | None = None
        self._error: AnnexError | None = None
        self._reader, self._writer = Waiting(), Waiting()
        self._scope = CancelScope()

    async def next(self) -> bytes | None:
        """For the reader: the next chunk; None at a good end."""
        await self._reader.until(lambda: bool(self._chunks) or self._ended)
        if self._chunks:
            chunk = self._chunks.popleft()
            self._ahead -= len(chunk)
            self._writer.tell()
            return chunk
        if self._error is not None:
            raise self._error
        return None

    def over(self, *, good: bool) -> None:
        """For the reader: it leaves."""
        if self._ended and not (good and self._chunks):
            self._good = good
            self._writer.tell()
        else:
            self._scope.cancel()

    async def run(self) -> None:
        """The task itself."""
        with self._scope:
            for node, patience in self._candidates:
                try:
                    async with _source(self._wanted, node, self._position, patience) as self.stream:
                        if await self._relay(self.stream):
                            return
                except _Unwanted:
                    return
                except AnnexError as error:
                    if self._ended:
                        return
                    self._candidates.out(node, error)
            self._error = self._candidates.nobody()
            self._end()

    async def _relay(self, stream: Stream) -> bool:
        """Hand over all that *stream* has; False when it broke off."""
        while True:
            try:
                chunk = await stream.next()
            except AnnexError as error:
                stream.broke_off(self._candidates, error)
                return False
            if chunk is None:
                break
            self._chunks.append(chunk)
            self._ahead += len(chunk)
            self._position += len(chunk)
            self._reader.tell()
            await self._writer.until(lambda: self._ahead < _AHEAD)
        self._end()
        await self._writer.until(lambda: self._good is not None)
        if not self._good:
            raise _Unwanted  # leaving with an exception is how the node hears FAILURE
        return True

    def _end(self) -> None:
        self._ended = True
        self._reader.tell()


class _Unwanted(Exception):
    """The reader could not use the content."""
