"""What kind of place a Remote is, whatever is wrapped around it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeGuard

from annexpy.errors import AnnexError, UnknownUUID
from annexpy.remote.base import Connects, HasNodes, Remote
from annexpy.remote.health import Limited
from annexpy.remote.local import Local
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.wrappers import Wrapper
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.remote.p2p import P2PRemote

__all__ = ["bare_local", "is_behind_wire", "is_local", "is_p2p", "known", "members"]


def members(remote: Remote) -> Iterator[Remote]:
    """*remote*, or the repositories it is made of, all the way down: what may be a copy."""
    if isinstance(remote, HasNodes):
        for node in remote.nodes:
            yield from members(node)
    else:
        yield remote


def _innermost(remote: Remote) -> Remote:
    while isinstance(remote, Wrapper):
        remote = remote.remote
    return remote


def bare_local(remote: Remote) -> Local | None:
    """The repository on this machine that *remote* is; None when it is none, wraps one, or is not there."""
    try:
        local = remote.local if isinstance(remote, LocalPlace) else remote
    except AnnexError:
        return None
    return local if isinstance(local, Local) else None


def is_local(remote: Remote) -> bool:
    """What is done at *remote* is done by this process itself."""
    return isinstance(_innermost(remote), Local | LocalPlace)


def is_behind_wire(remote: Remote) -> bool:
    """*remote* is asked over connections, of which there are few."""
    inner = _innermost(remote)  # by what they can do: to import their modules takes time
    return isinstance(inner, Limited) and not isinstance(inner, HasNodes)


def is_p2p(remote: Remote) -> TypeGuard[P2PRemote]:
    """*remote* itself is asked in lines. Who has no such remote need not import what speaks them to hear so."""
    # Another thread may be in the middle of importing it: then there is no class yet, and no such remote.
    kind = getattr(sys.modules.get("annexpy.remote.p2p"), "P2PRemote", None)
    return kind is not None and isinstance(remote, kind)


async def known(remote: Remote) -> UUID:
    """The UUID of *remote*, connecting to it when there is no other way to learn it."""
    try:
        return remote.uuid
    except UnknownUUID:
        if isinstance(remote, Connects):
            return await remote.connect()
        raise
