"""CHECKPRESENT and REMOVE of a session: those that are in the buffer together are one batch for the remote."""

from __future__ import annotations

from collections.abc import Sequence

from annexpy.clock import Clock
from annexpy.errors import AnnexError, ConnectionLost, InvalidInput, RemoteProtocolError, TransportError
from annexpy.keys.key import Key
from annexpy.p2p.connection import CLOSED, ConnectionEvent
from annexpy.p2p.messages import FAILURE, SUCCESS, CheckPresent, Error, FailurePlus, Remove, RemoveBefore, SuccessPlus
from annexpy.remote.base import BatchRemove, Remote, Removed, check_present_many, may_happen_yet
from annexpy.server.removal import obstacle, removal_deadline, remove_together
from annexpy.server.wire import ClientWire, HangUp, others

__all__ = ["check_waiting", "remove_waiting"]


async def check_waiting(wire: ClientWire, remote: Remote, first: CheckPresent) -> ConnectionEvent:
    """Answer the presence check *first* and those that are waiting behind it; the event after them."""
    keys, event = _gather(wire, first)
    await wire.make_room(remote)
    present: Sequence[bool | AnnexError]
    try:
        present = [await remote.check_present(keys[0])] if len(keys) == 1 else await _check_many(remote, keys)
    except AnnexError as error:
        present = [error] * len(keys)
    for found in present:
        wire.say(SUCCESS if found is True else FAILURE if found is False else Error(str(found)))
    return event


async def _check_many(remote: Remote, keys: list[Key]) -> list[bool | AnnexError]:
    try:
        return [*await check_present_many(remote, keys)]
    except TransportError:
        raise
    except AnnexError:
        # One key spoils the batch: let it fail alone.
        found: list[bool | AnnexError] = []
        for key in keys:
            try:
                found.append(await remote.check_present(key))
            except AnnexError as error:
                found.append(error)
        return found


async def remove_waiting(
    wire: ClientWire, remote: Remote, first: Remove | RemoveBefore, clock: Clock
) -> ConnectionEvent | None:
    """Answer the removal *first* and those that are waiting behind it; the event after them, if known."""
    deadline = None
    if isinstance(first, RemoveBefore):
        try:
            deadline = removal_deadline(first.timestamp, clock)
        except InvalidInput as error:
            wire.say(Error(str(error)))
            return None
    keys, event = [first.key], None
    if isinstance(remote, BatchRemove):
        keys, event = _gather(wire, first)
    await wire.make_room(remote)
    for removed in await remove_together(remote, keys, deadline):
        _tell_removed(wire, remote, removed)
    return event


def _tell_removed(wire: ClientWire, remote: Remote, removed: Removed | AnnexError) -> None:
    if isinstance(removed, Removed):
        wire.changed = True
        named = others(removed.uuids, remote) if wire.connection.version >= 2 else ()
        if removed.ok:
            wire.say(SuccessPlus(named) if named else SUCCESS)
            return
        if named:
            wire.say(FailurePlus(named))
            return
        if may_happen_yet(*removed.failed.values()):
            raise HangUp(ConnectionLost(remote.name, "the outcome of a removal"))
    elif may_happen_yet(removed):
        raise HangUp(removed)  # which alone says that nobody knows
    why = obstacle(removed)
    wire.say(FAILURE if why is None else Error(str(why)))


def _gather(wire: ClientWire, first: CheckPresent | Remove | RemoveBefore) -> tuple[list[Key], ConnectionEvent]:
    """The keys of *first* and of what asks the same right behind it; then the event after them."""
    keys, kind = [first.key], type(first)
    try:
        while type(event := wire.connection.next_event()) is kind:
            if type(event) is RemoveBefore and type(first) is RemoveBefore and event.timestamp != first.timestamp:
                break
            keys.append(event.key)
    except RemoteProtocolError as error:
        wire.broken = error  # but what came before it is answered
        return keys, CLOSED
    return keys, event
