"""Presence and removal over HTTP, of one key and of many.

Requests go out ahead of the answers where the server is known to be ours; elsewhere each connection has one at a time,
and there are as many connections as there may be.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import floor
from typing import Final, TypeAlias

import anyio

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import (
    AnnexError,
    ConnectFailed,
    ConnectionLost,
    ContentError,
    InvalidInput,
    OutcomeUnknown,
    TimedOut,
    TransportError,
)
from annexpy.keys.key import Key
from annexpy.p2p.http import CheckPresentRequest, GetTimestampRequest, RemoveBeforeRequest, RemoveRequest
from annexpy.p2p.http_answers import Answer, PresentAnswer, RemovedAnswer, TimestampAnswer
from annexpy.remote.base import Removed
from annexpy.remote.http_line import Line, Said, was_stale
from annexpy.remote.http_session import Attempts, HTTPSession, copies, is_present
from annexpy.remote.pool import MAX_CONNECTIONS, Use
from annexpy.remote.removal_end import NO_DEADLINE, open_end
from annexpy.uuids import is_cluster

__all__ = ["check_many", "remove_many", "remove_one"]

_OFFSET_GOOD_FOR: Final = 60.0
_NEW_LINES: Final = 16
"""How often a batch goes on over a new connection after the server hung up on one of them."""
_PER_LINE: Final = 256
"""Keys of a batch that are worth a connection of their own."""
_LINES: Final = 4
_MANY: Final = 1024
"""Keys beyond which another connection is worth its price: each has an answer's way there and back for 32 KiB."""

Refusal: TypeAlias = Callable[[Key], AnnexError]
"""Why nothing may be asked of the server."""


async def _at_once(count: int, work: Callable[[], Awaitable[None]]) -> None:
    """Run *work* so many times at once; the first error ends all, and is raised as it is."""
    if count <= 1:
        await work()
        return
    failures: list[AnnexError] = []

    async def worker() -> None:
        try:
            await work()
        except AnnexError as error:  # a task group would wrap it
            failures.append(error)
            tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(worker)
    if failures:
        raise failures[0]


# -- presence ---------------------------------------------------------------------------------------


