"""Which key an annexed file has: by what git keeps in its place, a symbolic link or a pointer.

Source: fact sheet repository-format, section 2, and what ``git annex lookupkey`` says of the files in
``tests/annexpy/keys/test_pointer.py``.
"""

from __future__ import annotations

from typing import Final

from annexpy.errors import InvalidKey
from annexpy.keys.key import Key
from annexpy.keys.layout import file_key, key_file

__all__ = ["MAX_POINTER", "key_of_pointer", "pointer"]

MAX_POINTER: Final = 32 * 1024
"""Bytes of a pointer: a file that is larger is none."""

_OBJECTS: Final = b"/annex/objects/"


def key_of_pointer(content: bytes) -> Key | None:
    """The key of an annexed file, from the *content* of its pointer or the target of its link; None for any other file.

    A link is a pointer where symbolic links are regular files, so one rule serves both.
    """
    if len(content) > MAX_POINTER or _OBJECTS not in content:
        return None
    first, *more = content.split(b"\n")
    if _OBJECTS not in first or (more and (more.pop() or any(b"/annex/" not in line for line in more))):
        return None  # or something was appended to it
    try:
        return file_key(first.removesuffix(b"\r").rpartition(b"/")[2])
    except InvalidKey:
        return None


def pointer(key: Key) -> bytes:
    """What git has of an unlocked file with *key*."""
    return _OBJECTS + key_file(key) + b"\n"
