"""Asking a peer for proofs that it has contents (``possession``), over wires on which that was agreed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from annexpy.errors import KeyNotPresent, PeerError
from annexpy.keys.key import Key
from annexpy.p2p.extensions import PROOFS, Possessed, Possession
from annexpy.p2p.messages import Error, Failure, Message
from annexpy.remote.p2p_answers import unexpected
from annexpy.remote.pool import Use
from annexpy.remote.possession import patience
from annexpy.remote.wire import Wire
from annexpy.remote.wires import Wires

__all__ = ["Prover"]

_WIRES: Final = 2


class Prover:
    """Asks one peer for proofs, over wires of its own: what it is asked for elsewhere is as git-annex asks it.

    Args:
        open_: Opens a wire that asks for ``PROOFS``.
        name: For messages.
        deadline: As that of the remote.
    """

    def __init__(self, open_: Callable[[], Awaitable[Wire]], name: str, deadline: float) -> None:
        self._pool = Wires(open_, name, limit=_WIRES, patience=10 * deadline)
        self._name, self._deadline = name, deadline
        self._offered: bool | None = None

    async def offered(self) -> bool:
        """The peer has agreed, now or before.

        Raises:
            AnnexError: It cannot be reached.
        """
        if self._offered is None:
            wire = await self._pool.take(Use.QUESTION)
            self._offered = wire.version == PROOFS
            if self._offered:
                await self._pool.give_back(wire, Use.QUESTION)
            else:
                await self._pool.discard(wire, Use.QUESTION)
        return self._offered

    async def digest(self, key: Key, nonce: bytes) -> bytes:
        """As ``Proves.prove``.

        Raises:
            KeyNotPresent: It is not there.
            PeerError: It refuses, or offers this no longer.
        """

        async def asked(wire: Wire) -> Message:
            if wire.version != PROOFS:
                self._offered = False
                raise PeerError(self._name, "it offers proofs no longer")
            return await wire.ask(Possession(nonce, key), patience(key, self._deadline))

        wire, answer = await self._pool.ask(asked)
        match answer:
            case Possessed(digest):
                return digest
            case Failure():
                raise KeyNotPresent(key, self._name)
            case Error(text):
                raise PeerError(self._name, text)
            case other:
                raise unexpected(wire, other, "POSSESSED")

    async def aclose(self) -> None:
        await self._pool.aclose()