async def check_many(session: HTTPSession, keys: Sequence[Key]) -> list[bool]:
    """Presence of *keys*, in their order."""
    await session.settle(keys[0])
    if session.ours:
        step, lines = _PER_LINE, min(max(_LINES, len(keys) // _MANY), MAX_CONNECTIONS)
    else:
        step, lines = 16, MAX_CONNECTIONS
    found = [False] * len(keys)
    starts = iter(range(0, len(keys), step))

    async def work() -> None:
        for start in starts:
            some = keys[start : start + step]
            found[start : start + step] = present = await _present(session, some)
            for key, there in zip(some, present, strict=True):
                if not there:
                    session.found_absent(key)

    await _at_once(min(lines, -(-len(keys) // step)), work)
    return found


async def _present(session: HTTPSession, keys: Sequence[Key]) -> list[bool]:
    uuid, client, version, bypass = session.uuid, session.client, session.version, session.bypass
    requests = [CheckPresentRequest(uuid, key, client, version, bypass) for key in keys]
    answers: list[Answer | None] = []
    for _ in range(_NEW_LINES):
        before = len(answers)
        line = await session.pool.take(Use.QUESTION)
        try:
            await session.ask_many(line, requests, answers)
        except BaseException as error:
            await session.pool.discard(line, Use.QUESTION)
            if was_stale(line, error) or (isinstance(error, ConnectionLost) and len(answers) > before):
                continue
            raise
        await session.pool.give_back(line, Use.QUESTION)
        break
    answers += [None] * (len(keys) - len(answers))
    found = []
    for key, answer in zip(keys, answers, strict=True):
        found.append(answer.present if isinstance(answer, PresentAnswer) else await is_present(session, key))
    return found


# -- removal ----------------------------------------------------------------------------------------


async def remove_one(session: HTTPSession, clock: Clock, key: Key, deadline: Deadline | None) -> Removed:
    """Remove the content of *key*."""
    await session.begin()
    if deadline is not None:
        await session.settle(key)
    attempts, asked = Attempts(session), False
    while True:
        try:
            line = await session.pool.take(Use.QUESTION)
        except ConnectFailed as error:
            if not asked:
                raise
            raise OutcomeUnknown(session.name, "a removal", str(error)) from error
        try:
            before = None if deadline is None else await _in_its_clock(session, clock, line, deadline)
            if isinstance(before, Said):
                said = before
            elif callable(before):
                said = None
            else:
                asked = True
                said = await session.hear(line, _removal(session, key, before))
        except BaseException as error:
            await session.pool.discard(line, Use.QUESTION)
            if was_stale(line, error):
                continue
            raise
        await session.pool.give_back(line, Use.QUESTION)
        if said is None:
            assert callable(before)
            return Removed(ok=False, failed={session.uuid: before(key)})
        if said.status == 200:
            return _removed(session, key, said.answer())
        await attempts.after(said)


async def remove_many(
    session: HTTPSession, clock: Clock, keys: Sequence[Key], deadline: Deadline | None
) -> list[Removed]:
    """Remove the contents of *keys*; what came of each, in their order.

    Raises:
        AnnexError: Nobody could be asked anything.
    """
    if not keys:
        return []
    await session.begin()
    await session.settle(keys[0])
    done: list[Removed | None] = [None] * len(keys)
    doubtful = await _remove_ahead(session, clock, keys, deadline, done) if session.ours else set[int]()
    left = iter([number for number, one in enumerate(done) if one is None])

    async def work() -> None:
        for number in left:
            try:
                done[number] = await remove_one(session, clock, keys[number], deadline)
            except AnnexError as error:
                done[number] = Removed(ok=False, failed={session.uuid: error})

    await _at_once(min(MAX_CONNECTIONS, done.count(None)), work)
    every = [one for one in done if one is not None]
    return [open_end(one, session.name) if number in doubtful else one for number, one in enumerate(every)]


async def _remove_ahead(
    session: HTTPSession, clock: Clock, keys: Sequence[Key], deadline: Deadline | None, done: list[Removed | None]
) -> set[int]:
    """Fill *done* from its start, as far as one connection and its answers go.

    Returns:
        Those that may have been heard although nothing was answered that says so.
    """
    line = await session.pool.take(Use.QUESTION)
    answers: list[Answer | None] = []
    failure: AnnexError | None = None
    asked = False
    try:
        before = None if deadline is None else await _in_its_clock(session, clock, line, deadline)
        if before is None or isinstance(before, int):
            asked = True
            await session.ask_many(line, [_removal(session, key, before) for key in keys], answers)
    except AnnexError as error:
        failure = error
        await session.pool.discard(line, Use.QUESTION)
    except BaseException:
        await session.pool.discard(line, Use.QUESTION)
        raise
    else:
        await session.pool.give_back(line, Use.QUESTION)
    for number, answer in enumerate(answers):
        done[number] = None if answer is None else _removed(session, keys[number], answer)
    if failure is not None and isinstance(failure, TransportError) and len(answers) < len(keys) and answers:
        # It owed the answer to this one, so nobody knows.
        done[len(answers)] = Removed(ok=False, failed={session.uuid: failure})
    doubtful = {number for number, answer in enumerate(answers) if answer is None}
    return doubtful | set(range(len(answers), len(keys))) if asked and failure is not None else doubtful


async def _in_its_clock(session: HTTPSession, clock: Clock, line: Line, deadline: Deadline) -> int | Refusal | Said:
    """*deadline* as the clock of the server behind *line* will say it, or why not; or what it said instead."""
    if deadline.at > clock.now() + MAX_REMOVAL_AHEAD:
        return lambda _: InvalidInput("removal deadline", deadline.at, f"at most {MAX_REMOVAL_AHEAD} s ahead")
    if session.version < 3:
        reason = f"{NO_DEADLINE}: it speaks version {session.version} of the protocol, remove-before came with 3"
        return lambda key: ContentError(key, session.name, reason)
    slack = 1.0
    if line.clock_offset is None or line.clock_offset[1] < clock.now():
        said = await session.hear(
            line, GetTimestampRequest(session.uuid, session.client, session.version, session.bypass)
        )
        if said.status != 200:
            return said
        answer = said.answer()
        assert isinstance(answer, TimestampAnswer)
        # Ours after theirs: what passes in between makes the deadline earlier, never later.
        now = clock.now()
        line.clock_offset = (answer.seconds - now, now + _OFFSET_GOOD_FOR)
        slack = 0.0
    offset = line.clock_offset[0]
    before = floor(deadline.at + offset - slack)
    if before <= clock.now() + offset:
        return lambda _: TimedOut(session.name, "removal before its deadline", 0)
    return before


def _removal(session: HTTPSession, key: Key, before: int | None) -> RemoveRequest | RemoveBeforeRequest:
    uuid, client, version, bypass = session.uuid, session.client, session.version, session.bypass
    if before is None:
        return RemoveRequest(uuid, key, client, version, bypass)
    return RemoveBeforeRequest(uuid, key, before, client, version, bypass)


def _removed(session: HTTPSession, key: Key, answer: Answer) -> Removed:
    assert isinstance(answer, RemovedAnswer)
    uuid = session.uuid
    if answer.removed:
        return Removed(ok=True, uuids=copies(uuid, answer.uuids))
    named = frozenset(one for one in answer.uuids if not is_cluster(one))
    error: AnnexError = ContentError(key, session.name, "it answered that it did not remove it")
    if named:  # some nodes of a gateway did not do it, for whatever reason: they may not have answered it
        error = OutcomeUnknown(session.name, "a removal", "some nodes did not remove it")
    return Removed(ok=False, uuids=named, failed={} if uuid in named else {uuid: error})
