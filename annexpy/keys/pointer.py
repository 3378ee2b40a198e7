"""Which key an annexed file has: by what git keeps in its place, a symbolic link or a pointer.

Source: fact sheet repository-format, section 2, and what ``git annex lookupkey`` says of the files in
``tests/annexpy/keys/test_pointer.py``.
"""

from __future__ import annotations

from typing import Final

from annexpy.errors import InvalidKey
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, key_file

__all__ = ["MAX_POINTER", "key_of_link", "key_of_pointer", "pointer"]

MAX_POINTER: Final = 32 * 1024
"""Bytes of a pointer: a file that is larger is none."""

_OBJECTS: Final = b"/annex/objects/"


def key_of_link(target: bytes) -> Key | None:
    """The key of a locked file, from the *target* of its symbolic link; None for any other link."""
    return _key(target) if _OBJECTS in target else None


def key_of_pointer(content: bytes) -> Key | None:
    """The key of an unlocked file, from the *content* that git has of it; None for any other content."""
    if not content.startswith(_OBJECTS) or len(content) > MAX_POINTER:
        return None
    first, *more = content.split(b"\n")
    if more and (more.pop() or any(b"/annex/" not in line for line in more)):
        return None  # something was appended to it
    return _key(first.removesuffix(b"\r"))


def pointer(key: Key) -> bytes:
    """What git has of an unlocked file with *key*, without the end of the line."""
    return _OBJECTS + key_file(key)


def _key(path: bytes) -> Key | None:
    try:
        return file_key(path.rpartition(b"/")[2])
    except InvalidKey:
        return None
