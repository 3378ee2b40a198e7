"""One put over HTTP.

What a server claims to have is looked for before it counts, as over every other wire.

Source: fact sheet p2p-protocol, section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from anyio import CancelScope

from annexpy.errors import (
    ConnectionLost,
    ContentChanged,
    ContentError,
    IncompleteTransfer,
    InvalidInput,
    LocalProtocolError,
    Refused,
    VerificationFailed,
)
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.p2p.http import (
    CONTENT_TYPE,
    DATA_LENGTH,
    PutOffsetRequest,
    PutRequest,
)
from annexpy.p2p.http_answers import AlreadyHaveAnswer, Answer, OffsetAnswer, StoredAnswer
from annexpy.remote.base import Stored
from annexpy.remote.http_connections import Pair
from annexpy.remote.http_line import Line, Said
from annexpy.remote.http_session import SMALL, Attempts, HTTPSession, copies, is_present, sent_name
from annexpy.remote.pool import Use
from annexpy.uuids import UUID, is_cluster

__all__ = ["HTTPUpload"]

_VERIFIED_PER_SECOND: Final = 16 * 1024 * 1024
"""Bytes that a slow server hashes: after a resumed put it reads the whole file again before it answers."""
_BODY: Final[Pair] = (b"Content-Type", CONTENT_TYPE)


class HTTPUpload:
    """``Upload`` over HTTP, and the ``async with`` block around it.

    Small contents are one request. Of large ones that nobody can verify the last byte is held back until ``finish``,
    so that a source that changed never leaves a whole content behind.

    Attributes:
        already: The repository itself, when it said that it has the content and a check confirmed it. Nobody else is
            ever named here.
        claimed: Others that the server named. Claims: ask each of them before it is recorded or relied on.
    """

    __slots__ = (
        "_held",
        "_key",
        "_left",
        "_length",
        "_line",
        "_name",
        "_session",
        "_unasked",
        "_used",
        "already",
        "claimed",
        "offset",
    )

    def __init__(self, session: HTTPSession, key: Key, associated_file: str) -> None:
        self._session, self._key, self._name = session, key, sent_name(associated_file)
        self.already: frozenset[UUID] | None = None
        self.claimed: frozenset[UUID] = frozenset()
        self.offset = 0
        self._line: Line | None = None
        self._used: bytes | None = None
        self._length: int | None = None
        self._left = 0
        self._held: list[bytes] = []
        self._unasked = False

    async def __aenter__(self) -> Self:
        session, key = self._session, self._key
        await session.begin()
        if not session.settled:
            await session.settle(key)
        if session.need_not_ask(key):
            self._unasked = True
            return self
        if session.version < 1:
            if await is_present(session, key):
                self.already = frozenset((session.uuid,))
            return self
        answer = await session.ask(PutOffsetRequest(session.uuid, key, session.client, session.version, session.bypass))
        match answer:
            case OffsetAnswer(offset):
                self.offset = offset
            case AlreadyHaveAnswer(uuids):
                await self._found(uuids)
        return self

    async def _found(self, named: Sequence[UUID]) -> None:
        """The server says that it has the content, and that these do: look."""
        session, key = self._session, self._key
        self.claimed = frozenset(named) - {session.uuid}
        if not await is_present(session, key):
            raise ContentError(key, session.name, "it claims to have the content and a check did not find it")
        self.already = frozenset((session.uuid,))

    async def start(self, length: int) -> None:
        size = self._key.size
        if self.already is not None or self._length is not None:
            raise LocalProtocolError("content was announced twice, or is already there")
        if length < 0 or (length and size is not None and self.offset + length > size):
            raise InvalidInput("length of content", length, f"0 to {max(0, (size or 0) - self.offset)} bytes")
        self._length = self._left = length

    def _request(self, data_present: bool = False) -> PutRequest:
        session = self._session
        return PutRequest(
            session.uuid,
            self._key,
            self._length or 0,
            session.client,
            session.version,
            session.bypass,
            self.offset,
            self._name,
            data_present,
        )

    async def write(self, data: bytes) -> None:
        if self._length is None or len(data) > self._left:
            raise LocalProtocolError(f"{len(data)} bytes of content where {self._left} were announced")
        self._left -= len(data)
        if self._length <= SMALL:
            self._held.append(data)
            return
        if not data:
            return
        if not self._left and not is_verifiable(self._key):
            data, self._held = data[:-1], [data[-1:]]
        line = self._line or await self._begin()
        if line.has_input:
            await self._interrupted(line)
        try:
            await line.send(data)
        except ConnectionLost:
            await self._interrupted(line)

    async def _begin(self) -> Line:
        assert self._length is not None
        session, request = self._session, self._request()
        line = self._line = await session.pool.take(Use.TRANSFER)
        more = (_BODY, (DATA_LENGTH, b"%d" % self._length))
        self._used = session.say(line, request, more, length=self._length)
        return line

    async def _interrupted(self, line: Line) -> None:
        """The server left or spoke in the middle of the content: hear why, which ends it in any case."""
        said = await self._session.read(line, self._request(), self._used)
        if said.status == 200:
            self._outcome(said.answer(), True)  # raises, unless it takes a part for the whole
            raise IncompleteTransfer(self._key, (self._length or 0) - self._left, self._length or 0, self._session.name)
        await self._again(said)

    async def _again(self, said: Said) -> None:
        """A large content cannot be sent twice from here: get ready for the next attempt, and end this one."""
        await Attempts(self._session).after(said)
        raise ConnectionLost(self._session.name, "the answer to a put", f"{said.status}: it has to be sent again")

    async def finish(self, valid: bool = True) -> Stored:
        session, key = self._session, self._key
        if self._length is None:
            raise LocalProtocolError("the end of content that was never announced")
        if self._left:
            raise IncompleteTransfer(key, self._length - self._left, self._length, session.name)
        if not valid and not is_verifiable(key):
            raise ContentChanged(key, session.name, "not sent to its end, because only that keeps it from being stored")
        request = self._request()
        patience = session.deadline + (self.offset + self._length) / _VERIFIED_PER_SECOND
        if self._length <= SMALL:
            more = (_BODY, (DATA_LENGTH, b"%d" % self._length))
            body = b"".join(self._held)
            answer = await session.ask(request, more, body, patience)
            if self._unasked and isinstance(answer, StoredAnswer) and not answer.stored:
                answer = await session.ask(request, more, body, patience)  # perhaps after a partial that was wrong
            if isinstance(answer, StoredAnswer) and answer.stored and answer.already and is_cluster(session.uuid):
                await self._found(answer.uuids)
                return Stored(already=self.already or frozenset())
            return self._outcome(answer, valid)
        line = self._line
        assert line is not None
        try:
            for data in self._held:
                await line.send(data)
            line.end()
        except ConnectionLost:
            await self._interrupted(line)
        said = await session.read(line, request, self._used, patience)
        if said.status != 200:
            await self._again(said)
        return self._outcome(said.answer(), valid)

    async def data_present(self) -> Stored:
        session = self._session
        if session.version < 4:
            raise Refused("DATA-PRESENT", session.version, "protocol version 4 or higher")
        self._length = 0
        more = (_BODY, (DATA_LENGTH, b"0"))
        return self._outcome(await session.ask(self._request(data_present=True), more), True)

    def _outcome(self, answer: Answer, valid: bool) -> Stored:
        assert isinstance(answer, StoredAnswer)
        uuid, key, name = self._session.uuid, self._key, self._session.name
        if answer.stored:
            done = copies(uuid, answer.uuids)
            return Stored(already=done) if answer.already else Stored(uuids=done)
        if answer.uuids:
            failure = ContentError(key, name, "it answered that it did not store it everywhere")
            named = frozenset(one for one in answer.uuids if not is_cluster(one))
            return Stored(uuids=named - {uuid}, failed={uuid: failure})
        if not valid:
            raise ContentChanged(key, name)
        if is_verifiable(key):
            raise VerificationFailed(key, name, "it did not store the whole content")
        raise ContentError(key, name, "it did not store the whole content")

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Hanging up in the middle is what keeps a partial at the server.
        if self._line is not None:
            line, self._line = self._line, None
            with CancelScope(shield=error is not None):
                await self._session.pool.give_back(line, Use.TRANSFER)
