"""What an HTTP server does for each verb, once it is known who asks and which repository."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias, assert_never

from annexpy.clock import Clock
from annexpy.errors import AnnexError, ContentError, KeyNotPresent
from annexpy.keys.key import Key
from annexpy.p2p.http import (
    CheckPresentRequest,
    GetRequest,
    GetTimestampRequest,
    KeepLockedRequest,
    LockContentRequest,
    PossessionRequest,
    PutOffsetRequest,
    PutRequest,
    RemoveBeforeRequest,
    RemoveRequest,
    Request,
    Route,
)
from annexpy.p2p.http_answers import (
    JSON_TYPE,
    AlreadyHaveAnswer,
    Answer,
    LockAnswer,
    OffsetAnswer,
    PossessionAnswer,
    PresentAnswer,
    StoredAnswer,
    TimestampAnswer,
    format_answer,
)
from annexpy.remote.base import Remote
from annexpy.remote.possession import possession
from annexpy.server.commits import Commits
from annexpy.server.http_content import receive_content, send_content
from annexpy.server.http_locks import HeldLocks
from annexpy.server.http_removal import RemovalRequest, answer_to, deadline_of, sent_behind
from annexpy.server.http_told import Asked, tell
from annexpy.server.removal import remove_together
from annexpy.server.wire import others
from annexpy.transport.http_exchange import Exchange

__all__ = ["Verbs"]

_JSON: Final = (b"Content-Type", JSON_TYPE)

_Verb: TypeAlias = (
    CheckPresentRequest
    | PutOffsetRequest
    | PutRequest
    | GetTimestampRequest
    | PossessionRequest
    | LockContentRequest
    | KeepLockedRequest
)


class Verbs:
    """The verbs of one server."""

    def __init__(
        self,
        locks: HeldLocks,
        commits: Commits,
        note: Callable[[Exchange, Asked, float], None],
        clock: Clock,
        *,
        allow_unverifiable: bool,
    ) -> None:
        """What they need.

        Args:
            locks: Those that clients hold.
            commits: Told when something was stored or removed.
            note: Called with each request that was answered together with another one, and when that had begun.
            clock: For time and the removals that rely on it.
            allow_unverifiable: False refuses put of keys whose content cannot be verified.
        """
        self._locks, self._commits, self._note, self._clock = locks, commits, note, clock
        self._allow_unverifiable = allow_unverifiable

    async def do(self, exchange: Exchange, remote: Remote, route: Route, request: Request, asked: Asked) -> None:
        """Do what *request* asks of *remote*, and answer it.

        Args:
            exchange: The request as it came, and its answer.
            remote: Who is asked.
            route: By which it came.
            request: The same, as a value.
            asked: For the log.

        Raises:
            AnnexError: As the remote does.
        """
        if isinstance(request, GetRequest):
            await send_content(exchange, remote, request)
            return
        if isinstance(request, RemoveRequest | RemoveBeforeRequest):
            await self._remove(exchange, remote, route, request, asked)
            return
        answer = await self._answer(exchange, remote, request, asked)
        exchange.answer(200, (_JSON,), format_answer(answer, request.version))

    async def _answer(self, exchange: Exchange, remote: Remote, request: _Verb, asked: Asked) -> Answer:
        match request:
            case CheckPresentRequest(key=key):
                return PresentAnswer(await remote.check_present(key))
            case PutOffsetRequest(key=key):
                return await _offset(remote, key)
            case PutRequest():
                return await self._put(exchange, remote, request, asked)
            case GetTimestampRequest():
                return TimestampAnswer(int(self._clock.now() // 1))
            case PossessionRequest(key=key, nonce=nonce):
                try:
                    return PossessionAnswer(await possession(remote, key, nonce))
                except KeyNotPresent:
                    return PossessionAnswer(None)
            case LockContentRequest(uuid=uuid, key=key, client=client):
                who = asked.user or exchange.peer.rpartition(":")[0]
                lock_id = await self._locks.take(remote, key, uuid, owner=asked.user, client=client or "", who=who)
                return LockAnswer(lock_id)
            case KeepLockedRequest(uuid=uuid, lock_id=lock_id):
                await self._locks.keep(lock_id, uuid, asked.user, exchange)
                return LockAnswer()
            case other:
                assert_never(other)

    async def _put(self, exchange: Exchange, remote: Remote, request: PutRequest, asked: Asked) -> Answer:
        try:
            answer = await receive_content(exchange, remote, request, allow_unverifiable=self._allow_unverifiable)
        except ContentError as error:
            asked.why = str(error)
            return StoredAnswer(False)
        if answer.stored:
            self._commits.note()
        return answer

    async def _remove(
        self, exchange: Exchange, remote: Remote, route: Route, request: RemovalRequest, asked: Asked
    ) -> None:
        """Answer *request*, and those that the client has sent right behind it for the same."""
        deadline, begun = deadline_of(request, self._clock), self._clock.now()
        together = [(exchange, request.key, asked)]
        for behind, key in sent_behind(exchange, route, request):
            together.append((behind, key, Asked(asked.verb, asked.user)))
        try:
            told = await remove_together(remote, [key for _, key, _ in together], deadline)
            for (one, _, about), removed in zip(together, told, strict=True):
                said, about.why = answer_to(removed, remote)
                if isinstance(said, AnnexError):
                    tell(one, said)
                else:
                    one.answer(200, (_JSON,), format_answer(said, request.version))
            if not all(isinstance(removed, AnnexError) for removed in told):
                self._commits.note()
        finally:
            for one, _, about in together[1:]:
                self._note(one, about, begun)


async def _offset(remote: Remote, key: Key) -> Answer:
    async with remote.put(key) as upload:
        if upload.already:
            return AlreadyHaveAnswer(others(upload.already, remote))
        # Left without a word: what is there already stays.
        return OffsetAnswer(upload.offset)
