"""Keys: the names git-annex gives to contents.

Grammar, in bytes: ``BACKEND[-sSIZE][-mMTIME][-SCHUNKSIZE][-CCHUNK]--NAME`` (fact sheet
repository-format, section 1). ``Key.parse`` accepts what git-annex accepts; ``check_storable`` is
the stricter rule for keys that we are asked to store.
"""

from __future__ import annotations

import re
from typing import Final

from annexpy.errors import InvalidKey
from annexpy.patterns import regex

__all__ = ["MAX_EXTENSION", "MAX_SIZE", "Key"]

MAX_EXTENSION: Final = 64
"""Bytes of extension, dot included, that a key of an E-backend may have."""
MAX_SIZE: Final = 2**63 - 1

(_E,) = b"E"
_KEY = regex(rb"([^-]+)(?:-s(\d+))?(?:-m(\d+))?(?:-S(\d+))?(?:-C(\d+))?--(.*)", re.DOTALL)
_USUAL = regex(rb"([^-]+)-s([1-9]\d{0,18})--(.*)", re.DOTALL)
"""Nearly every key: it is canonical, and need not be put together again."""
_WITHOUT_EXTENSION: Final = frozenset({b"WORM", b"URL", b"VURL", b"GITBUNDLE", b"GITMANIFEST"})


class Key:
    """One immutable key. Equal when the canonical bytes are equal.

    Attributes:
        raw: Canonical bytes (leading zeros of numbers dropped).
        backend: Name of the backend, as bytes ("SHA256E").
        size: Bytes of content, or None when the key does not tell.
        mtime: Seconds since 1970 (WORM), or None.
        chunk_size, chunk_number: Set on keys of chunks; numbers count from 1.
        name: The rest: digest and extension, sanitised path or URL.
    """

    __slots__ = ("backend", "chunk_number", "chunk_size", "mtime", "name", "raw", "size")

    raw: bytes
    backend: bytes
    size: int | None
    mtime: int | None
    chunk_size: int | None
    chunk_number: int | None
    name: bytes

    def __init__(
        self,
        backend: bytes,
        name: bytes,
        size: int | None = None,
        *,
        mtime: int | None = None,
        chunk_size: int | None = None,
        chunk_number: int | None = None,
    ) -> None:
        if not backend or b"-" in backend:
            raise InvalidKey("key backend", backend, "one or more bytes without '-'")
        raw = backend
        if size is not None:
            raw += b"-s%d" % size
        if mtime is not None:
            raw += b"-m%d" % mtime
        if chunk_size is not None:
            raw += b"-S%d" % chunk_size
        if chunk_number is not None:
            raw += b"-C%d" % chunk_number
        _fill(self, raw + b"--" + name, backend, name, size, mtime, chunk_size, chunk_number)

    @classmethod
    def parse(cls, value: bytes | str) -> Key:
        """Read a key, accepting whatever git-annex accepts.

        Raises:
            InvalidKey: No ``--``, an empty backend, a field out of order, or an extension over 64 bytes.
        """
        raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        if usual := _USUAL.fullmatch(raw):
            backend, size, name = usual.groups()
            key = object.__new__(cls)
            _fill(key, raw, backend, name, int(size))
            return key
        match = _KEY.fullmatch(raw)
        if match is None:
            raise InvalidKey("key", raw, "must be BACKEND[-sN][-mN][-SN][-CN]--NAME")
        backend, size, mtime, chunk_size, chunk_number, name = match.groups()
        if len(raw) > 4000 and max(map(len, filter(None, (size, mtime, chunk_size, chunk_number))), default=0) > 4000:
            raise InvalidKey("key field", raw, "at most 4000 digits")
        return cls(
            backend,
            name,
            None if size is None else int(size),
            # -m wraps to signed 64 bits in git-annex
            mtime=None if mtime is None else (int(mtime) + 2**63) % 2**64 - 2**63,
            chunk_size=None if chunk_size is None else int(chunk_size),
            chunk_number=None if chunk_number is None else int(chunk_number),
        )

    @property
    def is_chunk(self) -> bool:
        return self.chunk_size is not None or self.chunk_number is not None

    def without_chunk(self) -> Key:
        """The key of the whole content (hash directories come from it)."""
        if self.chunk_size is self.chunk_number is None:  # not by is_chunk: every look for a content comes here
            return self
        return Key(self.backend, self.name, self.size, mtime=self.mtime)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"Key is immutable: {name}")

    def __bytes__(self) -> bytes:
        return self.raw

    def __str__(self) -> str:
        return self.raw.decode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"Key.parse({self.raw!r})"

    def __eq__(self, other: object) -> bool:
        return self.raw == other.raw if isinstance(other, Key) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.raw)

    def __lt__(self, other: Key) -> bool:
        return self.raw < other.raw

    def __reduce__(self) -> tuple[object, ...]:
        return (Key.parse, (self.raw,))


_set_raw, _set_backend, _set_name, _set_size, _set_mtime, _set_chunk_size, _set_chunk_number = (
    Key.__dict__[name].__set__ for name in ("raw", "backend", "name", "size", "mtime", "chunk_size", "chunk_number")
)


def _fill(
    key: Key,
    raw: bytes,
    backend: bytes,
    name: bytes,
    size: int | None,
    mtime: int | None = None,
    chunk_size: int | None = None,
    chunk_number: int | None = None,
) -> None:
    """Set what *key* is, once.

    Raises:
        InvalidKey: Its extension is too long.
    """
    if backend[-1] == _E and backend not in _WITHOUT_EXTENSION:
        dot = name.find(b".")
        if dot >= 0 and len(name) - dot > MAX_EXTENSION:
            raise InvalidKey("key extension", raw, f"at most {MAX_EXTENSION} bytes from the first dot")
    _set_raw(key, raw)
    _set_backend(key, backend)
    _set_name(key, name)
    _set_size(key, size)
    _set_mtime(key, mtime)
    _set_chunk_size(key, chunk_size)
    _set_chunk_number(key, chunk_number)
