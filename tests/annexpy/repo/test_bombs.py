"""Git objects that are small on disk and would be huge, or endless, for whoever believes them."""

from __future__ import annotations

import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from annexpy.errors import RepositoryError
from annexpy.repo.door import Files
from annexpy.repo.files import DiskFiles
from annexpy.repo.packs import ObjectFiles
from tests.fuzz.packs import BLOB, OFFSET_DELTA, blob, delta, head, loose, name, number, packed

MOST = 16 << 20
"""Bytes that a refusal may take."""


BASE = bytes(60_000)
LONG = bytes(3 << 20)
COPY = b"\xb0" + len(BASE).to_bytes(2, "little")
"""All of the base, once more."""

BOMBS: dict[str, Callable[[Files], ObjectFiles]] = {
    "a file that is larger than it says": lambda files: loose(files, b"blob 10\0" + bytes(64 << 20)),
    "a file without an end of its head": lambda files: loose(files, b"blob 1" + b"0" * (64 << 20)),
    "an object in a pack that is larger than it says": lambda files: packed(
        files, [head(BLOB, 10) + zlib.compress(bytes(64 << 20), 1)]
    ),
    "a delta that makes more than it says": lambda files: packed(
        files, [delta(1, number(len(BASE)) + number(10) + COPY * 2000), blob(BASE)]
    ),
    "deltas upon deltas": lambda files: packed(files, [*(delta(place + 1, LONG) for place in range(40)), blob(BASE)]),
    "a delta upon itself": lambda files: packed(files, [delta(0, LONG)]),
    "a base without an end": lambda files: packed(files, [head(OFFSET_DELTA, 3) + b"\xff" * (1 << 20)]),
    "a size without an end": lambda files: packed(files, [b"\xff" * (1 << 20)]),
    "a size without an end in a delta": lambda files: packed(files, [delta(1, b"\xff" * (1 << 20)), blob(BASE)]),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_and_takes_no_memory(bomb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "upon" in bomb:  # each of which may be as large as that
        monkeypatch.setattr("annexpy.repo.packs.LARGEST", 4 << 20)
    objects = BOMBS[bomb](DiskFiles(tmp_path))

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
    objects = packed(DiskFiles(tmp_path), [twice, blob(BASE)])

    assert objects.get(name(0)) == (BLOB, BASE * 2)
    assert objects.get(name(1)) == (BLOB, BASE)
    objects.close()
    (tmp_path / "2").mkdir()
    assert loose(DiskFiles(tmp_path / "2"), b"blob 60000\0" + BASE).get(name(0)) == (BLOB, BASE)
