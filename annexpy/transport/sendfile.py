"""A file's bytes to a descriptor, in a thread: the event loop takes longer for each wait than the kernel for a page."""

from __future__ import annotations

import os
import time

__all__ = ["Own", "send_file"]

_NAP = 0.0005  # seconds for 300 KiB to be read, by somebody who keeps up
_NAPS = 4
_KEEPS_UP = 64 * 1024  # bytes in so many naps: 32 MB/s


class Own:
    """A second number for the descriptor *fd*, open until it is closed, or for as long as anybody holds this.

    A thread that works on after its task was cancelled must not meet another file under the number of the first.
    """

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = -1
        self.fd = os.dup(fd)

    def close(self) -> None:
        """Give the number back, when no thread works with it."""
        number, self.fd = self.fd, -1
        if number >= 0:
            os.close(number)

    __del__ = close


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
