"""The thread in which a large content becomes an object: taken from a queue, hashed on the way, sent in parts."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Final, NoReturn, Protocol

from annexpy.errors import AnnexError, VerificationFailed
from annexpy.keys.backend import Verifier
from annexpy.keys.key import Key

__all__ = ["BLOCK", "PART", "Sender", "SendsObjects"]

PART: Final = 8 * 1024 * 1024
"""Contents up to this size are sent at once, larger ones in parts of it."""
BLOCK: Final = 1024 * 1024
"""Bytes that are handed to the thread at a time."""
_AHEAD: Final = 2


class SendsObjects(Protocol):
    """What is asked of the bucket."""

    @property
    def name(self) -> str: ...

    def sending(self, key: Key, body: bytes | Iterator[bytes]) -> object: ...

    def error(self, what: str, error: BaseException) -> AnnexError: ...


class _Aborted(Exception):
    """Raised inside of the library, so that it does not complete an upload."""


class Sender:
    """Begins to send when it is made. ``finish`` it or ``abort`` it."""

    def __init__(self, bucket: SendsObjects, key: Key, check: Verifier | None) -> None:
        self._bucket, self._key, self._check = bucket, key, check
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_AHEAD * PART // BLOCK)
        self._aborted, self._done = False, threading.Event()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="annexpy-s3", daemon=True).start()

    def offer(self, block: bytes) -> bool:
        """Take *block*; False when too many wait.

        Raises:
            Exception: Sending failed.
        """
        if self._done.is_set():
            self._raise()
        if not self._room.acquire(blocking=False):
            return False
        self._queue.put(block)
        return True

    def wait_for_room(self) -> None:
        """Block until ``offer`` may take another one."""
        while not self._done.is_set():
            if self._room.acquire(timeout=1):
                self._room.release()
                return

    def finish(self) -> None:
        """That was all. Block until the object is there."""
        self._queue.put(None)
        self._done.wait()
        if self._error is not None:
            self._raise()

    def _raise(self) -> NoReturn:
        error = self._error
        if isinstance(error, AnnexError | FileNotFoundError):
            raise error
        raise self._bucket.error("end of a put", error or _Aborted())

    def abort(self) -> None:
        """Do not complete it, unless it is. Idempotent."""
        self._aborted = True
        self._queue.put(None)

    def _run(self) -> None:
        try:
            self._bucket.sending(self._key, self._blocks())
        except BaseException as error:
            self._error = error
        finally:
            self._done.set()

    def _blocks(self) -> Iterator[bytes]:
        while (block := self._queue.get()) is not None and not self._aborted:
            self._room.release()
            if self._check is not None:
                self._check.update(block)
            yield block
        if self._aborted:
            raise _Aborted
        if self._check is not None and not self._check.matches():
            raise VerificationFailed(self._key, self._bucket.name)
