"""GET and PUT of a session: content between a ``Remote`` and the wire."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable
from typing import Final

import anyio

from annexpy.errors import (
    AnnexError,
    ConnectionLost,
    ContentChanged,
    IncompleteTransfer,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationFailed,
)
from annexpy.keys.backend import is_verifiable
from annexpy.keys.storable import check_storable
from annexpy.p2p.associated import unescape_associated_file
from annexpy.p2p.connection import Closed, Data, State, Unexpected
from annexpy.p2p.extensions import GetRange
from annexpy.p2p.messages import (
    ALREADY_HAVE,
    FAILURE,
    INVALID,
    SUCCESS,
    VALID,
    AlreadyHavePlus,
    DataHeader,
    DataPresent,
    Error,
    Get,
    Invalid,
    Put,
    PutFrom,
    SuccessPlus,
    Valid,
)
from annexpy.remote.base import Remote, Stored, Upload
from annexpy.remote.local_content import LocalDownload
from annexpy.server.wire import ClientGone, ClientWire, HangUp, others
from annexpy.transport.base import CHUNK
from annexpy.uuids import UUID

__all__ = ["receive_content", "send_content"]

log = logging.getLogger(__name__)

_FILE: Final = 1024 * 1024  # contents on this machine from that size on are sent by the system
_DRAIN: Final = 16 * 1024 * 1024  # this much of a body is read to its end after storing it has failed
_NOT_THE_CONTENT: Final = (VerificationFailed, IncompleteTransfer, ContentChanged, KeyNotPresent)


async def send_content(wire: ClientWire, remote: Remote, request: Get | GetRange) -> None:
    """Answer GET and GET-RANGE. What the client thinks of it is the next event."""
    name = unescape_associated_file(request.associated_file) if request.associated_file else ""
    end = request.end if isinstance(request, GetRange) else None
    begun = False
    try:
        async with remote.get(request.key, offset=request.offset, end=end, associated_file=name) as download:
            left = download.length
            wire.say(DataHeader(left))
            begun = True
            fd = None
            if isinstance(download, LocalDownload) and left > _FILE and is_verifiable(request.key) and wire.sends_files:
                # Only with a hash: what is written to the file meanwhile may go out after we have looked.
                fd = download.stored.system_fd
            if fd is not None and isinstance(download, LocalDownload):
                left -= await wire.pour_file(fd, download.offset, left)
                while left:  # somebody cut it: the length was promised, and INVALID comes after it
                    filler = bytes(min(left, CHUNK))
                    left -= len(filler)
                    await wire.pour(filler)
                download.finish()
            else:
                chunks = aiter(download)
                try:
                    async for chunk in chunks:
                        left -= len(chunk)
                        await wire.pour(chunk)
                finally:
                    if isinstance(chunks, AsyncGenerator):
                        await chunks.aclose()  # left early, it would be closed at some other time
            if left:
                raise HangUp(ConnectionLost(remote.name, f"{left} more bytes of {request.key}"))
            valid = download.valid
    except ClientGone:
        raise
    except AnnexError as error:
        if begun:
            # The length is promised and the bytes are not there: only hanging up says so.
            raise HangUp(error) from error
        if not isinstance(error, KeyNotPresent):
            wire.say(Error(str(error)))
            return
        wire.say(DataHeader(0))
        valid = False
    if wire.connection.version:
        wire.say(VALID if valid else INVALID)
    elif begun and not valid:
        raise HangUp(RemoteProtocolError("version 0 has no word for content that has changed"))


async def receive_content(wire: ClientWire, remote: Remote, request: Put, *, allow_unverifiable: bool) -> None:
    """Answer PUT, take what follows, and answer that."""
    name = unescape_associated_file(request.associated_file) if request.associated_file else ""
    try:
        check_storable(request.key, allow_unverifiable=allow_unverifiable)
        async with remote.put(request.key, associated_file=name) as upload:
            if upload.already is not None:
                _tell_already(wire, remote, upload.already)
                return
            wire.say(PutFrom(upload.offset))
            await _take(wire, remote, upload)
    except ClientGone:
        raise
    except AnnexError as error:
        match wire.connection.state:
            case State.PUT | State.PUT_RESULT:
                wire.say(Error(str(error)))
            case State.IDLE | State.PUT_REFUSED:
                log.warning("%s: after the put of %s: %s", wire.peer, request.key, error)
            case _:
                raise HangUp(error) from error


def _tell_already(wire: ClientWire, remote: Remote, already: frozenset[UUID]) -> None:
    if not already:
        raise LocalProtocolError("nobody was found to have the content already")  # a claim that names nobody
    if wire.connection.version >= 2 and (named := others(already, remote)):
        wire.say(AlreadyHavePlus(named))
    else:
        wire.say(ALREADY_HAVE)


async def _take(wire: ClientWire, remote: Remote, upload: Upload) -> None:
    """What follows PUT-FROM, up to the result."""
    match await wire.next():
        case DataHeader(length):
            failure: AnnexError | None = None
            try:
                await upload.start(length)
            except InvalidInput as error:
                wire.say(Error(str(error)))
                raise HangUp(error) from error
            except AnnexError as error:
                failure = error
            failure = await _body(wire, upload, length, failure)
            valid = await _validity(wire)
            if failure is not None:
                raise failure
            await _result(wire, remote, upload.finish(valid))
        case DataPresent():
            await _result(wire, remote, upload.data_present())
        case Unexpected(_, answer):
            wire.say(answer)
        case Error():
            pass  # changed its mind
        case _:
            raise wire.gone()


async def _body(wire: ClientWire, upload: Upload, left: int, failure: AnnexError | None) -> AnnexError | None:
    """Hand *left* bytes to *upload*. What it fails with is returned once the body is over."""
    connection, allowance = wire.connection, wire.deadlines.body
    patience, due = allowance, 0
    while True:
        if failure is not None and left > _DRAIN:
            wire.say(Error(str(failure)))
            raise HangUp(failure) from failure
        match connection.next_event():
            case Data(chunk, last):
                left -= len(chunk)
                due += len(chunk)
                if due >= allowance * 1024:
                    patience, due = allowance, 0
                if chunk and failure is None:
                    try:
                        await upload.write(chunk)
                    except AnnexError as error:
                        failure = error
                if last:
                    return failure
            case Closed():
                # As git-annex does; nobody may be left to hear it.
                wire.say(FAILURE)
                await wire.flush()
                raise wire.gone()
            case _:
                await wire.flush()
                begun = anyio.current_time()
                await wire.receive(patience)
                patience -= anyio.current_time() - begun


async def _validity(wire: ClientWire) -> bool:
    """What the client says about its source. Something else gets its ERROR and counts as INVALID."""
    if wire.connection.state is not State.PUT_VALID:
        return True  # version 0
    match await wire.next():
        case Valid():
            return True
        case Invalid():
            return False
        case Unexpected(_, answer):
            wire.say(answer)
            return False
        case _:
            raise wire.gone()


async def _result(wire: ClientWire, remote: Remote, storing: Awaitable[Stored]) -> None:
    try:
        stored = await storing
    except _NOT_THE_CONTENT as error:
        log.info("%s: %s", wire.peer, error)
        wire.say(FAILURE)
        return
    except AnnexError as error:
        wire.say(Error(str(error)))
        return
    if not stored.ok:
        wire.say(FAILURE)
        return
    wire.changed = True
    named = others(stored.copies, remote) if wire.connection.version >= 2 else ()
    wire.say(SuccessPlus(named) if named else SUCCESS)
