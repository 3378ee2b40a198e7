"""Where a key lives: key ⇄ file name, hash directories, object and log paths.

Source: fact sheet repository-format, sections 1 and 2; vectors keys.json and escaping.json.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Final

from annexpy.keys.key import Key

__all__ = [
    "file_key",
    "hash_dir_lower",
    "hash_dir_mixed",
    "key_file",
    "location_log",
    "object_paths",
]

_AND, _PERCENT, _COLON, _SLASH = b"&%:/"  # to look for a number is quicker than for a byte string
_REMEMBERED: Final = 512  # whatever is done with one key asks several times where it is
_MIXED: Final = b"0123456789zqjxkmvwgpfZQJXKMVWGPF"


def key_file(key: Key) -> bytes:
    """The file name of *key*, used for objects, partials, transfer files and per-key logs."""
    raw = key.raw
    if _AND in raw or _PERCENT in raw or _COLON in raw or _SLASH in raw:
        raw = raw.replace(b"&", b"&a").replace(b"%", b"&s").replace(b":", b"&c").replace(b"/", b"%")
    return raw


def file_key(name: bytes) -> Key:
    """The key of a file name; the inverse of ``key_file``.

    Raises:
        InvalidKey: The name is no escaped key.
    """
    if b"%" in name or b"&" in name:
        parts = name.replace(b"%", b"/").split(b"&")
        back = {b"a": b"&", b"s": b"%", b"c": b":"}
        name = parts[0] + b"".join(back.get(part[:1], part[:1]) + part[1:] for part in parts[1:])
    return Key.parse(name)


def hash_dir_lower(key: Key, levels: int = 2) -> bytes:
    """``abc/def/``: new content of bare repositories, and the logs of every branch."""
    digest = hashlib.md5(key.without_chunk().raw, usedforsecurity=False).hexdigest()
    return f"{digest[:3]}/{digest[3:6]}/".encode() if levels == 2 else f"{digest[:3]}/".encode()


def hash_dir_mixed(key: Key, levels: int = 2) -> bytes:
    """``pX/ZJ/``: new content of repositories with a work tree."""
    return _mixed(hashlib.md5(key.without_chunk().raw, usedforsecurity=False).digest(), levels)


def _mixed(digest: bytes, levels: int) -> bytes:
    word, chars = int.from_bytes(digest[:4], "little"), _MIXED
    if levels == 1:
        return bytes((chars[word >> 6 & 31], chars[word & 31], 47))
    return bytes((chars[word >> 6 & 31], chars[word & 31], 47, chars[word >> 18 & 31], chars[word >> 12 & 31], 47))


@lru_cache(maxsize=_REMEMBERED)
def object_paths(key: Key, *, levels: int = 2) -> tuple[bytes, bytes]:
    """The two places below ``annex/objects`` where the content may be: (lower, mixed)."""
    name = key_file(key)
    below = name + b"/" + name
    md5 = hashlib.md5(key.without_chunk().raw, usedforsecurity=False)  # once for both: every presence check comes here
    digest = md5.hexdigest()
    lower = f"{digest[:3]}/{digest[3:6]}/" if levels == 2 else f"{digest[:3]}/"
    return lower.encode() + below, _mixed(md5.digest(), levels) + below


@lru_cache(maxsize=_REMEMBERED)
def location_log(key: Key, *, levels: int = 2) -> bytes:
    """The branch path of the location log."""
    return hash_dir_lower(key, levels) + key_file(key) + b".log"
