"""Removals over HTTP: those that a client sends one right behind the other are one request to the repository.

Our own clients do. Each of them is answered, counted and logged by itself, as it would be alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeAlias

from annexpy.clock import Clock, Deadline
from annexpy.errors import AnnexError, InvalidInput
from annexpy.keys.key import Key
from annexpy.p2p.http import RemoveBeforeRequest, RemoveRequest, Route, parse_request
from annexpy.p2p.http_answers import RemovedAnswer
from annexpy.remote.base import Remote, Removed
from annexpy.server.removal import obstacle, removal_deadline
from annexpy.server.wire import others
from annexpy.transport.http_exchange import Exchange
from annexpy.transport.http_head import RequestHead

__all__ = ["RemovalRequest", "answer_to", "deadline_of", "sent_behind"]

RemovalRequest: TypeAlias = RemoveRequest | RemoveBeforeRequest

_TOGETHER: Final = 64


def deadline_of(request: RemovalRequest, clock: Clock) -> Deadline | None:
    """Until when *request* may be done; None: at any time.

    Raises:
        InvalidInput: As ``removal_deadline``.
    """
    return None if isinstance(request, RemoveRequest) else removal_deadline(request.timestamp, clock)


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


def answer_to(removed: Removed | AnnexError, remote: Remote) -> tuple[RemovedAnswer | AnnexError, str]:
    """What to say of a removal, and what went wrong with it."""
    why = obstacle(removed)
    if isinstance(removed, AnnexError):
        return RemovedAnswer(False) if why is None else why, str(removed)
    failures = "" if removed.ok else "; ".join(map(str, removed.failed.values()))
    return RemovedAnswer(removed.ok, others(removed.uuids, remote)) if why is None else why, failures
