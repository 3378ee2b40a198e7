"""Contents over HTTP: GET with ranges, HEAD, and put, between a ``Remote`` and an exchange.

A body that is shorter than its ``X-git-annex-data-length`` is how either side says that the content is not valid,
so the last piece of what we send is held back until the remote has said that it is.

Differences from git-annex on purpose (docs/deviations.md): absent content is 404, not an empty body, which a
client could take for the content of a key that tells no size; lengths are said before the body; a put that cannot
be the content by its length leaves what arrived before alone.

Source: fact sheet p2p-protocol, section 6, "PUT body"; RFC 9110, section 14.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from math import inf
from typing import Final
from urllib.parse import quote_from_bytes

from annexpy.errors import (
    AnnexError,
    ContentChanged,
    ContentError,
    InvalidInput,
    KeyNotPresent,
    LocalProtocolError,
)
from annexpy.keys.backend import is_verifiable
from annexpy.keys.storable import check_storable
from annexpy.p2p.http import CONTENT_TYPE, DATA_LENGTH, GetRequest, PutRequest
from annexpy.p2p.http_answers import StoredAnswer
from annexpy.remote.base import Download, Remote, Stored, Upload, found
from annexpy.remote.local_content import LocalDownload
from annexpy.server.wire import others
from annexpy.transport.http_exchange import Exchange
from annexpy.transport.http_wire import ClientLeft

__all__ = ["receive_content", "send_content"]

_FILE: Final = 1024 * 1024
"""Bytes from which on a content on this machine is sent by the system, without being read."""
_LAST: Final = 64 * 1024
_RANGE = re.compile(rb"bytes=[ \t]*(?:([0-9]{1,19})-([0-9]{0,19})|-([0-9]{1,19}))[ \t]*\Z", re.IGNORECASE)


# -- GET and HEAD -----------------------------------------------------------------------------------


async def send_content(exchange: Exchange, remote: Remote, request: GetRequest) -> None:
    """Answer GET or HEAD of content.

    Raises:
        KeyNotPresent: And nothing was answered.
        AnnexError: And perhaps a part was, in which case hanging up says so.
    """
    key, offset = request.key, request.offset
    # For those who know no keys, and what stands between them and us.
    tagged = request.version is None and is_verifiable(key)
    tag = b'"%b"' % quote_from_bytes(key.raw, safe="-._~").encode() if tagged else b""
    headers = [(b"Content-Type", CONTENT_TYPE), (b"Accept-Ranges", b"none" if offset else b"bytes")]
    if tag:
        headers.append((b"ETag", tag))
    wanted = None if offset else _range(exchange, tag)
    if wanted is None:
        if exchange.head.method == b"HEAD":
            length = max(0, await _size(remote, request) - offset)
            exchange.start(200, [*headers, _length(length)], length)
            exchange.end()
            return
        async with remote.get(key, offset=offset, associated_file=request.associated_file) as download:
            await _pour(exchange, 200, [*headers, _length(download.length)], download)
        return
    size = await _size(remote, request)
    first, last = wanted
    start, stop = (max(0, size - last), size) if first is None else (first, min(last + 1, size))
    if start >= stop:
        exchange.answer(416, [*headers, (b"Content-Range", b"bytes */%d" % size)])
        return
    headers += [(b"Content-Range", b"bytes %d-%d/%d" % (start, stop - 1, size)), _length(stop - start)]
    if exchange.head.method == b"HEAD":
        exchange.start(206, headers, stop - start)
        exchange.end()
        return
    async with remote.get(key, offset=start, end=stop, associated_file=request.associated_file) as download:
        if download.length != stop - start:
            raise ContentError(key, remote.name, f"{download.length} bytes where {stop - start} should be")
        await _pour(exchange, 206, headers, download)


def _length(length: int) -> tuple[bytes, bytes]:
    return b"X-git-annex-data-length", b"%d" % length


def _range(exchange: Exchange, tag: bytes) -> tuple[int | None, int] | None:
    """The one range that is asked for: (first, last), or (None, how many at the end).

    None: all of it. That is also the answer to several ranges, to other units than bytes, and to whoever has a
    part of something else (If-Range), as RFC 9110 allows.
    """
    asked = exchange.head.headers.get(b"range")
    if asked is None:
        return None
    condition = exchange.head.headers.get(b"if-range")
    match = _RANGE.match(asked)
    if match is None or (condition is not None and (condition != tag or not tag)):
        return None
    first, last, at_the_end = match.groups()
    if first is None:
        return None, int(at_the_end)
    if not last:
        return int(first), 2**63
    return (int(first), int(last)) if int(first) <= int(last) else None


async def _size(remote: Remote, request: GetRequest) -> int:
    """How long the content is.

    Raises:
        KeyNotPresent: There is none.
    """
    key = request.key
    if key.size is not None:
        if not await remote.check_present(key):
            raise KeyNotPresent(key, remote.name)
        return key.size
    async with remote.get(key, associated_file=request.associated_file) as download:
        return download.length


async def _pour(exchange: Exchange, status: int, headers: list[tuple[bytes, bytes]], download: Download) -> None:
    """Send *download*; small contents leave with their head in one write."""
    if isinstance(download, LocalDownload) and download.length > _FILE:
        fd = download.stored.system_fd
        if fd is not None:
            exchange.start(status, headers, download.length)
            if exchange.sends_files:
                await _pour_file(exchange, download, fd)
                return
    left, held = download.length, b""
    chunks = aiter(download)
    try:
        async for piece in chunks:
            if held:
                if not exchange.status:
                    exchange.start(status, headers, download.length)
                await exchange.send(held)
            held = piece
            left -= len(piece)
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()  # left early, it would be closed at some other time
    if left or not download.valid:
        raise ContentChanged("content", str(download.source))
    if exchange.status:
        await exchange.send(held)
        exchange.end()
    else:
        exchange.answer(status, headers, held)


async def _pour_file(exchange: Exchange, download: LocalDownload, fd: int) -> None:
    """Send *download* straight from its file, but for the end, which nobody gets before it is known to be valid."""
    most = download.length - _LAST
    sent = await exchange.send_file(fd, download.offset, most)
    try:
        last = download.stored.pread(_LAST, download.offset + most) if sent == most else b""
    except OSError as error:
        raise ContentError(download.stored.key, str(download.source), error.strerror or str(error)) from error
    download.finish()
    if len(last) < _LAST or not download.valid:
        raise ContentChanged("content", str(download.source))
    await exchange.send(last)
    exchange.end()


# -- put --------------------------------------------------------------------------------------------


async def receive_content(
    exchange: Exchange, remote: Remote, request: PutRequest, *, allow_unverifiable: bool
) -> StoredAnswer:
    """Take the body of *exchange* for the content that *request* announces.

    Raises:
        InvalidInput: The content cannot have these bytes, or its key may not be stored.
        ClientLeft: What arrived is kept.
        AnnexError: Nothing is stored; as ``Upload.finish``.
    """
    key = request.key
    check_storable(key, allow_unverifiable=allow_unverifiable)
    total = request.offset + request.length
    if key.size is not None and total > key.size and not request.data_present:
        raise InvalidInput(DATA_LENGTH.decode(), request.length, f"at most {max(0, key.size - request.offset)} bytes")
    body = exchange.head.length
    if body is not None and body > request.length:
        raise InvalidInput("content-length", body, f"{request.length}, as {DATA_LENGTH.decode()} says")
    async with remote.put(key, associated_file=request.associated_file) as upload:
        if upload.already is not None:
            if not upload.already:
                raise LocalProtocolError("nobody was found to have the content already")
            await exchange.drain(inf)
            stored = found(upload)
        elif request.data_present:
            stored = await upload.data_present()
        else:
            skip = upload.offset - request.offset
            if skip < 0 or (key.size is not None and total < key.size):
                await exchange.drain()
                return StoredAnswer(False)
            await upload.start(max(0, request.length - skip))
            if not await _take(exchange, upload, request.length, skip):
                return StoredAnswer(False)
            stored = await upload.finish()
    return _told(stored, remote, upload.already is not None and not request.data_present)


def _told(stored: Stored, remote: Remote, already: bool) -> StoredAnswer:
    return StoredAnswer(stored.ok, others(stored.copies, remote) if stored.ok else (), already)


async def _take(exchange: Exchange, upload: Upload, length: int, skip: int) -> bool:
    """Hand the body to *upload*, without its first *skip* bytes; was it exactly *length* bytes?

    Raises:
        AnnexError: As ``Upload.write``; the body is read to its end first, if that is near.
    """
    received = 0
    failure: AnnexError | None = None
    while piece := await exchange.receive():
        received += len(piece)
        if received > length:
            await exchange.drain()
            return False
        if skip:
            dropped = min(skip, len(piece))
            skip -= dropped
            piece = piece[dropped:]
        if piece:
            try:
                await upload.write(piece)
            except ClientLeft:
                raise
            except AnnexError as error:
                failure = error
                await exchange.drain()
                break
    if failure is not None:
        raise failure
    return received == length
