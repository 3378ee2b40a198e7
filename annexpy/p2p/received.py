"""What has arrived of a P2P session and was not yet taken: lines, and bytes of a DATA body."""

from __future__ import annotations

from codecs import utf_8_decode
from collections import deque

from annexpy.errors import RemoteProtocolError
from annexpy.p2p.messages import MAX_LINE

__all__ = ["Received"]


class Received:
    """Takes chunks as they come and gives lines and bodies, however the stream was cut.

    Keeps at most the beginning of one line of its own; chunks are not copied, and one that is taken whole is
    the very object that was added.

    Attributes:
        ended: Nothing more will be added.
    """

    __slots__ = ("_check_at", "_chunk", "_position", "_queue", "_tail", "ended")

    def __init__(self) -> None:
        self.ended = False
        self._chunk = b""
        self._position = 0
        self._queue: deque[bytes] = deque()
        self._tail = bytearray()  # the beginning of a line that was cut
        self._check_at = MAX_LINE + 1

    @property
    def unread(self) -> bool:
        """True when there are bytes behind the last that were taken, but for the beginning of a line."""
        return self._position < len(self._chunk) or bool(self._queue)

    def add(self, data: bytes) -> None:
        """*data* has come; ``b""`` is the end."""
        if not data:
            self.ended = True
        elif self._position == len(self._chunk) and not self._queue:
            self._chunk, self._position = data, 0
        else:
            self._queue.append(data)

    def take(self, most: int) -> bytes | None:
        """Some bytes, at least one and *most* at most; None when there are none."""
        if self._position == len(self._chunk):
            if not self._queue:
                return None
            self._chunk, self._position = self._queue.popleft(), 0
        chunk, start = self._chunk, self._position
        if start == 0 and len(chunk) <= most:
            self._chunk = b""
            return chunk
        self._position = min(start + most, len(chunk))
        return chunk[start : self._position]

    def line(self) -> bytes | None:
        """The next line, without CR and LF; None when it is not there whole.

        Raises:
            RemoteProtocolError: It has more than ``MAX_LINE`` characters. No use to ask again.
        """
        tail = self._tail
        while True:
            chunk, start = self._chunk, self._position
            end = chunk.find(b"\n", start)
            if end >= 0:
                if len(tail) + end - start > 4 * MAX_LINE:
                    raise _too_long()
                self._position = end + 1
                line = chunk[start:end]
                if tail:
                    line = bytes(tail) + line
                    tail.clear()
                    self._check_at = MAX_LINE + 1
                if len(line) > MAX_LINE and len(utf_8_decode(line, "surrogateescape", True)[0]) > MAX_LINE:
                    raise _too_long()
                return line[:-1] if line[-1:] == b"\r" else line
            if start < len(chunk):
                if len(tail) + len(chunk) - start > 4 * MAX_LINE:
                    raise _too_long()
                tail += chunk[start:]
                self._check_length()
            self._chunk, self._position = b"", 0
            if not self._queue:
                return None
            self._chunk = self._queue.popleft()

    def _check_length(self) -> None:
        """Characters are counted, not bytes; again only when enough bytes have come that it could matter."""
        size = len(self._tail)
        if size < self._check_at:
            return
        text, consumed = utf_8_decode(self._tail, "surrogateescape", False)
        if len(text) > MAX_LINE:
            raise _too_long()
        self._check_at = size + max(1, MAX_LINE + 1 - len(text) - (size - consumed))


def _too_long() -> RemoteProtocolError:
    return RemoteProtocolError(f"a line of more than {MAX_LINE} characters")
