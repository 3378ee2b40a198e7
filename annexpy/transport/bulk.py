"""Large bodies through descriptors, in threads: the event loop takes longer for each wait than the kernel for a packet.

A thread naps where there is nothing to do and looks again, but only for as long as its peer keeps up: it waits for
nobody else, that is for the event loop.
"""

from __future__ import annotations

import os
import time
from threading import Lock

__all__ = ["Gathering", "Own", "send_file"]

_NAP = 0.0005  # seconds for 300 KiB to be read, by somebody who keeps up
_NAPS = 4
_KEEPS_UP = 64 * 1024  # bytes in so many naps: 32 MB/s
_LULL = 0.0002  # seconds for 100 KiB to come, in a stream that flows
_LULLS = 4


class Own:
    """A second number for the descriptor *fd*, open for as long as anybody holds this.

    A thread that works on after its task was cancelled must not meet another file under the number of the first.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = -1
        self.fd = os.dup(fd)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


def send_file(target: Own, source: Own, offset: int, size: int) -> tuple[int, bool]:
    """Send what fits; how much that was, and whether the file has ended.

    A reader that keeps up has emptied a good part of the pipe or socket after a nap. To be woken as soon as there is
    room would be once for each page, and the event loop takes longer than that. It waits for those who do not keep up,
    so a thread is kept for 0.13 s at most.
    """
    sent = naps = rested = 0
    while sent < size:
        try:
            part = os.sendfile(target.fd, source.fd, offset + sent, size - sent)
        except (BlockingIOError, InterruptedError):
            if sent - rested >= _KEEPS_UP:
                rested, naps = sent, 0
            elif naps == _NAPS:
                break
            naps += 1
            time.sleep(_NAP)
            continue
        if not part:
            return sent, True
        sent += part
    return sent, False


class Gathering:
    """One thread's reading from the descriptor *fd* of a stream that flows.

    Raises:
        OSError: No descriptor is left.
    """

    __slots__ = ("_begun", "_source")

    def __init__(self, fd: int) -> None:
        self._source = Own(fd)
        self._begun = Lock()

    def run(self, size: int) -> bytes:
        """Up to *size* bytes, with naps while there are none. The end, and what is wrong, is left to the next read."""
        pieces: list[bytes] = []
        lulls = 0
        if not self._begun.acquire(blocking=False):
            return b""
        while size:
            try:
                piece = os.read(self._source.fd, size)
            except (BlockingIOError, InterruptedError):
                if lulls == _LULLS:
                    break
                lulls += 1
                time.sleep(_LULL)
                continue
            except OSError:
                break
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def call_off(self) -> bool:
        """Whether it has not begun. Then it never will, and nothing was read."""
        return self._begun.acquire(blocking=False)
