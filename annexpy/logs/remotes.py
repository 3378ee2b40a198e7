"""Special remotes: their configuration, and what they keep in the branch about each key.

Source: fact sheet repository-format, section 3. Measured beyond it: which chunk lines parse, the order of
chunk lines, which names in remote.log are blanks.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from annexpy.logs.uuidbased import MapLog, UUIDBasedLog, raw, text, to_uuid
from annexpy.patterns import regex
from annexpy.uuids import UUID

__all__ = [
    "CHUNKS",
    "CONTENT_IDENTIFIERS",
    "EXPORTS",
    "REMOTE_STATES",
    "SPECIAL_REMOTES",
    "Chunking",
    "Exported",
    "decode_value",
    "encode_value",
]


# -- remote.log -----------------------------------------------------------------------------------


# what git-annex takes for a blank: ASCII, and the separators of Unicode
_BLANKS: Final = " \t\n\r\f\v\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_WORDS: Final = regex(f"[^{_BLANKS}]+")
_ESCAPED: Final = regex(f"[&{_BLANKS}]")
_CODE: Final = regex(r"&([0-9]{1,9});")


def _character(match: re.Match[str]) -> str:
    code = int(match[1])
    # what is no character of a file name either stays as it is written
    return chr(code) if code < 0xD800 or 0xDC80 <= code <= 0xDCFF or 0xE000 <= code <= 0x10FFFF else match[0]


def _read_config(value: bytes) -> dict[str, str]:
    config = {}
    for word in _WORDS.findall(text(value)):
        name, _, escaped = word.partition("=")
        config[name] = _CODE.sub(_character, escaped)
    return config


def _write_config(value: Mapping[str, str]) -> bytes:
    return b" ".join(
        [raw(f"{name}=" + _ESCAPED.sub(lambda m: f"&{ord(m[0])};", value[name])) for name in sorted(value)]
    )


SPECIAL_REMOTES: Final = UUIDBasedLog[Mapping[str, str]](_read_config, _write_config)
"""remote.log: the configuration of each special remote (``name``, ``type``, ``encryption`` …)."""


# -- KEY.log.rmt, KEY.log.cid ---------------------------------------------------------------------


REMOTE_STATES: Final = MapLog[UUID, str](to_uuid, raw, text, raw)
"""KEY.log.rmt: what a special remote wants to remember about the key."""


def encode_value(value: bytes, odd: bytes) -> bytes:
    """*value*, as ``!`` and base64 when it starts with ``!`` or holds one of the *odd* bytes."""
    if value.startswith(b"!") or any(byte in odd for byte in value):
        return b"!" + b64encode(value)
    return value


def decode_value(value: bytes) -> bytes | None:
    """The inverse of ``encode_value``; None when there is no base64 after the ``!``."""
    if not value.startswith(b"!"):
        return value
    try:
        return b64decode(value[1:], validate=True)
    except Error:
        return None


def _read_identifiers(value: bytes) -> tuple[bytes, ...]:
    # one that does not decode is taken as it stands, as git-annex does
    return tuple([part if (cid := decode_value(part)) is None else cid for part in value.split(b":")])


def _write_identifiers(value: tuple[bytes, ...]) -> bytes:
    return b":".join([encode_value(cid, b":\r\n") for cid in value])


CONTENT_IDENTIFIERS: Final = MapLog[UUID, tuple[bytes, ...]](to_uuid, raw, _read_identifiers, _write_identifiers)
"""KEY.log.cid: what an importing remote calls the content; opaque bytes."""


# -- KEY.log.cnk ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a remote has a key in chunks: bytes of a chunk, or the name of another method."""

    uuid: UUID
    method: int | str


def _read_chunking(field: bytes) -> Chunking | None:
    uuid, colon, method = field.partition(b":")
    if not colon:
        return None
    if not method[:1].isdigit():
        return Chunking(to_uuid(uuid), text(method))
    if not method.isdigit() or len(method) > 4000:
        return None
    # git-annex keeps it in 64 bits, and a large one wraps
    return Chunking(to_uuid(uuid), (int(method) + 2**63) % 2**64 - 2**63)


def _write_chunking(field: Chunking) -> bytes:
    method = b"%d" % field.method if isinstance(field.method, int) else raw(field.method)
    return raw(field.uuid) + b":" + method


def _chunking_order(field: Chunking) -> tuple[object, ...]:
    if isinstance(field.method, int):
        return raw(field.uuid), 0, field.method
    return raw(field.uuid), 1, raw(field.method)


def _read_count(value: bytes) -> int | None:
    return int(value) if value.isdigit() and len(value) <= 4000 else None


CHUNKS: Final = MapLog[Chunking, int](
    _read_chunking, _write_chunking, _read_count, lambda count: b"%d" % count, order=_chunking_order
)
"""KEY.log.cnk: in how many chunks a remote has the key; 0 when it no longer has."""


# -- export.log -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exported:
    """From which repository a remote was exported to."""

    source: UUID
    remote: UUID


def _read_exported(field: bytes) -> Exported | None:
    source, colon, remote = field.partition(b":")
    return Exported(to_uuid(source), to_uuid(remote)) if colon else None


def _read_trees(value: bytes) -> tuple[str, ...] | None:
    trees = value.split(b" ")
    return tuple(map(text, trees)) if all(trees) else None


EXPORTS: Final = MapLog[Exported, tuple[str, ...]](
    _read_exported,
    lambda field: raw(field.source) + b":" + raw(field.remote),
    _read_trees,
    lambda trees: b" ".join(map(raw, trees)),
)
"""export.log: the tree that a remote holds, and after it those of exports that were not finished."""
