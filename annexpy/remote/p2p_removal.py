"""Asking a peer to remove contents: one, or many in one go, and never past a deadline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor
from typing import Final

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import (
    AnnexError,
    ConnectFailed,
    ConnectionLost,
    ContentError,
    InvalidInput,
    OutcomeUnknown,
    PeerError,
    TimedOut,
)
from annexpy.keys.key import Key
from annexpy.p2p.messages import (
    GET_TIMESTAMP,
    Error,
    FailurePlus,
    Message,
    Remove,
    RemoveBefore,
    Success,
    SuccessPlus,
    Timestamp,
)
from annexpy.remote.base import Removed
from annexpy.remote.p2p_answers import copies, refusal, unexpected
from annexpy.remote.p2p_pipeline import pipeline
from annexpy.remote.pool import Use
from annexpy.remote.removal_end import NO_DEADLINE, open_end, unknown
from annexpy.remote.wire import Wire, was_stale
from annexpy.remote.wires import Wires
from annexpy.uuids import is_cluster

__all__ = ["Remover"]

_OFFSET_GOOD_FOR: Final = 60.0
_NEW_WIRES: Final = 16
"""How often a pipeline of removals goes on over a new wire after the peer hung up on one of them."""


class Remover:
    """Asks over the wires of *pool*; removal deadlines are said in the clock of the peer, by way of ours."""

    __slots__ = ("_clock", "_pool")

    def __init__(self, pool: Wires, clock: Clock) -> None:
        self._pool, self._clock = pool, clock

    async def remove(self, key: Key, deadline: Deadline | None) -> Removed:
        """As ``P2PRemote.remove_content``."""
        said = False

        async def asked(wire: Wire) -> Removed:
            nonlocal said
            before = None if deadline is None else await self._in_its_clock(wire, deadline)
            if callable(before):
                return Removed(ok=False, failed={wire.uuid: before(key)})
            said = True
            return _removed(wire, key, await wire.ask(_removal(key, before)))

        try:
            _, removed = await self._pool.ask(asked)
        except ConnectFailed as error:
            if not said:
                raise
            raise unknown(error.address, error) from error  # a wire that was kept took it, and was gone
        return removed

    async def remove_many(self, keys: Sequence[Key], deadline: Deadline | None) -> list[Removed]:
        """As ``P2PRemote.remove_content_many``."""
        done: list[Removed] = []
        error: AnnexError | None = None
        lost: int | None = None  # from this one on they may have been heard over a wire that is gone
        for _ in range(_NEW_WIRES):
            rest = keys[len(done) :]
            if not rest:
                break
            try:
                wire = await self._pool.take(Use.QUESTION)
            except AnnexError as failure:
                if not done and lost is None:
                    raise
                error = failure
                break
            answers: list[Message] = []
            asked = False
            try:
                before = None if deadline is None else await self._in_its_clock(wire, deadline)
                asked = not callable(before)
                if callable(before):
                    done += [Removed(ok=False, failed={wire.uuid: before(key)}) for key in rest]
                else:
                    await pipeline(wire, [_removal(key, before) for key in rest], answers)
            except AnnexError as failure:
                await self._pool.discard(wire, Use.QUESTION)
                done += [_removed(wire, key, answer) for key, answer in zip(rest, answers, strict=False)]
                error = failure
                if asked and lost is None:
                    lost = len(done)
                if not was_stale(wire, failure):
                    done.append(Removed(ok=False, failed={wire.uuid: failure}))
                    if not isinstance(failure, ConnectionLost):
                        break
            except BaseException:
                await self._pool.discard(wire, Use.QUESTION)
                raise
            else:
                await self._pool.give_back(wire, Use.QUESTION)
                done += [_removed(wire, key, answer) for key, answer in zip(rest, answers, strict=False)]
        if error is not None:
            done += [Removed(ok=False, failed={wire.uuid: error})] * (len(keys) - len(done))
        if lost is not None:
            done[lost:] = [open_end(one, wire.name) for one in done[lost:]]
        return done

    async def _in_its_clock(self, wire: Wire, deadline: Deadline) -> int | Callable[[Key], AnnexError]:
        """*deadline* as the peer's clock will say it, or why nothing may be asked of the peer."""
        if deadline.at > self._clock.now() + MAX_REMOVAL_AHEAD:
            return lambda _: InvalidInput("removal deadline", deadline.at, f"at most {MAX_REMOVAL_AHEAD} s ahead")
        if wire.version < 3:
            reason = f"{NO_DEADLINE}: it speaks version {wire.version} of the protocol, REMOVE-BEFORE came with 3"
            return lambda key: ContentError(key, wire.name, reason)
        slack = 1.0
        if wire.clock_offset is None or wire.clock_offset[1] < self._clock.now():
            match await wire.ask(GET_TIMESTAMP):
                case Timestamp(seconds):
                    # Ours after theirs: what passes in between makes the deadline earlier, never later.
                    now = self._clock.now()
                    wire.clock_offset = (seconds - now, now + _OFFSET_GOOD_FOR)
                    slack = 0.0
                case Error(text):
                    return lambda _: PeerError(wire.name, text)
                case answer:
                    raise unexpected(wire, answer, "TIMESTAMP")
        offset = wire.clock_offset[0]
        before = floor(deadline.at + offset - slack)
        if before <= self._clock.now() + offset:
            return lambda _: TimedOut(wire.name, "removal before its deadline", 0)
        return before


def _removal(key: Key, before: int | None) -> Remove | RemoveBefore:
    return Remove(key) if before is None else RemoveBefore(key, before)


def _removed(wire: Wire, key: Key, answer: Message) -> Removed:
    match answer:
        case Success():
            return Removed(ok=True, uuids=frozenset((wire.uuid,)))
        case SuccessPlus(uuids):
            return Removed(ok=True, uuids=copies(wire, uuids))
        case FailurePlus(uuids):
            named = frozenset(uuid for uuid in uuids if not is_cluster(uuid))
            # Some nodes of a gateway did not do it, for whatever reason: they may not have answered it.
            error = OutcomeUnknown(wire.name, "a removal", "it answered FAILURE-PLUS")
            return Removed(ok=False, uuids=named, failed={} if wire.uuid in named else {wire.uuid: error})
    return Removed(ok=False, failed={wire.uuid: refusal(wire, key, answer, "the removal")})
