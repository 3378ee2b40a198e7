"""Removals over HTTP: those that a client sends one right behind the other are one request to the repository.

Our own clients do. Each of them is answered, counted and logged by itself, as it would be alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from annexpy.clock import MAX_REMOVAL_AHEAD, Clock, Deadline
from annexpy.errors import AnnexError, ContentLocked, InvalidInput, TimedOut, TransportError
from annexpy.keys.key import Key
from annexpy.p2p.http import RemoveBeforeRequest, RemoveRequest, Route, parse_request
from annexpy.p2p.http_answers import RemovedAnswer
from annexpy.remote.base import BatchRemove, Remote, Removed, may_happen_yet
from annexpy.server.wire import others
from annexpy.transport.http_exchange import Exchange
from annexpy.transport.http_head import RequestHead

__all__ = ["RemovalRequest", "answer_to", "deadline_of", "remove_together", "sent_behind"]

RemovalRequest: TypeAlias = RemoveRequest | RemoveBeforeRequest

_TOGETHER: Final = 64


def deadline_of(request: RemovalRequest, clock: Clock) -> Deadline | None:
    """Until when *request* may be done.

    Raises:
        InvalidInput: No lock lasts that long: the proof is older than our last reboot.
    """
    if isinstance(request, RemoveRequest):
        return None
    if request.timestamp > clock.now() + MAX_REMOVAL_AHEAD:
        raise InvalidInput("timestamp", request.timestamp, f"at most {MAX_REMOVAL_AHEAD} seconds ahead")
    return Deadline(float(request.timestamp))


def sent_behind(exchange: Exchange, route: Route, request: RemovalRequest) -> list[tuple[Exchange, Key]]:
    """The requests behind *request*, which came by *route*, that ask for the same but the key, by the same client."""
    wanted = _alike(exchange.head, route, request)
    found: list[tuple[Exchange, Key]] = []
    while len(found) < _TOGETHER - 1 and (behind := exchange.behind(wanted)) is not None:
        found.append(behind)
        exchange = behind[0]
    return found


def _alike(first: RequestHead, route: Route, request: RemovalRequest) -> Callable[[RequestHead], Key | None]:
    path = first.target.partition(b"?")[0]

    def key(head: RequestHead) -> Key | None:
        where, _, query = head.target.partition(b"?")
        if where != path or head.method != first.method:
            return None
        try:
            other = parse_request(replace(route, query=query))
        except InvalidInput:
            return None  # it hears that when it is its turn
        assert isinstance(other, RemoveRequest | RemoveBeforeRequest)
        return other.key if replace(other, key=request.key) == request else None

    return key


async def remove_together(
    remote: Remote, keys: Sequence[Key], deadline: Deadline | None
) -> Sequence[Removed | AnnexError]:
    """What becomes of each of *keys*, as if it was alone."""
    if len(keys) > 1 and isinstance(remote, BatchRemove):
        try:
            return await remote.remove_content_many(keys, deadline=deadline)
        except TransportError as error:
            return [error] * len(keys)
        except AnnexError:
            pass  # one spoils it for all: what is gone by now counts as removed
    told: list[Removed | AnnexError] = []
    for key in keys:
        try:
            told.append(await remote.remove_content(key, deadline=deadline))
        except AnnexError as error:
            told.append(error)
    return told


def answer_to(removed: Removed | AnnexError, remote: Remote) -> tuple[RemovedAnswer | AnnexError, str]:
    """What to say of a removal, and what went wrong with it."""
    if isinstance(removed, AnnexError):
        return RemovedAnswer(False) if _is_no(removed) else removed, str(removed)
    if removed.ok:
        return RemovedAnswer(True, others(removed.uuids, remote)), ""
    reasons = [error for error in removed.failed.values() if not _is_no(error)]
    why = "; ".join(map(str, removed.failed.values()))
    if reasons and not removed.uuids:
        return next(filter(may_happen_yet, reasons), reasons[0]), why
    return RemovedAnswer(False, others(removed.uuids, remote)), why


def _is_no(error: AnnexError) -> bool:
    """It is there and stays: not that nobody knows."""
    return isinstance(error, ContentLocked | TimedOut) and not may_happen_yet(error)
