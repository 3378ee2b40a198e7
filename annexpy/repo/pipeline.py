"""One large content on its way to a file: written by one thread and hashed by another, side by side.

The event loop (or a reader) only hands over immutable chunks. Both threads go through the same chunks, so
the rate is that of the slower one and not of their sum: the hash alone at 1.6 to 1.8 GB/s, a write to tmpfs
at 3. At most ``limit`` bytes and the last chunk wait at any time, and less the more pipelines there are. Less may wait
to be written than to be hashed: a disk may be slow, and whoever gave the bytes has a deadline.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Final

from annexpy.keys.backend import Verifier
from annexpy.repo.files import Files
from annexpy.repo.shared_verifier import SharedVerifier

__all__ = ["PIECE", "Pipeline"]

PIECE: Final = 1024 * 1024
"""Bytes per system call when a file is read."""

_LIMIT: Final = 8 * 1024 * 1024
"""Bytes that may wait for their hash in the pipelines of all contents of this process together: 5 ms of work, for as
long a thread may wait for its turn where sender, receiver, writer and hash share two cores;"""
_UNWRITTEN: Final = 4 * 1024 * 1024
"""those that may wait to be written;"""
_LEAST: Final = 256 * 1024
"""and those of one content however many there are."""
_AHEAD: Final = 2 * 1024 * 1024
"""Bytes that ``copy`` reads ahead. A local source makes nobody wait; memory that is used again needs no new pages."""


_at_work: Final[dict[Pipeline, object]] = {}
"""Each, and its content: those of one content on its way to several stores hold the same chunks."""


class Pipeline:
    """Takes chunks in order, writes them at the end of a file and feeds them to a verifier.

    The descriptor is in use until ``finish`` or ``stop`` has ended. ``put`` and ``full`` may be called on
    the event loop, the other methods block.
    """

    def __init__(
        self,
        files: Files,
        fd: int,
        verifier: Verifier | None,
        *,
        prefix: int = 0,
        limit: int = _LIMIT,
    ) -> None:
        """Start the threads.

        Args:
            files: Where *fd* came from.
            fd: Open for appending and reading.
            verifier: What to feed, or None when nothing can verify the key.
            prefix: Bytes that are in the file already. The verifier gets those that it has not seen first.
            limit: Bytes that may wait.
        """
        self._files, self._fd, self._verifier, self._limit = files, fd, verifier, limit
        self._taken = self._written = self._hashed = 0
        self._error: BaseException | None = None
        self._stopping = False
        self._progress = threading.Event()
        self._ending = threading.Lock()
        self._at_end: Callable[[], None] | None = None
        self._queues: list[SimpleQueue[bytes | None]] = [SimpleQueue()]
        self._threads = [threading.Thread(target=self._run, args=(self._write,), name="annexpy-write", daemon=True)]
        if verifier is not None:
            self._queues.append(SimpleQueue())
            hashing = partial(self._hash, verifier, prefix)
            self._threads.append(threading.Thread(target=self._run, args=(hashing,), name="annexpy-hash", daemon=True))
        self._running = len(self._threads)
        _at_work[self] = verifier.shared if isinstance(verifier, SharedVerifier) else self
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """Bytes that were handed over and are not yet both written and hashed."""
        return max(self._unwritten, self._unhashed)

    @property
    def _unwritten(self) -> int:
        return self._taken - self._written

    @property
    def _unhashed(self) -> int:
        return 0 if self._verifier is None else self._taken - self._hashed

    @property
    def full(self) -> bool:
        """Call ``wait`` before the next ``put``."""
        return self._unwritten > self._allowed(_UNWRITTEN) or self._unhashed > self._allowed(_LIMIT)

    def _allowed(self, most: int) -> int:
        """What this one may have of *most*."""
        contents = len({*_at_work.values()})
        return min(self._limit, max(_LEAST, most // max(1, contents)))

    @property
    def ended(self) -> bool:
        """Both threads have come to their end."""
        return not self._running

    def put(self, chunk: bytes) -> None:
        """Hand over the next bytes; the caller must not change them.

        Raises:
            OSError: An earlier chunk could not be written.
        """
        if self._error is not None:
            raise self._error
        self._taken += len(chunk)
        for queue in self._queues:
            queue.put(chunk)

    def wait(self, limit: int | None = None) -> None:
        """Block until half of *limit* (of all that may wait) is free again, or it failed."""
        unwritten = (self._allowed(_UNWRITTEN) if limit is None else limit) // 2
        unhashed = (self._allowed(_LIMIT) if limit is None else limit) // 2
        while True:
            self._progress.clear()  # before looking: what happens from here on ends the wait below
            if self._error is not None or self._stopping:
                return
            if self._unwritten <= unwritten and self._unhashed <= unhashed:
                return
            self._progress.wait()

    def copy(self, read: Callable[[int, int], bytes], offset: int, end: int) -> int:
        """Take the bytes from *offset* to *end* that ``read(size, offset)`` gives; block till they are written.

        They are written here, where they were read: two threads leave a core to the hash, which takes longest, where
        there are two.

        Returns:
            How many bytes there were; fewer when the source ended.

        Raises:
            OSError: They could not be read or written.
        """
        start, limit = offset, min(self._limit, _AHEAD)
        self.wait(0)  # what was handed over before comes first
        while offset < end and not self._stopping:
            if self._error is not None:
                raise self._error
            chunk = read(min(PIECE, end - offset), offset)
            if not chunk:
                break
            offset += len(chunk)
            self._taken += len(chunk)
            for queue in self._queues[1:]:
                queue.put(chunk)
            self._files.write(self._fd, chunk)
            self._written += len(chunk)
            if self.waiting > limit:
                self.wait(limit)
        return offset - start

    def finish(self) -> None:
        """Block until everything is written and hashed.

        Raises:
            OSError: It could not be written.
        """
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join()
        if self._error is not None:
            raise self._error

    def stop(self, seconds: float) -> None:
        """End early: write what was handed over, for at most *seconds*, and keep it. Blocks.

        Not ``ended`` afterwards means that a system call hangs; see ``when_ended``.
        """
        for queue in self._queues:
            queue.put(None)
        for thread in self._threads:
            thread.join(seconds / len(self._threads))
        self._stopping = True
        self._progress.set()
        for thread in self._threads:
            thread.join(seconds / 10)

    def when_ended(self, action: Callable[[], None]) -> None:
        """Call *action* when the descriptor is no longer in use: now, or later in one of the threads."""
        with self._ending:
            if self._running:
                self._at_end = action
                return
        action()

    # -- threads --

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = self._error or error  # raised again in whoever waits for it
        self._progress.set()
        with self._ending:
            self._running -= 1
            action = None if self._running else self._at_end
        if not self._running:
            _at_work.pop(self, None)
        if action is not None:
            action()

    def _write(self) -> None:
        files, fd, queue = self._files, self._fd, self._queues[0]
        while not self._stopping and (chunk := queue.get()) is not None:
            files.write(fd, chunk)
            self._written += len(chunk)
            self._progress.set()

    def _hash(self, verifier: Verifier, prefix: int) -> None:
        offset, queue = verifier.received, self._queues[1]
        while offset < prefix and not self._stopping:
            data = self._files.pread(self._fd, min(PIECE, prefix - offset), offset)
            if not data:
                raise OSError(errno.EIO, "the partial file shrank while it was read")
            verifier.update(data)
            offset += len(data)
        while not self._stopping and (chunk := queue.get()) is not None:
            verifier.update(chunk)
            self._hashed += len(chunk)
            self._progress.set()
