"""Keys and contents to try things with.

A key is bytes, as on the wire. Every content is derived from a seed and a number, so that a run can be repeated and
no two checks meet on the same key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

__all__ = ["Content", "Contents", "escape", "of", "worm"]


@dataclass(frozen=True, slots=True)
class Content:
    """A key and the bytes that belong to it."""

    key: bytes
    body: bytes

    def damaged(self) -> bytes:
        """As many bytes, one of them wrong."""
        return self.body[:-1] + bytes([self.body[-1] ^ 0x55])


def of(body: bytes, extension: str = ".bin") -> Content:
    """*body* under its SHA256E key (SHA256 without an extension)."""
    backend = "SHA256E" if extension else "SHA256"
    digest = hashlib.sha256(body).hexdigest()
    return Content(f"{backend}-s{len(body)}--{digest}{extension}".encode(), body)


def worm(body: bytes, name: bytes) -> Content:
    """*body* under a key that says nothing about it but the size."""
    return Content(b"WORM-s%d-m1400000000--%s" % (len(body), name), body)


class Contents:
    """Fresh contents without end."""

    def __init__(self, seed: str) -> None:
        """*seed* decides them all."""
        self._seed, self._number = seed, 0

    def name(self) -> bytes:
        """Some letters that nobody has used."""
        self._number += 1
        return hashlib.sha256(f"{self._seed}/{self._number}".encode()).hexdigest()[:16].encode()

    def body(self, size: int) -> bytes:
        """*size* bytes that nobody has used."""
        return Random(self.name()).randbytes(size)

    def fresh(self, size: int = 200, extension: str = ".bin") -> Content:
        """A content that nobody has used, under a key with a hash."""
        return of(self.body(size), extension)

    def unverifiable(self, size: int = 200, name: bytes = b"") -> Content:
        """The same under a key without a hash; *name* is added to its name."""
        return worm(self.body(size), self.name() + name)


def escape(name: bytes) -> bytes:
    """An associated file as clients write it: white space becomes ``%``, and ``%`` is doubled."""
    blank = frozenset(b"\t\n\v\f\r \xa0")
    return b"".join(b"%%" if byte == 0x25 else b"%" if byte in blank else bytes([byte]) for byte in name)
