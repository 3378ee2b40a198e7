"""Small contents of a peer, some at once and without a task for each: got, or only compared; see ``p2p_small``."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from anyio import CancelScope

from annexpy.errors import AnnexError, RemoteProtocolError
from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.p2p.connection import Data
from annexpy.p2p.messages import FAILURE, SUCCESS, DataHeader, Get, Valid
from annexpy.remote.base import Stored
from annexpy.remote.local import Local
from annexpy.remote.local_take import Taken, admitted
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.p2p_small import is_small, over_wires
from annexpy.remote.p2p_transfer import hint
from annexpy.remote.wire import Wire
from annexpy.repo.receiving import Receiving

__all__ = ["compare", "fetch"]

_NOBODY: Final = Stored()
_RECORDED_TOGETHER: Final = 32


async def fetch(
    taker: Local, remote: P2PRemote, keys: Sequence[Key], associated_file: Callable[[Key], str]
) -> list[Taken | None]:
    """Get the contents of *keys* from *remote* into *taker*; None for those that want to be put one by one.

    Every content is verified and recorded before this returns, as *taker* promises.
    """
    settings = taker.store.settings
    if settings.durability != "fast" or settings.pidlock or settings.thin:
        return [None] * len(keys)  # there is something to wait for
    fetching = _Fetching(taker, keys, associated_file)
    try:
        await over_wires(remote, fetching)
    finally:  # also of what is here when we are cancelled
        with CancelScope(shield=True):
            await fetching.keep()
    return fetching.done


async def compare(remote: P2PRemote, keys: Sequence[Key]) -> list[bool]:
    """Read contents of *keys* at *remote*, and compare each with its key.

    Returns:
        True: it is there, all of it was read now, and it is the right one. False: nothing is known; it may not have
        been asked for, as one that is not small never is.
    """
    comparing = _Comparing(keys)
    await over_wires(remote, comparing)
    return comparing.right


class _Reception(NamedTuple):
    number: int
    key: Key
    receiving: Receiving


class _Fetching:
    def __init__(self, taker: Local, keys: Sequence[Key], associated_file: Callable[[Key], str]) -> None:
        self._taker, self._keys, self._associated_file = taker, keys, associated_file
        self.waiting = deque(range(len(keys)))
        self.done: list[Taken | None] = [None] * len(keys)
        self._here: dict[Key, int] = {}  # and not recorded yet

    async def keep(self) -> None:
        """Record what is here by now; nobody is told of what could not be recorded."""
        here, self._here = self._here, {}
        try:
            self._taker.record_many(tuple(here), present=True)
            await self._taker.sync_records()
        except AnnexError as error:
            for number in here.values():
                self.done[number] = Taken(_NOBODY, error)

    def _came(self, number: int, key: Key) -> None:
        self._here[key] = number

    async def _next(self) -> _Reception | None:
        """The next content that is small, and not here at all."""
        while self.waiting:
            number = self.waiting.popleft()
            key = self._keys[number]
            if not is_small(key):
                continue
            try:
                begun = admitted(self._taker, key, partial(self._came, number))
                if isinstance(begun, Taken):
                    self.done[number] = begun
                    continue
                receiving = await begun.__aenter__()
            except AnnexError as error:
                self.done[number] = Taken(_NOBODY, error)
                continue
            if not receiving.offset:
                return _Reception(number, key, receiving)
            await self._leave(_Reception(number, key, receiving))
        return None

    async def _leave(self, reception: _Reception) -> None:
        try:
            await reception.receiving.__aexit__(None, None, None)
        except AnnexError as error:
            self.done[reception.number] = Taken(_NOBODY, error)

    async def over(self, wire: Wire) -> None:
        while (reception := await self._next()) is not None:
            try:
                key = reception.key
                wire.put(Get(key, 0, hint(self._associated_file(key))))
                header = await wire.event()
                if isinstance(header, DataHeader):
                    content = await _content(wire, key, header.length)
                    stored = content is not None and await self._store(reception, content)
                    wire.put(SUCCESS if stored else FAILURE)
            finally:
                await self._leave(reception)

    async def _store(self, reception: _Reception, content: bytes) -> bool:
        try:
            await reception.receiving.write(content)
            await reception.receiving.finish()
        except AnnexError as error:
            self.done[reception.number] = Taken(_NOBODY, error, len(content))
            return False
        self.done[reception.number] = Taken(Stored(frozenset((self._taker.uuid,))), None, len(content))
        if len(self._here) >= _RECORDED_TOGETHER:
            await self.keep()
        return True


class _Comparing:
    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys
        self.waiting = deque(number for number, key in enumerate(keys) if is_small(key))
        self.right = [False] * len(keys)

    async def over(self, wire: Wire) -> None:
        while self.waiting:
            number = self.waiting.popleft()
            key = self._keys[number]
            wire.put(Get(key))
            header = await wire.event()
            if isinstance(header, DataHeader):
                content = await _content(wire, key, header.length)
                self.right[number] = right = content is not None and _is_content(key, content)
                wire.put(SUCCESS if right else FAILURE)


def _is_content(key: Key, content: bytes) -> bool:
    check = verifier(key)
    if check is None:
        return False
    check.update(content)
    return check.matches()


async def _content(wire: Wire, key: Key, length: int) -> bytes | None:
    """The body of *length* bytes; None when the peer does not have all of it, or saw it change."""
    if length > (key.size or 0):
        raise RemoteProtocolError(f"{wire.name}: DATA {length} for {key}, which has {key.size} bytes")
    chunks = []
    while True:
        event = await wire.event()
        if not isinstance(event, Data):
            raise RemoteProtocolError(f"{wire.name}: {event!r} while waiting for the content")
        chunks.append(event.chunk)
        if event.last:
            break
    valid = not wire.version or isinstance(await wire.event(), Valid)
    return b"".join(chunks) if valid and length == key.size else None
