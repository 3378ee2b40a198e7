"""Git objects by hand: what a pack and its index are made of, right or wrong."""

from __future__ import annotations

import zlib

from annexpy.repo.door import Files
from annexpy.repo.packs import ObjectFiles

__all__ = ["BLOB", "OFFSET_DELTA", "blob", "delta", "head", "loose", "name", "number", "packed"]

BLOB, OFFSET_DELTA, REF_DELTA = 3, 6, 7


def number(value: int) -> bytes:
    """As deltas have it."""
    found = bytearray()
    while value >= 128:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes((*found, value))


def head(kind: int, size: int) -> bytes:
    byte, size = kind << 4 | size & 15, size >> 4
    return bytes((byte | 128,)) + number(size) if size else bytes((byte,))


def name(place: int) -> bytes:
    return bytes((place + 1,)) * 20


def blob(content: bytes) -> bytes:
    return head(BLOB, len(content)) + zlib.compress(content, 1)


def delta(base: int, content: bytes) -> bytes:
    return head(REF_DELTA, len(content)) + name(base) + zlib.compress(content, 1)


def packed(files: Files, entries: list[bytes]) -> ObjectFiles:
    """The objects of a repository with one pack, whose objects are named in the order of *entries*."""
    pack, offsets = bytearray(b"PACK\0\0\0\2" + len(entries).to_bytes(4, "big")), []
    for entry in entries:
        offsets.append(len(pack))
        pack += entry
    fanout = b"".join(min(first, len(entries)).to_bytes(4, "big") for first in range(256))
    names = b"".join(map(name, range(len(entries))))
    places = b"".join(offset.to_bytes(4, "big") for offset in offsets)
    files.make_folders(b"objects/pack")
    files.replace(b"objects/pack/pack-x.pack", bytes(pack + bytes(20)), sync=False)
    index = b"\xfftOc\0\0\0\2" + fanout + names + bytes(4 * len(entries)) + places + bytes(40)
    files.replace(b"objects/pack/pack-x.idx", index, sync=False)
    return ObjectFiles(files)


def loose(files: Files, content: bytes) -> ObjectFiles:
    """With one object that is a file of its own, the first one."""
    folder = b"objects/" + name(0)[:1].hex().encode()
    files.make_folders(folder)
    files.replace(folder + b"/" + name(0)[1:].hex().encode(), zlib.compress(content, 1), sync=False)
    return ObjectFiles(files)
