"""Small contents from one repository on this machine to another: some at once, with one write of their records.

It is done as ``LocalPut`` and ``Local.get`` do it, without switching between tasks. Whatever is not small, or not
begun from nothing, is left to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.remote.base import Stored
from annexpy.remote.local import Local
from annexpy.repo.durability import Change
from annexpy.repo.receiving import Receiving

__all__ = ["Taken", "admitted", "take"]

_NOBODY = Stored()


class Taken(NamedTuple):
    """How it ended: who has the content, or why not; and the bytes that were moved for it."""

    stored: Stored
    error: AnnexError | None = None
    bytes: int = 0


async def take(taker: Local, giver: Local, keys: Sequence[Key]) -> list[Taken | None]:
    """Store the contents of *keys* in *taker*; None for those that want to be put, which were left as they are.

    Every content is verified and recorded before this returns, as *taker* promises: what is synced is synced together.

    Args:
        taker: Where to.
        giver: Where from.
        keys: Each once.
    """
    if giver.store.settings.thin:
        return [None] * len(keys)  # there is something to wait for
    soon = taker.store.settings.soon
    prepared: dict[Key, tuple[Change, AsyncExitStack]] = {}
    failed: dict[Key, AnnexError] = {}
    try:
        taken = [await _one(taker, giver, key, prepared) if soon(key.size) else None for key in keys]
        failed = await taker.store.commit({key: change for key, (change, _) in prepared.items()})
    finally:
        for key, (_, leaving) in prepared.items():
            try:
                await leaving.aclose()
            except AnnexError as error:  # it was not put in place
                failed.setdefault(key, error)
    try:
        await taker.sync_records()
    except AnnexError as error:
        failed = {key: failed.get(key, error) for key in keys}
    return [
        one._replace(stored=_NOBODY, error=one.error or failed[key]) if one is not None and key in failed else one
        for key, one in zip(keys, taken, strict=True)
    ]


def admitted(taker: Local, key: Key, recorded: Callable[[Key], None]) -> Receiving | Taken:
    """The context in which a small content of *key* arrives in *taker*; or how it ends, when none need come.

    Args:
        taker: Where to.
        key: Which.
        recorded: Told that the content is there, now or when it has come.

    Raises:
        AnnexError: Nothing of *key* may come in, or nobody can tell whether it is there.
    """
    taker.check_accepts(key)
    if taker.store.present(key):
        recorded(key)
        return Taken(Stored(already=frozenset((taker.uuid,))))
    # Without the name of the sender there is no file that tells others who sends: it is over before they look.
    return taker.store.receive(key, recorded=recorded)


async def _one(
    taker: Local, giver: Local, key: Key, prepared: dict[Key, tuple[Change, AsyncExitStack]]
) -> Taken | None:
    """Take *key*; what is still to be committed is added to *prepared*."""
    moved = 0
    try:
        begun = admitted(taker, key, partial(taker.record, present=True))
        if isinstance(begun, Taken):
            return begun
        async with AsyncExitStack() as leaving:
            receiving = await leaving.enter_async_context(begun)
            if receiving.there:  # somebody else brought it before it was our turn
                return None
            with giver.store.open(key) as stored:
                if receiving.offset or stored.size != key.size:
                    return None
                await receiving.copy(stored)
                moved = stored.size
                change = await receiving.prepare(valid=stored.unchanged())
            if change is not None:
                prepared[key] = change, leaving.pop_all()
    except AnnexError as error:
        return Taken(_NOBODY, error, moved)
    except OSError as error:
        return Taken(_NOBODY, giver.store.folders.error(key, error), moved)
    return Taken(Stored(frozenset((taker.uuid,))), None, moved)
