"""One put over a wire."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from annexpy.errors import (
    ConnectionLost,
    ContentChanged,
    ContentError,
    IncompleteTransfer,
    InvalidInput,
    LocalProtocolError,
    ProtocolError,
    Refused,
    TransportError,
)
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.p2p.messages import (
    DATA_PRESENT,
    INVALID,
    VALID,
    AlreadyHave,
    AlreadyHavePlus,
    CheckPresent,
    DataHeader,
    Failure,
    Put,
    PutFrom,
    Success,
)
from annexpy.remote.base import Stored
from annexpy.remote.p2p_answers import message_of, refusal, stored_by
from annexpy.remote.p2p_transfer import Transfer
from annexpy.remote.pool import Use
from annexpy.remote.wire import Wire
from annexpy.remote.wires import Wires
from annexpy.uuids import UUID

__all__ = ["SMALL", "P2PUpload"]

SMALL: Final = 64 * 1024
"""A body up to this size goes out in one write, with the words around it."""
_VERIFIED_PER_SECOND: Final = 16 * 1024 * 1024
"""Bytes that a slow peer hashes: after a resumed put it reads the whole file again before it answers."""


class P2PUpload(Transfer):
    """``Upload`` over a wire, and the ``async with`` block around it.

    Content that nobody can verify is never complete at the peer before ``finish``: git-annex keeps
    such content once all bytes are there, whether INVALID follows or the end of the stream. So its
    last byte goes out with VALID, and a source that changed ends with hanging up.

    Attributes:
        already: The repository itself, when it said that it has the content and a check on the same
            wire confirmed it. Nobody else is ever named here.
        claimed: Others that the peer named (ALREADY-HAVE-PLUS). Claims: ask each of them, over a
            wire of its own, with ``check_present`` before it is recorded or relied on.
    """

    __slots__ = ("_left", "_length", "_withheld", "already", "claimed", "offset")

    def __init__(self, pool: Wires, key: Key, associated_file: str) -> None:
        super().__init__(pool, key, associated_file)
        self.already: frozenset[UUID] | None = None
        self.claimed: frozenset[UUID] = frozenset()
        self.offset = 0
        self._length: int | None = None
        self._left = 0
        self._withheld = b""

    async def __aenter__(self) -> Self:
        answer = await self._begin(Put(self._key, self._associated_file))
        wire = self._open_wire
        if isinstance(answer, PutFrom):
            self.offset = answer.offset
            return self
        try:
            match answer:
                case AlreadyHave():
                    pass
                case AlreadyHavePlus(uuids):
                    self.claimed = frozenset(uuids) - {wire.uuid}
                case _:
                    raise refusal(wire, self._key, answer, "PUT")
            await self._check(wire)
        except BaseException:
            await (self._give_back() if wire.usable else self._drop())
            raise
        await self._give_back()
        return self

    async def _check(self, wire: Wire) -> None:
        match await wire.ask(CheckPresent(self._key)):
            case Success():
                self.already = frozenset((wire.uuid,))
            case Failure():
                raise ContentError(self._key, wire.name, "it claims to have the content and a check did not find it")
            case answer:
                raise refusal(wire, self._key, answer, "CHECKPRESENT")

    async def start(self, length: int) -> None:
        size = self._key.size
        if self.already is not None or self._length is not None:
            raise LocalProtocolError("content was announced twice, or is already there")
        if length < 0 or (length and size is not None and self.offset + length > size):
            raise InvalidInput("length of content", length, f"0 to {max(0, (size or 0) - self.offset)} bytes")
        self._open_wire.put(DataHeader(length))  # goes out with the first bytes
        self._length = self._left = length

    async def write(self, data: bytes) -> None:
        if self._length is None or len(data) > self._left:
            raise LocalProtocolError(f"{len(data)} bytes of content where {self._left} were announced")
        wire = self._open_wire
        self._left -= len(data)
        if self._length <= SMALL:
            wire.put_data(data)
        elif data:
            if not self._left and not is_verifiable(self._key):
                data, self._withheld = data[:-1], data[-1:]
            if wire.has_input:
                await self._interrupted(wire)
            try:
                await wire.flush(data)
            except ConnectionLost:
                await self._interrupted(wire)

    async def _interrupted(self, wire: Wire) -> None:
        """The peer left or spoke in the middle of the content: hear why, which ends it in any case."""
        raise refusal(wire, self._key, message_of(wire, await wire.event()), "the content")

    async def finish(self, valid: bool = True) -> Stored:
        wire = self._open_wire
        if self._length is None:
            raise LocalProtocolError("the end of content that was never announced")
        if self._left:
            raise IncompleteTransfer(self._key, self._length - self._left, self._length, wire.name)
        if not valid and not (wire.version and is_verifiable(self._key)):
            raise ContentChanged(self._key, wire.name, "hung up, because only that keeps it from being stored")
        if self._withheld:
            wire.put_data(self._withheld)
        if wire.version:
            wire.put(VALID if valid else INVALID)
        patience = wire.deadline + (self.offset + self._length) / _VERIFIED_PER_SECOND
        return await self._result(wire, valid, patience)

    async def data_present(self) -> Stored:
        wire = self._open_wire
        if wire.version < 4:
            raise Refused("DATA-PRESENT", wire.version, "protocol version 4 or higher")
        self._length = 0
        wire.put(DATA_PRESENT)
        return await self._result(wire, True, wire.deadline)

    async def _result(self, wire: Wire, valid: bool, patience: float) -> Stored:
        # Whoever takes it waits until the peer has hashed everything.
        quick = self.offset + (self._length or 0) <= _VERIFIED_PER_SECOND
        if quick and self._pool.lend(wire, Use.TRANSFER):
            self._wire = None
            event = await self._pool.last_answer(wire, patience)
        else:
            event = await wire.event(patience)
        message_of(wire, event)  # or nothing is settled
        self._settled = True
        return stored_by(wire, self._key, event, valid=valid)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and not self._settled:
                await self._end_early()
        finally:
            # Closing is what keeps a partial at the peer: the end of a short DATA would destroy it.
            await (self._give_back() if self._settled else self._drop())

    async def _end_early(self) -> None:
        """Left before the content was announced: say so where the peer has nothing that this could change.

        Source: fact sheet p2p-protocol, section 10, 7.
        """
        wire, size = self._wire, self._key.size
        if wire is None or self._length is not None or self.offset or not wire.version:
            return
        if size and is_verifiable(self._key):
            try:
                wire.put(DataHeader(0))
                wire.put(INVALID)
                await wire.event()
            except (ProtocolError, TransportError):
                return  # it is closed, as it would have been
            self._settled = wire.usable
