"""One get over a wire."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from annexpy.errors import InvalidInput, KeyNotPresent, RemoteProtocolError, VerificationFailed
from annexpy.keys.key import Key
from annexpy.p2p.connection import Data
from annexpy.p2p.extensions import RANGES, GetRange
from annexpy.p2p.messages import FAILURE, SUCCESS, CheckPresent, DataHeader, Get, Invalid, Success, Valid
from annexpy.remote.p2p_answers import refusal, unexpected
from annexpy.remote.p2p_transfer import Transfer
from annexpy.remote.wire import Wire
from annexpy.remote.wires import Wires
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID

__all__ = ["P2PDownload"]


class P2PDownload(Transfer):
    """``Download`` over a wire, and the ``async with`` block around it.

    With *end*, a peer that has agreed on ``RANGES`` sends nothing after it. Elsewhere that is read and thrown
    away when it is little, and otherwise the wire is closed; ``valid`` is then True for want of better knowledge.
    """

    __slots__ = ("_acknowledged", "_body", "_end", "_left", "_offset", "length", "source", "valid")

    def __init__(self, pool: Wires, key: Key, offset: int, end: int | None, associated_file: str) -> None:
        super().__init__(pool, key, associated_file)
        if offset < 0 or (end is not None and end < 0):
            raise InvalidInput("offset", min(offset, offset if end is None else end), "0 or more")
        self._offset, self._end = offset, end
        self._acknowledged = False
        self.length = 0
        self.valid = True
        self.source = UUID("")
        self._body = 0  # bytes that the peer still sends
        self._left = 0  # bytes of them that are wanted

    async def __aenter__(self) -> Self:
        key, offset, end, name = self._key, self._offset, self._end, self._associated_file
        part = None if end is None else GetRange(key, offset, max(offset, end), name)
        answer = await self._begin(Get(key, offset, name), part)
        wire = self._open_wire
        try:
            if not isinstance(answer, DataHeader):
                raise refusal(wire, self._key, answer, "GET")
            await self._announced(wire, answer.length)
        except BaseException:
            await (self._give_back() if wire.usable else self._drop())
            raise
        return self

    async def _announced(self, wire: Wire, length: int) -> None:
        size, offset, key = self._key.size, self._offset, self._key
        self.source, self._body = wire.uuid, length
        last = size
        if self._end is not None and wire.version == RANGES:
            last = self._end if size is None else min(size, self._end)
        if last is not None and length > max(0, last - offset):
            raise RemoteProtocolError(f"{wire.name}: DATA {length} for {key} from byte {offset}, up to byte {last}")
        if not length:
            await wire.event()
            await self._validity()
            if not self.valid or not (wire.version or await self._really(wire)):
                if not self._acknowledged:
                    wire.put(FAILURE)
                raise KeyNotPresent(key, wire.name)
        if size is not None and last is not None and length < last - offset:
            raise VerificationFailed(key, wire.name, f"it has {offset + length} of {size} bytes")
        wanted = length if self._end is None else min(length, max(0, self._end - offset))
        self.length = self._left = wanted
        if not wanted and length:
            await self._rest()

    async def _really(self, wire: Wire) -> bool:
        """A server of version 0 cannot say that it has nothing, so ask."""
        wire.put(SUCCESS)
        self._acknowledged = True
        return isinstance(await wire.ask(CheckPresent(self._key)), Success)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        event = await self._open_wire.event()
        assert isinstance(event, Data)
        chunk = event.chunk
        self._body -= len(chunk)
        if len(chunk) > self._left:
            chunk = chunk[: self._left]
        self._left -= len(chunk)
        if not self._left:
            await self._rest()
        return chunk

    async def _rest(self) -> None:
        """All that is wanted is here. Read to the end of the exchange, if it is not far."""
        wire = self._open_wire
        if self._body > CHUNK:
            return
        while self._body:
            event = await wire.event()
            assert isinstance(event, Data)
            self._body -= len(event.chunk)
        await self._validity()

    async def _validity(self) -> None:
        wire = self._open_wire
        if wire.version:
            match await wire.event():
                case Valid():
                    self.valid = True
                case Invalid():
                    self.valid = False
                case other:
                    raise unexpected(wire, other, "VALID or INVALID")
        self._settled = True

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._settled and (error is None or isinstance(error, Exception)):
            if not self._acknowledged:
                self._open_wire.put(SUCCESS if error is None and self.valid else FAILURE)
            await self._give_back()
        else:
            await self._drop()
