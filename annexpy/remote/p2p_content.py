"""One put and one get over a wire. Each has a wire to itself and gives it back, or closes it."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from annexpy.errors import (
    AnnexError,
    ConnectionLost,
    ContentChanged,
    ContentError,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    PeerError,
    ProtocolError,
    Refused,
    RemoteProtocolError,
    TransportError,
    VerificationFailed,
)
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.p2p.associated import escape_associated_file
from annexpy.p2p.connection import Data
from annexpy.p2p.extensions import RANGES, GetRange
from annexpy.p2p.messages import (
    DATA_PRESENT,
    FAILURE,
    INVALID,
    SUCCESS,
    VALID,
    AlreadyHave,
    AlreadyHavePlus,
    CheckPresent,
    DataHeader,
    Error,
    Failure,
    FailurePlus,
    Get,
    Invalid,
    Message,
    Put,
    PutFrom,
    Success,
    SuccessPlus,
    Valid,
)
from annexpy.remote.base import Stored
from annexpy.remote.pool import Pool, Use
from annexpy.remote.wire import Wire, was_stale
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID, is_cluster

__all__ = ["SMALL", "P2PDownload", "P2PUpload", "hint", "refusal", "stored_by", "unexpected"]

SMALL: Final = 64 * 1024
"""A body up to this size goes out in one write, with the words around it."""
_VERIFIED_PER_SECOND: Final = 16 * 1024 * 1024
"""Bytes that a slow peer hashes: after a resumed put it reads the whole file again before it answers."""


def unexpected(wire: Wire, message: Message | Data, waiting_for: str) -> RemoteProtocolError:
    """An answer that the table allows and that makes no sense here."""
    return RemoteProtocolError(f"{wire.name}: {message!r} while waiting for {waiting_for}")


def refusal(wire: Wire, key: Key, answer: Message, request: str) -> AnnexError:
    """The error for an answer that is no success."""
    match answer:
        case Error(text):
            return PeerError(wire.name, text)
        case Failure():
            return ContentError(key, wire.name, f"it answered FAILURE to {request}")
        case _:
            return unexpected(wire, answer, f"the answer to {request}")


def copies(wire: Wire, named: tuple[UUID, ...]) -> frozenset[UUID]:
    """Who has done it, when *wire* says so and names these: itself too, unless it is a cluster, which is nobody."""
    found = frozenset(uuid for uuid in named if not is_cluster(uuid))
    return found if found and is_cluster(wire.uuid) else found | {wire.uuid}


def hint(associated_file: str) -> bytes:
    """*associated_file* as a request says it. An absolute path is refused by every server and helps none."""
    return b"" if associated_file[:1] == "/" else escape_associated_file(associated_file)


def stored_by(wire: Wire, key: Key, answer: Message | Data, *, valid: bool = True) -> Stored:
    """What *answer* to the end of a content says.

    Raises:
        ContentChanged: FAILURE, and the sender had said INVALID.
        VerificationFailed, ContentError: FAILURE.
        PeerError: ERROR.
    """
    match answer:
        case Success():
            return Stored(uuids=frozenset((wire.uuid,)))
        case SuccessPlus(uuids):
            return Stored(uuids=copies(wire, uuids))
        case FailurePlus(uuids) if uuids:
            failure = ContentError(key, wire.name, "it answered FAILURE-PLUS")
            named = frozenset(uuid for uuid in uuids if not is_cluster(uuid))
            return Stored(uuids=named - {wire.uuid}, failed={wire.uuid: failure})
        case Failure() | FailurePlus():
            if not valid:
                raise ContentChanged(key, wire.name)
            if is_verifiable(key):
                raise VerificationFailed(key, wire.name, "it answered FAILURE to the whole content")
            raise ContentError(key, wire.name, "it answered FAILURE to the whole content")
        case _:
            raise refusal(wire, key, _message(wire, answer), "the content")


class _Transfer:
    """What both directions share: a wire for as long as it takes."""

    __slots__ = ("_associated_file", "_key", "_pool", "_settled", "_wire")

    def __init__(self, pool: Pool[Wire], key: Key, associated_file: str) -> None:
        self._pool, self._key, self._associated_file = pool, key, hint(associated_file)
        self._wire: Wire | None = None
        self._settled = False  # nothing is owed any more, by either side

    @property
    def _open_wire(self) -> Wire:
        if self._wire is None:
            raise LocalProtocolError("used outside of its async with block")
        return self._wire

    async def _begin(self, request: Get | Put, part: GetRange | None = None) -> Message:
        """Send *request*, or *part* to a peer that knows it; once more when it had closed a wire that was kept."""
        while True:
            wire = self._wire = await self._pool.take(Use.TRANSFER)
            try:
                return await wire.ask(request if part is None or wire.version != RANGES else part)
            except BaseException as error:
                await self._drop()
                if was_stale(wire, error):
                    continue
                raise

    async def _give_back(self) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await self._pool.give_back(wire, Use.TRANSFER)

    async def _drop(self) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await self._pool.discard(wire, Use.TRANSFER)


class P2PDownload(_Transfer):
    """``Download`` over a wire, and the ``async with`` block around it.

    With *end*, a peer that has agreed on ``RANGES`` sends nothing after it. Elsewhere that is read and thrown
    away when it is little, and otherwise the wire is closed; ``valid`` is then True for want of better knowledge.
    """

    __slots__ = ("_acknowledged", "_body", "_end", "_left", "_offset", "length", "source", "valid")

    def __init__(self, pool: Pool[Wire], key: Key, offset: int, end: int | None, associated_file: str) -> None:
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


class P2PUpload(_Transfer):
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

    def __init__(self, pool: Pool[Wire], key: Key, associated_file: str) -> None:
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
        raise refusal(wire, self._key, _message(wire, await wire.event()), "the content")

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
        _message(wire, event)  # or nothing is settled
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


def _message(wire: Wire, event: Message | Data) -> Message:
    if isinstance(event, Data):
        raise unexpected(wire, event, "an answer")
    return event
