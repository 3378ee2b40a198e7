"""Keys and contents to try things with.

A key is bytes, as on the wire. Every content is derived from a seed and a number, so that a run can be repeated and
no two checks meet on the same key.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from random import Random

__all__ = ["Content", "Contents", "escape", "of", "under_every_hash", "worm"]


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


def under_every_hash(body: bytes) -> list[Content]:
    """*body* under a key of each hash that git-annex knows and Python has, with an extension and without."""
    lengths = {"SHA": (1, 224, 256, 384, 512), "SHA3_": (224, 256, 384, 512)}
    found = {"MD5": hashlib.md5(body).hexdigest()}
    for family, numbers in lengths.items():
        for number in numbers:
            name = f"{family}{number}"
            found[name] = hashlib.new(name.lower(), body).hexdigest()
    for number in (160, 224, 256, 384, 512):
        found[f"BLAKE2B{number}"] = hashlib.blake2b(body, digest_size=number // 8).hexdigest()
    for number in (160, 224, 256):
        found[f"BLAKE2S{number}"] = hashlib.blake2s(body, digest_size=number // 8).hexdigest()
    return [
        Content(f"{name}{extension and 'E'}-s{len(body)}--{digest}{extension}".encode(), body)
        for name, digest in found.items()
        for extension in ("", ".dat")
    ]


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
