"""Which keys we take into a store: stricter than what git-annex reads (``Key.parse``).

A key becomes a file name, a line of the protocol and a path in a branch, here and at every peer that it is
passed on to; and a store that answers for its contents should not take a name that cannot be right.

Source: fact sheet reliability-and-ecosystem, table 1.3.
"""

from __future__ import annotations

from typing import Final

from annexpy.errors import InvalidKey
from annexpy.keys.backend import BACKENDS, digest_of, is_verifiable
from annexpy.keys.hashes import DIGESTS
from annexpy.keys.key import MAX_SIZE, Key
from annexpy.keys.layout import key_file
from annexpy.patterns import regex

__all__ = ["MAX_FILE_NAME", "check_storable"]

MAX_FILE_NAME: Final = 255
"""Bytes of a file name, on every file system that we know."""

_BACKEND: Final = regex(rb"[A-Z0-9_]+")
_CONTROL: Final = regex(rb"[\x00-\x1f\x7f]")
_DIGEST: Final = regex(rb"[0-9a-f]+")


def check_storable(key: Key, *, allow_unverifiable: bool = True) -> None:
    """Say whether new content may be stored under *key*.

    Args:
        key: The key that somebody wants to store.
        allow_unverifiable: False where only contents may come in that annexpy can prove: no WORM, URL,
            unknown backends, keys of chunks.

    Raises:
        InvalidKey: Control characters; a backend with other than ``[A-Z0-9_]``; an empty name; a digest of
            the wrong length, or not in lower-case hexadecimal; a number of 2^63 or more; half a chunk; a file
            name that the object, its lock or its log could not have; or not verifiable.
    """
    raw = key.raw
    if _CONTROL.search(raw):
        raise InvalidKey("key", raw, "no control characters")
    if not _BACKEND.fullmatch(key.backend):
        raise InvalidKey("key backend", raw, "only [A-Z0-9_]")
    if not key.name:
        raise InvalidKey("key name", raw, "not empty")
    _check_numbers(key)
    backend = BACKENDS.get(key.backend)
    if backend is not None and backend.hash is not None:
        digits = DIGESTS[backend.hash]
        digest = digest_of(key)
        # digest_of passes over the backslash of old keys; no new ones
        if len(digest) != digits or not _DIGEST.fullmatch(digest) or key.name.startswith(b"\\"):
            raise InvalidKey("key digest", raw, f"{digits} lower-case hexadecimal digits")
    name = key_file(key)
    # the object is locked by NAME.lck, and logged through the journal as abc_def_NAME.log with _ doubled
    if max(len(name), 8 + len(name) + name.count(b"_")) + 4 > MAX_FILE_NAME:
        raise InvalidKey("key file name", raw, f"at most {MAX_FILE_NAME} bytes with its lock and its journal entry")
    if not allow_unverifiable and not is_verifiable(key):
        raise InvalidKey("key backend", raw, "not one whose content can be verified here")


def _check_numbers(key: Key) -> None:
    if key.size is not None and key.size > MAX_SIZE:
        raise InvalidKey("key size", key.raw, "at most 2^63-1 bytes")
    if key.mtime is not None and key.mtime < 0:
        raise InvalidKey("key mtime", key.raw, "at most 2^63-1 seconds")
    if not key.is_chunk:
        return
    if key.chunk_size is None or key.chunk_number is None or key.chunk_number < 1:
        raise InvalidKey("key chunk", key.raw, "a size and a number from 1")
    if max(key.chunk_size, key.chunk_number) > MAX_SIZE:
        raise InvalidKey("key chunk", key.raw, "at most 2^63-1")
