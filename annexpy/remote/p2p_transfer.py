"""What a put and a get over a wire share: a wire to themselves, which is given back in the end, or closed."""

from __future__ import annotations

from annexpy.errors import LocalProtocolError
from annexpy.keys.key import Key
from annexpy.p2p.associated import escape_associated_file
from annexpy.p2p.extensions import RANGES, GetRange
from annexpy.p2p.messages import Get, Message, Put
from annexpy.remote.pool import Use
from annexpy.remote.wire import Wire, was_stale
from annexpy.remote.wires import Wires

__all__ = ["Transfer", "hint"]


def hint(associated_file: str) -> bytes:
    """*associated_file* as a request says it. An absolute path is refused by every server and helps none."""
    return b"" if associated_file[:1] == "/" else escape_associated_file(associated_file)


class Transfer:
    """Either direction: a wire for as long as it takes."""

    __slots__ = ("_associated_file", "_key", "_pool", "_settled", "_wire")

    def __init__(self, pool: Wires, key: Key, associated_file: str) -> None:
        self._pool, self._key, self._associated_file = pool, key, hint(associated_file)
        self._wire: Wire | None = None
        self._settled = False  # nothing is owed any more, by either side

    @property
    def _open_wire(self) -> Wire:
        if self._wire is None:
            raise LocalProtocolError("used outside of its async with block")
        return self._wire

    async def _begin(self, request: Get | Put, part: GetRange | None = None) -> Message:
        """Send *request*, or *part* to a peer that knows it; once more when it had closed a wire that was kept."""
        while True:
            wire = self._wire = await self._pool.take(Use.TRANSFER)
            try:
                return await wire.ask(request if part is None or wire.version != RANGES else part)
            except BaseException as error:
                await self._drop()
                if was_stale(wire, error):
                    continue
                raise

    async def _give_back(self) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await self._pool.give_back(wire, Use.TRANSFER)

    async def _drop(self) -> None:
        if self._wire is not None:
            wire, self._wire = self._wire, None
            await self._pool.discard(wire, Use.TRANSFER)
