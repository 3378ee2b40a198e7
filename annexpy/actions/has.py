"""Which of many keys a remote has."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from annexpy.keys.key import Key
from annexpy.remote.base import Remote, check_present_many

__all__ = ["has_many"]

_BATCH: Final = 1000


async def has_many(remote: Remote, keys: Iterable[Key]) -> list[bool]:
    """Whether *remote* has each of *keys*, in their order. It looked; no log was believed.

    Pipelined where the remote can: a round trip per thousand keys, not per key.

    Raises:
        AnnexError: As ``check_present``; nothing is known then.
    """
    every = list(keys)
    found: list[bool] = []
    for start in range(0, len(every), _BATCH):
        found += await check_present_many(remote, every[start : start + _BATCH])
    return found
