"""A content lock over HTTP: ``lockcontent``, and ``keeplocked`` on the same connection for as long as it is wanted."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from anyio import CancelScope, current_time
from anyio.lowlevel import checkpoint

from annexpy.clock import LOCK_RETENTION, Clock
from annexpy.errors import AnnexError, ConnectionLost, NotLocked
from annexpy.keys.key import Key
from annexpy.p2p.http import KeepLockedRequest, LockContentRequest, Request
from annexpy.p2p.http_answers import JSON_TYPE, LockAnswer, format_unlock
from annexpy.remote.base import is_open_end
from annexpy.remote.http_connections import Pair
from annexpy.remote.http_line import Line, Said, was_stale
from annexpy.remote.http_session import Attempts, HTTPSession
from annexpy.remote.pool import Use
from annexpy.uuids import UUID

__all__ = ["HTTPLock"]

_UNLOCK_SECONDS: Final = 2.0
# As stock clients say it, for what stands in between and would take the connection for one that is idle.
_KEEP: Final[tuple[Pair, ...]] = (
    (b"Content-Type", JSON_TYPE),
    (b"Connection", b"Keep-Alive"),
    (b"Keep-Alive", b"timeout=1200"),
)


class HTTPLock:
    """``LockedCopy`` over a connection of its own, and the ``async with`` block around it."""

    __slots__ = ("_clock", "_key", "_line", "_session", "expires", "uuid")

    def __init__(self, session: HTTPSession, key: Key, clock: Clock) -> None:
        self._session, self._key, self._clock = session, key, clock
        self._line: Line | None = None
        self.uuid = UUID("")
        self.expires = 0.0

    async def __aenter__(self) -> Self:
        session, key = self._session, self._key
        await session.begin()
        self.uuid = session.uuid
        request: Request = LockContentRequest(session.uuid, key, session.client, session.version, session.bypass)
        attempts = Attempts(session)
        while True:
            line = await session.pool.take(Use.LOCK)
            self.expires = self._clock.now() + LOCK_RETENTION
            used = session.say(line, request)
            try:
                response = await line.response()
                # From here on it takes no time, and whoever has a lock must be able to give it back.
                with CancelScope(shield=True, deadline=current_time() + _UNLOCK_SECONDS) as scope:
                    said = await session.said(response, request, used)
                    if await self._kept(line, said):
                        return self
                if scope.cancelled_caught:
                    raise ConnectionLost(session.name, "the end of a lock's answer")
            except BaseException as error:
                if not isinstance(error, Exception):
                    await self._undo(line, request)
                await session.pool.discard(line, Use.LOCK)
                if was_stale(line, error):
                    continue
                raise
            await session.pool.give_back(line, Use.LOCK)
            if said.status == 200:
                raise NotLocked(key, session.name)
            request = await attempts.after(said)

    async def _kept(self, line: Line, said: Said) -> bool:
        """Keep the lock that *said* tells of, if it does."""
        answer = said.answer() if said.status == 200 else None
        if not isinstance(answer, LockAnswer) or answer.lock_id is None:
            return False
        session = self._session
        keep = KeepLockedRequest(session.uuid, answer.lock_id, session.client, session.version, session.bypass)
        session.say(line, keep, _KEEP, chunked=True)
        await line.send(format_unlock(False))
        self._line = line
        return True

    async def _undo(self, line: Line, request: Request) -> None:
        """Cancelled while the answer is on its way: it may be a lock, and nobody will hold it."""
        if line.delivered and line.outstanding:
            with CancelScope(shield=True, deadline=current_time() + _UNLOCK_SECONDS):
                try:
                    said = await self._session.said(await line.response(), request, None)
                    if await self._kept(line, said):
                        self._line = None
                        await self._unlock(line)
                except AnnexError:
                    pass  # the connection is closed anyway

    @staticmethod
    async def _unlock(line: Line) -> None:
        line.end(format_unlock(True))
        response = await line.response()
        await response.body()

    async def held(self) -> bool:
        line = self._line
        if line is None:
            return False
        for _ in range(2):
            await checkpoint()
        return not line.has_input and self._clock.now() < self.expires

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._line is None:
            return
        line, self._line = self._line, None
        pool = self._session.pool
        if is_open_end(error):
            # Whoever relies on the lock cannot be told any more: hang up, so that the retention stands.
            await pool.discard(line, Use.LOCK)
            return
        # Also when cancelled: a server of ours keeps a lock whose holder just vanishes.
        with CancelScope(shield=True, deadline=current_time() + _UNLOCK_SECONDS):
            try:
                await self._unlock(line)
            except AnnexError:
                pass  # the lock is lost, or ends by itself
        await pool.give_back(line, Use.LOCK)
