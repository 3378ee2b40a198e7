"""Key-value backends: which name a content gets, and whether a content has the name it claims.

A hash backend names a content by its digest; with ``E`` at the end of its name it adds the extension of
the file. ``WORM`` takes name, size and time of a file, ``URL`` and ``VURL`` an address, ``GITBUNDLE`` the
UUID of a remote and a SHA256. Every other backend is carried and cannot be verified.

Source: fact sheet repository-format, section 1; vectors hash_backends.json and extensions.json; the
binary for what stands under "measured".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from annexpy.errors import InvalidKey, Refused
from annexpy.keys.hashes import COMPUTABLE, DIGESTS, INSECURE, Buffer, Hash, new_hash
from annexpy.keys.key import Key

__all__ = [
    "BACKENDS",
    "DEFAULT_BACKEND",
    "Backend",
    "Hasher",
    "Verifier",
    "digest_of",
    "extension",
    "is_secure",
    "is_verifiable",
    "name_content",
    "url_key",
    "verifier",
    "worm_key",
]

DEFAULT_BACKEND: Final = b"SHA256E"


@dataclass(frozen=True, slots=True)
class Backend:
    """One backend of git-annex.

    Attributes:
        name: As in keys ("SHA256E").
        hash: The hash that its keys hold ("SHA256"), or None.
        extension: True when keys end in the extension of the file.
        secure: True when nobody can make a second content for a key.
    """

    name: bytes
    hash: bytes | None = None
    extension: bool = False
    secure: bool = False


BACKENDS: Final[Mapping[bytes, Backend]] = {
    backend.name: backend
    for backend in (
        *(Backend(name, name, secure=name not in INSECURE) for name in DIGESTS),
        *(Backend(name + b"E", name, extension=True, secure=name not in INSECURE) for name in DIGESTS),
        Backend(b"GITBUNDLE", b"SHA256", secure=True),
        Backend(b"GITMANIFEST"),
        Backend(b"WORM"),
        Backend(b"URL"),
        Backend(b"VURL"),
    )
}
"""Every backend built into git-annex. ``X…`` (external programs) and unknown names are not here."""

_VERIFIED: Final[Mapping[bytes, Callable[[], Hash]]] = {
    backend.name: COMPUTABLE[backend.hash]
    for backend in BACKENDS.values()
    if backend.hash is not None and backend.hash in COMPUTABLE
}


# -- does a content have the name it claims? ------------------------------------------------------


class Verifier:
    """Content on its way, compared with its key. Feed it every byte, in order, from the first.

    Attributes:
        key: The key that the content claims.
        received: Bytes so far.
    """

    __slots__ = ("_expected", "_hash", "_update", "key", "received")

    def __init__(self, key: Key, content_hash: Hash, digest: bytes) -> None:
        self.key, self._hash, self._expected = key, content_hash, digest
        self._update = content_hash.update
        self.received = 0

    def update(self, data: Buffer) -> None:
        """Take the next bytes. Other threads run meanwhile when they are more than 2 KiB."""
        self.received += len(data)
        self._update(data)

    def matches(self) -> bool:
        """True when the bytes so far are the content of the key: its digest and, if it tells, its size."""
        size = self.key.size
        return (size is None or size == self.received) and self._hash.hexdigest().encode() == self._expected


def digest_of(key: Key) -> bytes:
    """The digest in the name of a hash key: up to the first dot; of GITBUNDLE, after the last hyphen.

    A backslash before it is passed over: old versions of git-annex wrote one when the file name had one.
    Measured: git-annex verifies such keys, and non-E keys that have an extension all the same.
    """
    if key.backend == b"GITBUNDLE":
        return key.name.rpartition(b"-")[2]
    return key.name.partition(b".")[0].removeprefix(b"\\")


def verifier(key: Key) -> Verifier | None:
    """What proves a content to be that of *key*, or None when nothing here can (``is_verifiable``).

    Raises:
        Refused: The hash needs a package of the extra ``hashes`` that is not installed.
    """
    make = _VERIFIED.get(key.backend)
    if make is None or key.is_chunk:
        return None
    return Verifier(key, make(), digest_of(key))


def is_verifiable(key: Key) -> bool:
    """True when annexpy can prove a content to be that of *key*.

    False for Skein and BLAKE2SP224 too, which git-annex can verify; and for keys of chunks, whose digest is
    that of the whole content.
    """
    return key.backend in _VERIFIED and not key.is_chunk


def is_secure(key: Key, equivalent: Iterable[Key] = ()) -> bool:
    """True when the backend of *key* is cryptographically secure (``securehash`` of preferred content).

    A statement about the name: the content may still be unverified. VURL is as secure as its *equivalent*
    keys (``.log.ek``), and with none known it is; measured.
    """
    if key.backend == b"VURL":
        return all(is_secure(other) for other in equivalent)
    backend = BACKENDS.get(key.backend)
    return backend is not None and backend.secure


# -- which name does a content get? ---------------------------------------------------------------


class Hasher:
    """Makes the key of a content that passes by.

    Attributes:
        update: Takes the next bytes; the hash's own method.
    """

    __slots__ = ("_hash", "backend", "update")

    def __init__(self, backend: bytes = DEFAULT_BACKEND) -> None:
        """Start on an empty content.

        Raises:
            Refused: *backend* is no hash backend, or its hash cannot be computed here.
        """
        known = BACKENDS.get(backend)
        if known is None or known.hash is None or backend == b"GITBUNDLE":
            raise Refused("key backend", backend, "not a hash backend")
        self.backend = known
        self._hash = new_hash(known.hash)
        self.update: Callable[[Buffer], object] = self._hash.update

    def key(self, size: int, extension: bytes = b"") -> Key:
        """The key of what was hashed: *size* bytes, of a file with that *extension* (``extension()``).

        A backend without ``E`` does not use the extension.
        """
        digest = self._hash.hexdigest().encode()
        return Key(self.backend.name, digest + extension if self.backend.extension else digest, size)


def name_content(chunks: Iterable[Buffer], backend: bytes = DEFAULT_BACKEND, extension: bytes = b"") -> Key:
    """The key of a content given in pieces.

    Args:
        chunks: The bytes, in order.
        backend: Its name: ``b"SHA256E"``, and so on.
        extension: With its dot, for a backend that ends in ``E``; others leave it out.

    Raises:
        Refused: As ``Hasher``.
    """
    hasher, size = Hasher(backend), 0
    for chunk in chunks:
        hasher.update(chunk)
        size += len(chunk)
    return hasher.key(size, extension)


def extension(filename: bytes, max_length: int = 4, max_extensions: int = 2) -> bytes:
    """The extension that a key of an E-backend takes from a file name, with its dots: ``.tar.gz``.

    Args:
        filename: A path; only its last component counts.
        max_length: ``annex.maxextensionlength``: the first longer part, from the right, ends the extension.
        max_extensions: ``annex.maxextensions``.
    """
    name = filename.rpartition(b"/")[2].lstrip(b".")
    kept: list[bytes] = []
    for part in reversed(name.split(b".")[1:]):
        if len(part) > max_length:
            break
        # a short part with other characters is passed over and does not end the walk
        if all(byte >= 0x80 or bytes((byte,)).isalnum() for byte in part):
            kept.append(part)
    return b"".join([b"." + part for part in reversed(kept[:max_extensions]) if part])


def worm_key(path: bytes, size: int, mtime: int) -> Key:
    """The key of the file at *path*, as the path is to be seen from the top of the repository.

    Args:
        path: Becomes the name, sanitised.
        size: In bytes.
        mtime: Last change, in whole seconds since 1970.

    Raises:
        InvalidKey: *mtime* lies before 1970: the key could not be read back.
    """
    if mtime < 0:
        raise InvalidKey("key mtime", mtime, "not before 1970")
    return Key(b"WORM", _sanitised(path), size, mtime=mtime)


def url_key(url: bytes, size: int | None = None, *, backend: bytes = b"VURL") -> Key:
    """The key of what an address holds. ``VURL`` is what git-annex makes of an address today."""
    return Key(backend, _sanitised(url), size)


_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-_/%:")


def _sanitised(name: bytes) -> bytes:
    """*name* fit for a key: odd characters as ``,`` and code point; beyond 64 bytes cut, with an md5 of all."""
    text = "".join(
        [c if c in _PLAIN else ",," if c == "," else f",{ord(c)}" for c in name.decode("utf-8", "surrogateescape")]
    )
    if len(name) > 64:
        return text[:31].encode() + b"-" + hashlib.md5(name, usedforsecurity=False).hexdigest().encode()
    return text.encode()
