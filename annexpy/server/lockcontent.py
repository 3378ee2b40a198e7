"""LOCKCONTENT of a session: the content stays locked until the client unlocks it, or is gone."""

from __future__ import annotations

import logging

import anyio

from annexpy.errors import AnnexError, KeyNotPresent, NotLocked
from annexpy.keys.key import Key
from annexpy.p2p.connection import Unexpected
from annexpy.p2p.messages import FAILURE, SUCCESS, Error, UnlockContent
from annexpy.remote.base import Remote
from annexpy.server.limits import Quota
from annexpy.server.wire import ClientGone, ClientWire

__all__ = ["keep_locked"]

log = logging.getLogger(__name__)


async def keep_locked(wire: ClientWire, remote: Remote, key: Key, quota: Quota | None, client: str, who: str) -> None:
    """Answer LOCKCONTENT, hold the lock for as long as the client wants, and answer what it says in place of the end.

    The lock is left with ``ConnectionLost`` when the client vanishes, and when this is interrupted.

    Args:
        wire: To the client.
        remote: Who is to lock.
        key: What.
        quota: How many locks clients may hold.
        client, who: For the quota.

    Raises:
        ClientGone: It left without a word.
    """
    if quota is not None and not quota.take(client, who):
        wire.say(Error("too many content locks are held for this client"))
        return
    told = unlocked = False
    stopped: BaseException | None = None
    try:
        async with remote.lock_content(key) as lock:
            wire.say(SUCCESS)
            told = True
            wire.held = lock
            try:
                await _until_unlocked(wire)
            except (anyio.get_cancelled_exc_class(), KeyboardInterrupt, SystemExit) as error:
                stopped = error  # we are ended; the client may go on, and relies on the lock
                raise wire.gone("the server ends") from None
            unlocked = True
    except ClientGone:
        if stopped is not None:
            raise stopped from None
        raise
    except AnnexError as error:
        if stopped is not None:
            raise stopped from None
        if told:
            log.warning("%s: unlocking %s: %s", wire.peer, key, error)
        elif isinstance(error, NotLocked | KeyNotPresent):
            wire.say(FAILURE)
        else:
            wire.say(Error(str(error)))
    finally:
        wire.held = None
        if quota is not None:
            quota.give_back(client, who, left_behind=told and not unlocked)


async def _until_unlocked(wire: ClientWire) -> None:
    match await wire.next():
        case UnlockContent():
            pass
        case Unexpected(_, answer):
            wire.say(answer)
        case _:
            raise wire.gone()
