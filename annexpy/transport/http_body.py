"""Bodies of HTTP/1.1, without input or output, in the few lines that need not copy them.

h11 would copy every byte twice, which is where time goes; it reads the heads (``http_head``).
"""

from __future__ import annotations

import re
from typing import Final

from annexpy.transport.http_head import MAX_HEAD, BadHTTP

__all__ = ["LAST_CHUNK", "BodyReader", "chunk"]

LAST_CHUNK: Final = b"0\r\n\r\n"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\Z")
_MAX_SIZE_LINE: Final = 256


def chunk(data: bytes) -> bytes:
    """*data*, not empty, as a chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class BodyReader:
    """Takes the framing off a body.

    Attributes:
        left: Bytes that are known to come, of the body or of its present chunk.
        done: All of it was read.
    """

    __slots__ = ("_chunked", "_kept", "_to_the_end", "_trailer", "done", "left")

    def __init__(self, length: int | None, *, to_the_end: bool = False) -> None:
        self._chunked, self._to_the_end = length is None and not to_the_end, to_the_end
        self.left = length or 0
        self.done = length == 0
        self._kept = b""  # part of a line between chunks
        self._trailer = -1  # bytes of the trailer so far; −1 before it

    def take(self, data: bytes) -> tuple[bytes, bytes]:
        """What *data*, the next bytes from the wire, has of the body, and what comes after its end.

        Of both there may be none. A body that is not chunked is not copied.

        Raises:
            BadHTTP: The chunks are none.
        """
        if self._chunked:
            return self._take_chunks(data)
        if self._to_the_end:
            return data, b""
        if len(data) < self.left:
            self.left -= len(data)
            return data, b""
        body, rest = (data, b"") if len(data) == self.left else (data[: self.left], data[self.left :])
        self.left, self.done = 0, True
        return body, rest

    def end(self) -> bool:
        """The wire has ended: was that the end of the body?"""
        if self._to_the_end:
            self.done = True
        return self.done

    def _take_chunks(self, data: bytes) -> tuple[bytes, bytes]:
        if self._kept:
            data, self._kept = self._kept + data, b""
        pieces: list[memoryview] = []
        view, at, end = memoryview(data), 0, len(data)
        while at < end:
            if self.left > 2:  # two of them are the line end behind the chunk
                size = min(self.left - 2, end - at)
                pieces.append(view[at : at + size])
                self.left -= size
                at += size
            elif self.left:
                if data[at : at + 1] != (b"\r" if self.left == 2 else b"\n"):
                    raise BadHTTP("a chunk longer than it said")
                self.left -= 1
                at += 1
            else:
                line_end = data.find(b"\n", at, at + MAX_HEAD)
                if line_end < 0:
                    self._keep(data[at:])
                    break
                line = data[at:line_end]
                at = line_end + 1
                if line[-1:] != b"\r":
                    raise BadHTTP("a line between chunks without CR LF")
                if self._between(line[:-1]):
                    self.done = True
                    break
        body = bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)
        return body, data[at:] if self.done else b""

    def _keep(self, line: bytes) -> None:
        if len(line) > (_MAX_SIZE_LINE if self._trailer < 0 else MAX_HEAD):
            raise BadHTTP("a line of no end between chunks")
        self._kept = line

    def _between(self, line: bytes) -> bool:
        """A line between chunks; True after the last one."""
        if self._trailer >= 0:
            self._trailer += len(line)
            if self._trailer > MAX_HEAD:
                raise BadHTTP(f"a trailer of more than {MAX_HEAD} bytes")
            return not line
        match = _SIZE.match(line)
        if match is None:
            raise BadHTTP(f"no size of a chunk: {line[:40]!r}")
        size = int(match[1], 16)
        if size:
            self.left = size + 2
        else:
            self._trailer = 0
        return False
