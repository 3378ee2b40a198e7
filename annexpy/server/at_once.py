"""The beginning of an ``annexpy-shell`` session, on stdin and stdout and without an event loop.

Presence checks are what most sessions begin with, and locks one after the other all that a stock ``git annex drop``
wants of its server: neither needs what takes time to import, and each is answered in half the time. All else is left
to the server: also lines that are not plain, and whatever comes behind them.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from annexpy.errors import AnnexError, ConnectionLost, InvalidKey, KeyNotPresent, NotLocked
from annexpy.keys.key import Key
from annexpy.repo.content import ContentStore
from annexpy.repo.locks import ContentLock

if TYPE_CHECKING:
    from annexpy.repo.lock_quota import SharedLockQuota

__all__ = ["Locking", "answer_at_once"]

log = logging.getLogger(__name__)

_CHECK: Final = b"CHECKPRESENT "
_LOCK: Final = b"LOCKCONTENT "
_UNLOCK: Final = (b"UNLOCKCONTENT", b"UNLOCKCONTENT ", b"UNLOCKCONTENT\t")
_LONGEST: Final = 32767
"""``p2p.messages.MAX_LINE``, which would have to be imported."""
_LOOK: Final = 1000
"""Milliseconds between two looks at a lock that is held."""


class Locking:
    """The content locks of a session, one at a time.

    Attributes:
        interrupted: The request whose lock was ended by something else than UNLOCKCONTENT, which is not answered yet;
            else empty.
    """

    def __init__(self, store: ContentStore, quota: SharedLockQuota, client: str, who: str) -> None:
        self._store, self._quota, self._client, self._who = store, quota, client, who
        self._stdin = select.poll()
        self._stdin.register(0, select.POLLIN)
        self.interrupted = b""

    def lock(self, key: Key, said: bytes) -> bytes | None:
        """Lock *key* for as long as the client wants; it has *said* more already.

        Returns:
            What it has said and is not answered yet; None: this request is not, and not to be locked here.

        Raises:
            ConnectionLost: It left without unlocking. The content stays locked until the retention is over.
        """
        settings = self._store.settings
        if settings.pidlock or settings.thin or not self._quota.take(self._client, self._who):
            return None
        left_behind = False
        try:
            lock = self._locked(key)
            if isinstance(lock, ContentLock):
                left_behind = True
                said = self._told(lock, said)
                left_behind = False
                return said
            os.write(1, b"FAILURE\n")
        except AnnexError:
            if left_behind:
                raise
            return None
        finally:
            self._quota.give_back(self._client, self._who, left_behind=left_behind)
        return said

    def _locked(self, key: Key) -> ContentLock | None:
        try:
            lock = self._store.lock(key)
        except (NotLocked, KeyNotPresent):
            return None
        try:
            self._store.sync_lock_now(lock)
        except BaseException:
            lock.release()
            raise
        return lock

    def _told(self, lock: ContentLock, said: bytes) -> bytes:
        try:
            os.write(1, b"SUCCESS\n")
            said = self._heard(lock, said)
        except BaseException:
            _end(lock, lock.vanish)
            raise
        _end(lock, lock.release)
        line, _, rest = said.partition(b"\n")
        if line.removesuffix(b"\r") in _UNLOCK:
            return rest
        self.interrupted = _LOCK + lock.key.raw + b"\n"
        return said

    def _heard(self, lock: ContentLock, said: bytes) -> bytes:
        """What the client says while *lock* is held: a line at least, or more than one may be long."""
        while b"\n" not in said and len(said) <= _LONGEST:
            reason = ""
            if self._stdin.poll(_LOOK):
                if more := os.read(0, 65536):
                    said += more
                    continue
            elif lock.held():
                continue
            else:
                reason = "its lock is lost"
            raise ConnectionLost("stdin", "UNLOCKCONTENT", reason)
        return said


def _end(lock: ContentLock, action: Callable[[], None]) -> None:
    try:
        action()
    except (AnnexError, OSError) as error:
        # Whoever held it is done; at worst its retention keeps the content for ten more minutes.
        log.warning("unlocking %s: %s", lock.key, error)


def answer_at_once(
    store: ContentStore, said: bytes, ready: Callable[[], bool], locking: Callable[[], Locking] | None = None
) -> tuple[bytes | None, bytes]:
    """Answer what a session begins with, until the server is *ready* or something else is said.

    Args:
        store: Where to look.
        said: What the client has said already.
        ready: Is the server there? Looked at before each wait for the client.
        locking: Made when a content is to be locked; without it none is.

    Returns:
        What the client said and is not answered yet, None when it has left; and ``Locking.interrupted``.

    Raises:
        ConnectionLost: It left with a content locked.
    """
    locks: Locking | None = None
    while True:
        said = _answer_presence(store, said)
        if locking is not None and said.startswith(_LOCK):
            line, _, behind = said.partition(b"\n")
            key = _key(line[len(_LOCK) :], said)
            if key is None:
                return said, b""
            if locks is None:
                locks = locking()
            unanswered = locks.lock(key, behind)
            if unanswered is None or locks.interrupted:
                return said if unanswered is None else unanswered, locks.interrupted
            said = unanswered
            continue
        if said or ready():
            return said, b""
        try:
            said = os.read(0, 65536)
        except BlockingIOError:
            return b"", b""
        if not said:
            return None, b""


def _answer_presence(store: ContentStore, said: bytes) -> bytes:
    """Answer the presence checks with which *said* begins; the rest of it."""
    answers = []
    while said.startswith(_CHECK):
        line, _, rest = said.partition(b"\n")
        key = _key(line[len(_CHECK) :], said)
        if key is None:
            break
        try:
            answers.append(b"SUCCESS\n" if store.present(key) else b"FAILURE\n")
        except AnnexError:
            break
        said = rest
    if answers:
        os.write(1, b"".join(answers))
    return said


def _key(name: bytes, said: bytes) -> Key | None:
    """The key in the first line of *said*, where that is a plain one."""
    if not 0 <= said.find(b"\n") <= _LONGEST or b"\0" in name or name.endswith(b"\r"):
        return None
    try:
        return Key.parse(name)
    except InvalidKey:
        return None
