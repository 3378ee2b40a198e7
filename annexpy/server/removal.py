"""Removals that clients ask for, over whatever wire: until when, many at once, and what to say of those not made."""

from __future__ import annotations

from collections.abc import Sequence

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import AnnexError, ContentLocked, InvalidInput, TimedOut, TransportError
from annexpy.keys.key import Key
from annexpy.remote.base import BatchRemove, Remote, Removed, may_happen_yet

__all__ = ["obstacle", "removal_deadline", "remove_together"]


def removal_deadline(timestamp: int, clock: Clock) -> Deadline:
    """Until when a removal may be made that is to happen before *timestamp*.

    Raises:
        InvalidInput: No lock lasts that long: the proof is older than our last reboot.
    """
    if timestamp > clock.now() + MAX_REMOVAL_AHEAD:
        raise InvalidInput("timestamp", timestamp, f"at most {MAX_REMOVAL_AHEAD} seconds ahead")
    return Deadline(float(timestamp))


async def remove_together(
    remote: Remote, keys: Sequence[Key], deadline: Deadline | None
) -> Sequence[Removed | AnnexError]:
    """What becomes of each of *keys*, as if it was alone."""
    if len(keys) > 1 and isinstance(remote, BatchRemove):
        try:
            return await remote.remove_content_many(keys, deadline=deadline)
        except AnnexError as error:
            if isinstance(error, TransportError) or may_happen_yet(error):
                return [error] * len(keys)
            # One spoils it for all: what is gone by now counts as removed.
    told: list[Removed | AnnexError] = []
    for key in keys:
        try:
            told.append(await remote.remove_content(key, deadline=deadline))
        except AnnexError as error:
            told.append(error)
    return told


def obstacle(removed: Removed | AnnexError) -> AnnexError | None:
    """Why nobody removed it, first of all that nobody knows; None where "not removed" says as much."""
    if isinstance(removed, AnnexError):
        failed: Sequence[AnnexError] = (removed,)
    else:
        failed = () if removed.ok or removed.uuids else tuple(removed.failed.values())
    reasons = [error for error in failed if not _is_no(error)]
    return next(filter(may_happen_yet, reasons), reasons[0] if reasons else None)


def _is_no(error: AnnexError) -> bool:
    """It is there and stays, locked or asked for too late: not that nobody knows."""
    return isinstance(error, ContentLocked | TimedOut) and not may_happen_yet(error)
