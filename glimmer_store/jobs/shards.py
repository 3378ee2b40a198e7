"""Sort tasks into shards while they are found, with memory that does not grow with their number.

A shard holds tasks of one destination and one rank, at most 500 keys or 20 GB; a huge key stands alone. Ranks put the
objects with the fewest copies first, among those the irreplaceable ones, and among those the small ones. So sorting
the names of the shards sorts the work, and no list of all keys is ever in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from glimmer_store.jobs.event import Task
from glimmer_store.policy import StorageClass

__all__ = ["BYTES", "KEYS", "into_shards", "rank"]

KEYS: Final = 500
BYTES: Final = 20_000_000_000
_HUGE: Final = BYTES // 4
_SIZES: Final = (1 << 20, 1 << 26, 1 << 30)
_MOST_COPIES: Final = 9


def rank(copies: int, storage_class: str, size: int | None) -> int:
    """How late it is due: 0 comes first."""
    importance = {StorageClass.IRREPLACEABLE.value: 0, StorageClass.GENERATED.value: 1}.get(storage_class, 2)
    small = 0 if size is None else sum(size > limit for limit in _SIZES)
    return (min(copies, _MOST_COPIES) * 3 + importance) * (len(_SIZES) + 1) + small


def into_shards(
    tasks: Iterable[tuple[int, Task, int]], *, keys: int = KEYS, size: int = BYTES
) -> Iterator[tuple[str, list[Task]]]:
    """(name, tasks) of each shard, as it is full.

    Args:
        tasks: (number of the destination, task, copies there are) each.
        keys: Most keys in a shard.
        size: Most bytes in a shard.
    """
    open_: dict[tuple[int, int], list[Task]] = {}
    sizes: dict[tuple[int, int], int] = {}
    numbers: dict[tuple[int, int], int] = {}

    def name(place: tuple[int, int]) -> str:
        numbers[place] = number = numbers.get(place, 0) + 1
        return f"{place[0]:03}-{place[1]:03}-{number:06}"

    for dest, task, copies in tasks:
        place = dest, rank(copies, task.storage_class, task.size)
        length = task.size or 0
        if length >= min(_HUGE, size):
            yield name(place), [task]
            continue
        some = open_.setdefault(place, [])
        if some and sizes[place] + length > size:
            yield name(place), some
            some = open_[place] = []
        some.append(task)
        sizes[place] = length + (sizes[place] if len(some) > 1 else 0)
        if len(some) >= keys:
            yield name(place), some
            del open_[place]
    for place, some in open_.items():
        yield name(place), some
