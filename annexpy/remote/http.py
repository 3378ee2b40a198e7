"""A repository behind HTTP as a Remote: ``annex+http://`` and ``annex+https://``.

What a client must not believe is the same as over every other wire (``p2p``): a bare "already have" is checked before
it counts, an answer that does not come is an unknown outcome, and a removal with a deadline is never sent without it.

Source: fact sheet p2p-protocol, sections 0 and 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Self

from annexpy.clock import Clock, Deadline
from annexpy.errors import UnknownUUID
from annexpy.keys.key import Key
from annexpy.p2p.versions import MAX_VERSION
from annexpy.remote.base import Download, LockedCopy, Removed, Upload
from annexpy.remote.http_auth import Authorize
from annexpy.remote.http_connections import HTTPWay
from annexpy.remote.http_download import HTTPDownload
from annexpy.remote.http_lock import HTTPLock
from annexpy.remote.http_many import check_many, remove_many, remove_one
from annexpy.remote.http_proof import offered, prove
from annexpy.remote.http_session import HTTPSession, is_present
from annexpy.remote.http_upload import HTTPUpload
from annexpy.remote.http_url import parse_annex_url, parse_http_url
from annexpy.system import CLOCK
from annexpy.transport.base import Dial
from annexpy.uuids import UUID, is_cluster

__all__ = ["HTTPRemote"]


_NOTHING: Final = Key(b"WORM", b"connected", 0)
"""A key to ask for when the answer does not matter."""


class HTTPRemote:
    """A repository behind an HTTP server: annexpy's, or ``git annex p2phttp``.

    Connections are opened when needed and kept for the next request. Pickles when what it was given does; a copy in
    another process opens connections of its own, also after a fork.

    Args:
        url: ``annex+http://…`` or ``annex+https://…``, with the UUID behind ``git-annex/`` where *uuid* is not given;
            or the ``http://`` or ``https://`` URL of a git repository, whose ``annex.url`` is then used.
        uuid: Which repository. None where *url* tells; of a git repository, await ``connect`` before asking for it.
        gateway: Which repository must be at the URL of a git repository, when *uuid* is one behind it.
        name: For messages.
        cost: git-annex's cost.
        clock: For locks, removal deadlines and ``Retry-After``.
        client_uuid: Who we say we are; somebody new without it.
        authorize: Gives the header ``Authorization``; called again when the server says 401. Without it, what stands
            in the URL, ``~/.netrc`` and ``git credential`` are tried, once the server says 401.
        folder: The repository whose git configuration says how git finds credentials.
        max_version: Highest protocol version to speak, 0 to 4. Lower ones are tried when the server says 404.
        connections: At once, up to 16, for transfers and questions. Locks have their own.
        deadline: Seconds without a byte after which the server counts as stuck.
        connect_deadline: Seconds for connecting.
        bypass: Gateways that have been passed already.
        dial: Opens a connection, in place of TCP, TLS and what the environment says about proxies.
    """

    def __init__(
        self,
        url: str,
        *,
        uuid: UUID | None = None,
        gateway: UUID | None = None,
        name: str = "",
        cost: int = 200,
        clock: Clock = CLOCK,
        client_uuid: UUID | None = None,
        authorize: Authorize | None = None,
        folder: str | None = None,
        max_version: int = MAX_VERSION,
        connections: int = 16,
        deadline: float = 60.0,
        connect_deadline: float = 20.0,
        bypass: tuple[UUID, ...] = (),
        dial: Dial | None = None,
    ) -> None:
        git = url.partition("://")[0].lower() in ("http", "https")
        place = parse_http_url(url) if git else parse_annex_url(url)
        if uuid is not None and place.uuid is not None and uuid != place.uuid:
            raise UnknownUUID(f"{name or place}: expected repository {uuid}, the URL names {place.uuid}")
        self._set(
            HTTPWay(
                place,
                name or str(place),
                uuid,
                gateway,
                client_uuid,
                bypass,
                max_version,
                connections,
                deadline,
                connect_deadline,
                authorize,
                folder,
                dial,
            ),
            cost,
            clock,
        )

    def _set(self, way: HTTPWay, cost: int, clock: Clock) -> None:
        self._way, self._cost, self._clock = way, cost, clock
        self._session = HTTPSession(way, clock)

    def __reduce__(self) -> tuple[object, ...]:
        return _unpickled, (self._way, self._cost, self._clock)

    @property
    def uuid(self) -> UUID:
        """Of the repository.

        Raises:
            UnknownUUID: None was given, and nobody has connected yet.
        """
        return self._session.uuid

    @property
    def name(self) -> str:
        return self._way.name

    @property
    def cost(self) -> int:
        return self._cost

    @property
    def transfers(self) -> int:
        """Puts and gets that can be under way at once; one more waits for its turn."""
        return self._way.connections

    @property
    def ranges(self) -> bool:
        """The server has offered to send parts of contents, so a get with an end costs no more than what it brings."""
        return self._session.ranges or self._session.ours

    def __repr__(self) -> str:
        return f"<HTTPRemote {self._way.place} {self._session.known_uuid or 'not connected yet'}>"

    async def connect(self) -> UUID:
        """Make sure that the repository can be reached and is the right one; its UUID.

        Raises:
            ConnectFailed, AuthFailed, AccessDenied, ConnectionLost, TimedOut: It cannot be reached.
            UnknownUUID: It is not there.
        """
        await self._session.begin()
        if not self._session.settled:
            await self._session.settle(_NOTHING)
        return self._session.uuid

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._session.aclose()

    # -- content, locks -----------------------------------------------------------------------------

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return HTTPUpload(self._session, key, associated_file)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        return HTTPDownload(self._session, key, offset, end, associated_file)

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return HTTPLock(self._session, key, self._clock)

    # -- presence -------------------------------------------------------------------------------------

    async def check_present(self, key: Key) -> bool:
        await self._session.begin()
        return await is_present(self._session, key)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        """See ``BatchPresence``. Several connections at once; ahead of the answers where the server is ours."""
        if not keys:
            return []
        await self._session.begin()
        return await check_many(self._session, keys)

    # -- proofs ---------------------------------------------------------------------------------------

    async def proves(self) -> bool:
        """As in ``Proves``: the server is one of ours, nothing stands in between, and it is no cluster."""
        await self.connect()
        return self._session.ours and not is_cluster(self.uuid) and await offered(self._session)

    async def prove(self, key: Key, nonce: bytes) -> bytes:
        return await prove(self._session, key, nonce)

    # -- removal --------------------------------------------------------------------------------------

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        """Ask the server to remove the content of *key*; see ``Remote``.

        With a deadline, the server's clock is asked first, ours is read after that, and ``remove-before`` says the
        deadline in the server's clock, rounded down, on the same connection. A server below version 3 is not asked at
        all (``NO_DEADLINE``), and nobody is when no time is left.

        Raises:
            ServerFailed: Stock servers answer 500 when the content is locked, and also when they fail: outcome unknown.
        """
        return await remove_one(self._session, self._clock, key, deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        """As ``remove_content`` for each, ahead of the answers where the server is ours.

        Where the server hangs up, the key that it owed the next answer for is failed, outcome unknown, and the others
        are asked again over a new connection: asking twice is harmless.

        Raises:
            AnnexError: Nobody could be asked anything. Later failures are in the result.
        """
        return await remove_many(self._session, self._clock, keys, deadline)


def _unpickled(way: HTTPWay, cost: int, clock: Clock) -> HTTPRemote:
    remote = HTTPRemote.__new__(HTTPRemote)
    remote._set(way, cost, clock)
    return remote
