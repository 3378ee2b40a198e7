"""Git objects that are small on disk and would be huge, or endless, for whoever believes them."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from annexpy.errors import RepositoryError
from annexpy.repo.files import DiskFiles
from annexpy.repo.packs import ObjectFiles

BLOB, OFFSET_DELTA, REF_DELTA = 3, 6, 7
MOST = 16 << 20
"""Bytes that a refusal may take."""


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


def packed(folder: Path, entries: list[bytes]) -> ObjectFiles:
    """A repository with one pack, whose objects are named in the order of *entries*."""
    pack, offsets = bytearray(b"PACK\0\0\0\2" + len(entries).to_bytes(4, "big")), []
    for entry in entries:
        offsets.append(len(pack))
        pack += entry
    fanout = b"".join(min(first, len(entries)).to_bytes(4, "big") for first in range(256))
    names = b"".join(map(name, range(len(entries))))
    places = b"".join(offset.to_bytes(4, "big") for offset in offsets)
    at = folder / "objects/pack"
    at.mkdir(parents=True)
    (at / "pack-x.pack").write_bytes(pack + bytes(20))
    (at / "pack-x.idx").write_bytes(b"\xfftOc\0\0\0\2" + fanout + names + bytes(4 * len(entries)) + places + bytes(40))
    return ObjectFiles(DiskFiles(folder))


def loose(folder: Path, content: bytes) -> ObjectFiles:
    at = folder / "objects" / name(0)[:1].hex() / name(0)[1:].hex()
    at.parent.mkdir(parents=True)
    at.write_bytes(zlib.compress(content, 1))
    return ObjectFiles(DiskFiles(folder))


def blob(content: bytes) -> bytes:
    return head(BLOB, len(content)) + zlib.compress(content, 1)


def delta(base: int, content: bytes) -> bytes:
    return head(REF_DELTA, len(content)) + name(base) + zlib.compress(content, 1)


BASE = bytes(60_000)
LONG = bytes(3 << 20)
COPY = b"\xb0" + len(BASE).to_bytes(2, "little")
"""All of the base, once more."""

BOMBS: dict[str, Callable[[Path], ObjectFiles]] = {
    "a file that is larger than it says": lambda folder: loose(folder, b"blob 10\0" + bytes(64 << 20)),
    "a file without an end of its head": lambda folder: loose(folder, b"blob 1" + b"0" * (64 << 20)),
    "an object in a pack that is larger than it says": lambda folder: packed(
        folder, [head(BLOB, 10) + zlib.compress(bytes(64 << 20), 1)]
    ),
    "a delta that makes more than it says": lambda folder: packed(
        folder, [delta(1, number(len(BASE)) + number(10) + COPY * 2000), blob(BASE)]
    ),
    "deltas upon deltas": lambda folder: packed(folder, [*(delta(place + 1, LONG) for place in range(40)), blob(BASE)]),
    "a delta upon itself": lambda folder: packed(folder, [delta(0, LONG)]),
    "a base without an end": lambda folder: packed(folder, [head(OFFSET_DELTA, 3) + b"\xff" * (1 << 20)]),
    "a size without an end": lambda folder: packed(folder, [b"\xff" * (1 << 20)]),
    "a size without an end in a delta": lambda folder: packed(folder, [delta(1, b"\xff" * (1 << 20)), blob(BASE)]),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_takes_no_memory(bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "upon" in bomb:  # each of which may be as large as that
        monkeypatch.setattr("annexpy.repo.packs.LARGEST", 4 << 20)
    objects = BOMBS[bomb](tmp_path)

    tracemalloc.start()
    try:
        with pytest.raises(RepositoryError):
            objects.get(name(0))
        assert tracemalloc.get_traced_memory()[1] < MOST
    finally:
        tracemalloc.stop()
        objects.close()


def test_what_looks_like_them_and_is_none_is_read(tmp_path: Path) -> None:
    twice = delta(1, number(len(BASE)) + number(2 * len(BASE)) + COPY * 2)
    objects = packed(tmp_path, [twice, blob(BASE)])

    assert objects.get(name(0)) == (BLOB, BASE * 2)
    assert objects.get(name(1)) == (BLOB, BASE)
    objects.close()
    assert loose(tmp_path / "2", b"blob 60000\0" + BASE).get(name(0)) == (BLOB, BASE)
