"""The other side of a wire as a Remote: git-annex-shell, annexpy-shell, or anything that speaks P2P.

What a client must not believe is written down here and in ``p2p_upload`` and ``p2p_download``: a bare ALREADY-HAVE is
checked before it counts, the end of a stream is an unknown outcome, an empty answer of version 0 is
no content, and a removal with a deadline is never sent without it. Whether the bytes of a get are
the right ones is for the receiver to find out.

Source: fact sheet p2p-protocol, sections 0, 3, 4 and 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from annexpy.clock import Clock, Deadline
from annexpy.errors import UnknownUUID
from annexpy.keys.key import Key
from annexpy.p2p.extensions import PROOFS, RANGES
from annexpy.p2p.messages import CheckPresent, Failure, Message, Success
from annexpy.p2p.versions import MAX_VERSION
from annexpy.remote.base import Download, LockedCopy, Removed, Upload
from annexpy.remote.greeting import Greeting, open_wire
from annexpy.remote.p2p_answers import refusal
from annexpy.remote.p2p_download import P2PDownload
from annexpy.remote.p2p_lock import P2PLock
from annexpy.remote.p2p_pipeline import pipeline
from annexpy.remote.p2p_proof import Prover
from annexpy.remote.p2p_removal import Remover
from annexpy.remote.p2p_upload import P2PUpload
from annexpy.remote.pool import Use
from annexpy.remote.wire import Wire
from annexpy.remote.wires import Wires
from annexpy.system import CLOCK
from annexpy.transport.base import Dial, Narrow
from annexpy.uuids import UUID, is_cluster

__all__ = ["P2PRemote"]

_PART_WINDOW: Final = 128 * 1024
"""With what is read at once of it, no more than 256 KiB come after a part that nobody could be told to end."""


class P2PRemote:
    """A repository at the other end of a wire.

    Wires are opened when needed and kept for the next request. Each put, get and lock has one to
    itself while it lasts; questions of concurrent tasks take turns. Pickles when *dial* does; a
    copy in another process opens wires of its own, also after a fork.

    Args:
        dial: Opens one more connection to a server that speaks first, as p2pstdio does.
        uuid: The repository that must answer. None takes what is there: await ``connect`` before
            asking for ``uuid``.
        name: For messages.
        cost: git-annex's cost.
        clock: For locks and removal deadlines.
        client_uuid: Said in AUTH, with *token*, to a server that waits for it.
        token: See above.
        max_version: Highest protocol version to speak, 0 to 4.
        connections: Wires at once, up to 16, for transfers and questions; one more is there for
            questions alone. Locks have their own.
        price: Seconds to wait for a wire to come free before a third one, or one more, is opened: about what
            starting the server costs, where every wire starts one.
        deadline: Seconds without a byte after which the peer counts as stuck.
        connect_deadline: Seconds for connecting and for each line of the greeting.
        bypass: Gateways that have been passed already.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        uuid: UUID | None = None,
        name: str = "",
        cost: int = 200,
        clock: Clock = CLOCK,
        client_uuid: UUID | None = None,
        token: str | None = None,
        max_version: int = MAX_VERSION,
        connections: int = 4,
        price: float = 0.0,
        deadline: float = 60.0,
        connect_deadline: float = 20.0,
        bypass: tuple[UUID, ...] = (),
    ) -> None:
        greeting = Greeting(
            name or str(dial), uuid, client_uuid, token, max_version, bypass, connect_deadline, deadline
        )
        self._set(dial, greeting, cost, clock, connections, price)

    def _set(self, dial: Dial, greeting: Greeting, cost: int, clock: Clock, connections: int, price: float) -> None:
        self._dial, self._greeting, self._cost, self._clock = dial, greeting, cost, clock
        self._connections, self._price = connections, price
        self._pool, self._parts = (
            Wires(open_, greeting.name, limit=connections, patience=10 * greeting.deadline, price=price)
            for open_ in (self._open, self._open_for_parts)
        )
        self._ranges: bool | None = None  # not known before a part was asked for
        self._remover = Remover(self._pool, clock)
        self._prover = Prover(self._open_for_proofs, greeting.name, greeting.deadline)

    def __reduce__(self) -> tuple[object, ...]:
        return (_unpickled, (self._dial, self._greeting, self._cost, self._clock, self._connections, self._price))

    @property
    def uuid(self) -> UUID:
        """Of the repository.

        Raises:
            UnknownUUID: None was given, and nobody has connected yet.
        """
        if self._greeting.uuid is None:
            raise UnknownUUID(f"{self.name}: its UUID is not known before it was connected to")
        return self._greeting.uuid

    @property
    def name(self) -> str:
        return self._greeting.name

    @property
    def cost(self) -> int:
        return self._cost

    @property
    def transfers(self) -> int:
        """Puts and gets that can be under way at once; one more waits for its turn."""
        return self._connections

    @property
    def ranges(self) -> bool:
        """As in ``Ranged``: the peer was asked for a part, and has agreed on ``RANGES``."""
        return self._ranges is True

    @property
    def pool(self) -> Wires:
        """The wires, for what is done over one of them again and again."""
        return self._pool

    def __repr__(self) -> str:
        return f"<P2PRemote {self.name} {self._greeting.uuid or 'not connected yet'}>"

    async def connect(self) -> UUID:
        """Make sure that the repository can be reached and is the right one; its UUID.

        Raises:
            ConnectFailed, AuthFailed, ConnectionLost, TimedOut: It cannot be reached.
            UnknownUUID: Another repository answers.
        """
        wire = await self._pool.take(Use.QUESTION)
        await self._pool.give_back(wire, Use.QUESTION)
        return wire.uuid

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._prover.aclose()
        await self._parts.aclose()
        await self._pool.aclose()

    async def _open_for_proofs(self) -> Wire:
        return await self._open(PROOFS)

    async def _open_for_parts(self) -> Wire:
        """A wire for parts of contents: what a peer cannot be told not to send must not have room to come."""
        dial: object = self._dial
        narrow = dial.narrow(_PART_WINDOW) if isinstance(dial, Narrow) else None
        if self._ranges is not False:
            wire = await self._open(RANGES)
            self._ranges = wire.version == RANGES
            if self._ranges or narrow is None:
                return wire
            await wire.aclose()
        return await self._open(dial=narrow)

    async def _open(self, version: int | None = None, dial: Dial | None = None) -> Wire:
        greeting = self._greeting if version is None else replace(self._greeting, max_version=version)
        wire = await open_wire(dial or self._dial, greeting)
        if self._greeting.uuid is None:
            self._greeting = replace(self._greeting, uuid=wire.uuid)
        return wire

    # -- content --------------------------------------------------------------------------------------

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return P2PUpload(self._pool, key, associated_file)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        part = end is not None and (key.size is None or end < key.size) and self._greeting.max_version == MAX_VERSION
        return P2PDownload(self._parts if part else self._pool, key, offset, end, associated_file)

    # -- presence -------------------------------------------------------------------------------------

    async def check_present(self, key: Key) -> bool:
        wire, answer = await self._pool.ask(lambda wire: wire.ask(CheckPresent(key)))
        return _is_present(wire, key, answer)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        if not keys:
            return []

        async def asked(wire: Wire) -> list[Message]:
            answers: list[Message] = []
            await pipeline(wire, [CheckPresent(key) for key in keys], answers)
            return answers

        wire, answers = await self._pool.ask(asked)
        return [_is_present(wire, key, answer) for key, answer in zip(keys, answers, strict=True)]

    # -- proofs ---------------------------------------------------------------------------------------

    async def proves(self) -> bool:
        """As in ``Proves``: the peer is one of ours, and no cluster. Opens a wire that asks for ``PROOFS``."""
        if self._greeting.max_version < MAX_VERSION:
            return False
        return await self._prover.offered() and not is_cluster(self.uuid)

    async def prove(self, key: Key, nonce: bytes) -> bytes:
        return await self._prover.digest(key, nonce)

    # -- locks ----------------------------------------------------------------------------------------

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return P2PLock(self._pool, key, self._clock)

    # -- removal --------------------------------------------------------------------------------------

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        """Ask the peer to remove the content of *key*; see ``Remote``.

        With a deadline, the peer's clock is asked first, ours is read after that, and REMOVE-BEFORE
        says the deadline in the peer's clock, rounded down. A peer below version 3 is not asked at
        all (``NO_DEADLINE``), and nobody is when no time is left.

        Raises:
            ConnectionLost: Stock servers hang up when the content is locked, and also when they
                crash: outcome unknown.
        """
        return await self._remover.remove(key, deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        """As ``remove_content`` for each, pipelined.

        Where the peer hangs up, the key that it owed the next answer for is failed, outcome unknown,
        and the others are asked again over a new wire: asking twice is harmless.

        Raises:
            TransportError: Nobody could be asked anything. Later failures are in the result.
        """
        return await self._remover.remove_many(keys, deadline)


def _unpickled(dial: Dial, greeting: Greeting, cost: int, clock: Clock, connections: int, price: float) -> P2PRemote:
    remote = P2PRemote.__new__(P2PRemote)
    remote._set(dial, greeting, cost, clock, connections, price)
    return remote


def _is_present(wire: Wire, key: Key, answer: Message) -> bool:
    match answer:
        case Success():
            return True
        case Failure():
            return False
    raise refusal(wire, key, answer, "CHECKPRESENT")
