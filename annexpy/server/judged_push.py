"""Pushes over whatever wire: what git is run with, so that ``receive-pack`` takes what who pushes may say, and no more.

The one place where ssh, smart HTTP and CONNECT meet; ``push_rules`` has the rules and ``pre_receive`` the hook.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

from annexpy.repo.repository import Repository
from annexpy.server.gateway import Gateway
from annexpy.server.pre_receive import guarded
from annexpy.server.push_rules import PushRules
from annexpy.uuids import UUID

__all__ = ["judged_push"]

_NONE: Final[Mapping[str, str]] = MappingProxyType({})
_APPEND_ONLY: Final = ("-c", "receive.denyDeletes=true", "-c", "receive.denyNonFastForwards=true")


@asynccontextmanager
async def judged_push(
    directory: str,
    place: Gateway | Repository | None,
    uuids: frozenset[UUID] | None,
    *,
    append_only: bool = False,
) -> AsyncIterator[tuple[list[str], Mapping[str, str]]]:
    """Options for ``git`` before its command, and variables, for a push into *directory*.

    Args:
        directory: The repository.
        place: The same, if it is one of git-annex: about what is served there a push may say what is known.
        uuids: Of the repositories for which who pushes may speak; None: for everybody.
        append_only: Nothing may be deleted or rewound.

    Raises:
        AccessDenied, ConnectFailed: It cannot be judged, so there is no push.
    """
    if uuids is None and not append_only:
        yield [], _NONE
        return
    rules = PushRules(uuids)
    if place is not None:
        repository, hosts = (place.repository, place.uuids()) if isinstance(place, Gateway) else (place, (place.uuid,))
        rules = PushRules(uuids, frozenset(hosts), levels=repository.tuning.branch_levels)
    async with guarded(directory, rules) as (options, variables):
        yield [*(_APPEND_ONLY if append_only else ()), *options], variables
