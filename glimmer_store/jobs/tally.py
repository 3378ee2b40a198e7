"""How many nodes there are, and how many of them are complete, in memory that does not grow with their number.

A node may have keys in several shards, and is complete when it is so in each of them. Past some 65,000 parts they go
to temporary files, those of one node to the same file, and are counted file by file.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterable
from typing import IO, Final

__all__ = ["NodeTally"]

_IN_MEMORY: Final = 1 << 16
_FILES: Final = 64


class NodeTally:
    """Counts nodes. Close it, or use it in a ``with`` block."""

    def __init__(self) -> None:
        self._parts = array("Q")
        self._files: list[IO[bytes]] = []

    def add(self, parts: Iterable[int]) -> None:
        """Parts as ``ShardSums.nodes`` has them: bits of a hash, bit 0 set where the part is complete."""
        self._parts.extend(parts)
        if len(self._parts) >= _IN_MEMORY:
            self._spill()

    def _spill(self) -> None:
        if not self._files:
            self._files = [tempfile.TemporaryFile() for _ in range(_FILES)]  # noqa: SIM115  # closed below
        sorted_: list[array[int]] = [array("Q") for _ in range(_FILES)]
        for part in self._parts:
            sorted_[(part >> 1) % _FILES].append(part)
        for file, parts in zip(self._files, sorted_, strict=True):
            file.write(parts.tobytes())
        self._parts = array("Q")

    def counts(self) -> tuple[int, int]:
        """(complete, all) of what was added so far."""
        if not self._files:
            return _count(self._parts)
        self._spill()
        complete = whole = 0
        for file in self._files:
            file.seek(0)
            parts = array("Q")
            parts.frombytes(file.read())
            one, of = _count(parts)
            complete, whole = complete + one, whole + of
        return complete, whole

    def close(self) -> None:
        """Give the files back."""
        while self._files:
            self._files.pop().close()

    def __enter__(self) -> NodeTally:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _count(parts: array[int]) -> tuple[int, int]:
    whole = {part >> 1 for part in parts}
    incomplete = {part >> 1 for part in parts if not part & 1}
    return len(whole) - len(incomplete), len(whole)
