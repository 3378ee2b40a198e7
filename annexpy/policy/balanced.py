"""Whose turn it is: how ``balanced`` and its kin share the keys among the repositories of a group.

Every repository comes to the same answer without asking anybody: the key is hashed with the members of the
group, and the number that comes out is a place in the sorted list of those that have room.

The manual says that ``fullybalanced`` goes by size where many repositories are more than 90 % full
(annex.fullybalancedthreshhold); git-annex 10.20261026 does not (measured), and neither does this.

Source: fact sheet repository-format, section 6 (balanced); vectors balanced.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from functools import lru_cache
from hmac import digest

from annexpy.keys.key import Key
from annexpy.logs.uuidbased import raw
from annexpy.uuids import UUID

__all__ = ["has_room", "pick", "roomiest"]


def pick(members: Collection[UUID], candidates: Collection[UUID], key: Key, number: int) -> list[UUID]:
    """The *number* of *candidates* whose turn it is to have *key*, in turn.

    Args:
        members: Everybody in the group, room or not.
        candidates: Those of them that may be picked.
        key: The key.
        number: How many; all candidates when it is more than there are.
    """
    if not candidates or number <= 0:
        return []
    order = sorted(candidates)
    place = int.from_bytes(digest(_secret(frozenset(members)), key.raw, hashlib.sha256), "big")
    return [order[(place + n) % len(order)] for n in range(min(number, len(order)))]


@lru_cache(maxsize=64)
def _secret(members: frozenset[UUID]) -> bytes:
    return raw("".join(sorted(members)))


def has_room(uuid: UUID, key: Key, present: bool, sizes: Mapping[UUID, int], maxsizes: Mapping[UUID, int]) -> bool:
    """True when *uuid* can take *key*, or keep it where it is *present*. Whoever has no maxsize has room."""
    maxsize = maxsizes.get(uuid)
    if maxsize is None:
        return True
    return sizes.get(uuid, 0) + (0 if present else key.size or 0) <= maxsize


def roomiest(
    candidates: Collection[UUID],
    key: Key,
    holders: Collection[UUID],
    number: int,
    sizes: Mapping[UUID, int],
    maxsizes: Mapping[UUID, int],
) -> list[UUID]:
    """The *number* of *candidates* with the largest part of their maxsize free; only those with a maxsize."""

    def free(uuid: UUID) -> tuple[float, UUID]:
        maxsize = maxsizes[uuid]
        kept = key.size or 0 if uuid in holders else 0
        return (maxsize - sizes.get(uuid, 0) + kept) / maxsize, uuid

    limited = [uuid for uuid in candidates if maxsizes.get(uuid, 0) > 0]
    return sorted(limited, key=free, reverse=True)[: max(number, 0)]
