"""A stream as the far side of a put: what ``annexpy get -o -`` writes to.

A stream cannot be taken back, so its end is kept until all is proven. Who reads a content to its end has the right
content; a small one comes not at all when it is wrong, and a large one stops short.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from anyio import to_thread

from annexpy.errors import ContentChanged, IncompleteTransfer, LocalProtocolError, VerificationFailed
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.uuids import UUID

__all__ = ["HELD_BACK", "Outflow"]

HELD_BACK: Final = 1024 * 1024
"""Bytes that are kept at least until the content is proven."""
_NOWHERE: Final = UUID("")


class Outflow:
    """One stream, to which keys are written.

    Args:
        write: Takes the next bytes, all of them; called in a worker thread, since it may wait for the reader.
            What it raises ends the put.
    """

    __slots__ = ("_write",)

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    @asynccontextmanager
    async def put(self, key: Key) -> AsyncIterator[OutflowUpload]:
        """Start writing *key*.

        Raises:
            Refused: The hash of the key needs a package that is not there.
        """
        yield OutflowUpload(key, self._write)


class OutflowUpload:
    """``Upload`` into a stream."""

    __slots__ = ("_expected", "_held", "_received", "_verifier", "_waiting", "_write", "key", "offset")

    already: None = None

    def __init__(self, key: Key, write: Callable[[bytes], object]) -> None:
        self.key, self.offset, self._write = key, 0, write
        self._verifier = verifier(key)
        self._expected: int | None = None
        self._received = self._waiting = 0
        self._held: list[bytes] = []

    async def start(self, length: int) -> None:
        if self._expected is not None:
            raise LocalProtocolError("content was announced twice")
        self._expected = length

    async def write(self, data: bytes) -> None:
        if self._expected is None or self._received + len(data) > self._expected:
            raise LocalProtocolError(f"{len(data)} bytes of content after {self._received} of {self._expected}")
        self._received += len(data)
        self._waiting += len(data)
        self._held.append(data)
        if self._waiting >= 2 * HELD_BACK:
            await to_thread.run_sync(self._let_go, HELD_BACK, abandon_on_cancel=True)

    def _let_go(self, keep: int) -> None:
        """Write what is there, but for the last *keep* bytes."""
        held = b"".join(self._held)
        out, rest = held[: len(held) - keep], held[len(held) - keep :]
        if self._verifier is not None:
            self._verifier.update(out)
        self._held, self._waiting = [rest], len(rest)
        self._write(out)

    async def finish(self, valid: bool = True) -> Stored:
        key, check = self.key, self._verifier
        size = self._expected if key.size is None else key.size
        if self._received != size:
            raise IncompleteTransfer(key, self._received, size or 0)
        rest = b"".join(self._held)
        if check is not None:
            check.update(rest)
            if not check.matches():
                written = self._received - len(rest)
                began = f"its first {written} bytes had been written" if written else "nothing of it was written"
                raise VerificationFailed(key, reason=began)
        elif not valid:
            raise ContentChanged(key)
        await to_thread.run_sync(self._write, rest, abandon_on_cancel=True)
        return Stored(uuids=frozenset((_NOWHERE,)))

    async def data_present(self) -> Stored:
        raise LocalProtocolError("a stream has no other way to get its content")
