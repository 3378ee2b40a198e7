"""One hash for the same content on its way to several stores."""

from __future__ import annotations

import threading
from typing import Final

from annexpy.keys.backend import Verifier, verifier
from annexpy.keys.hashes import Buffer
from annexpy.keys.key import Key

__all__ = ["SharedVerifier", "SharedVerifiers"]


class SharedVerifiers:
    """Gives one verifier to each store. Whoever comes first to some bytes hashes them, the others pass over them.

    So all of them must be fed the very same immutable bytes, from the first on; at which time, and how many, is up to
    each. One that stops early leaves the rest to the others.
    """

    def __init__(self, key: Key) -> None:
        self._key: Final = key
        self.lock: Final = threading.Lock()
        self.hashed: Verifier | None = None

    def one(self) -> SharedVerifier | None:
        """For one more store, which has nothing of the content yet. None when nothing can verify the key."""
        if self.hashed is None:
            self.hashed = verifier(self._key)
        return None if self.hashed is None else SharedVerifier(self.hashed, self.lock)


class SharedVerifier(Verifier):
    """Its own count of bytes, and the hash that it shares.

    Attributes:
        shared: That hash.
    """

    __slots__ = ("_lock", "shared")

    def __init__(self, shared: Verifier, lock: threading.Lock) -> None:
        self.shared, self._lock, self.key = shared, lock, shared.key
        self.received = 0

    def update(self, data: Buffer) -> None:
        with self._lock:
            known = self.shared.received - self.received
            if known < len(data):
                self.shared.update(memoryview(data)[known:] if known else data)
        self.received += len(data)

    def matches(self) -> bool:
        with self._lock:
            return self.shared.received == self.received and self.shared.matches()
