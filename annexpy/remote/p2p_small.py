"""Small contents between a repository on this machine and a peer: some at once, without a task for each.

One task puts or gets one content after the other over one wire, and the next request goes out with the last words
about the one before, so that a content costs either side one turn of its event loop. Whatever is not small, or does
not go smoothly, is left to ``P2PUpload`` and ``P2PDownload``, as long as the peer has nothing that it could store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from anyio import CancelScope, create_task_group

from annexpy.errors import AnnexError, RemoteProtocolError, VerificationFailed
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.p2p.connection import Data
from annexpy.p2p.messages import (
    FAILURE,
    SUCCESS,
    VALID,
    AlreadyHave,
    CheckPresent,
    DataHeader,
    Error,
    Failure,
    Get,
    Message,
    Put,
    PutFrom,
    Success,
    Valid,
)
from annexpy.remote.base import Stored
from annexpy.remote.local import Local
from annexpy.remote.local_take import Taken, admitted
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.p2p_content import SMALL, hint, refusal, stored_by
from annexpy.remote.pool import Use
from annexpy.remote.wire import Wire
from annexpy.repo.receiving import Receiving

__all__ = ["fetch", "give"]

_NOBODY: Final = Stored()
_RECORDED_TOGETHER: Final = 32


async def give(
    giver: Local,
    remote: P2PRemote,
    keys: Sequence[Key],
    associated_file: Callable[[Key], str],
    record: Callable[[Key, Stored], None],
) -> list[Taken | None]:
    """Put the contents of *keys* from *giver* to *remote*; None for those that want to be put one by one.

    Args:
        giver: Where from.
        remote: Where to.
        keys: Which.
        associated_file: The path that goes with a key.
        record: Told who has a content, the moment that is known.
    """
    if giver.store.settings.thin:
        return [None] * len(keys)
    giving = _Giving(giver, keys, associated_file, record)
    await _over_wires(remote, giving)
    return giving.done


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
        await _over_wires(remote, fetching)
    finally:  # also of what is here when we are cancelled
        with CancelScope(shield=True):
            await fetching.keep()
    return fetching.done


def _is_small(key: Key) -> bool:
    return key.size is not None and key.size <= SMALL and is_verifiable(key)


class _Batch(Protocol):
    """Contents that are waiting; ``waiting`` are the numbers of those that nobody has begun with."""

    waiting: deque[int]

    async def over(self, wire: Wire) -> None:
        """One after the other over *wire*, until none is waiting. Raises what makes the wire useless."""
        ...


async def _over_wires(remote: P2PRemote, batch: _Batch) -> None:
    """Do *batch* over as many wires as *remote* has for transfers."""
    pool, under_way = remote.pool, 0

    async def worker(all_of_us: CancelScope) -> None:
        nonlocal under_way
        while batch.waiting:
            try:
                wire = await pool.take(Use.TRANSFER)
            except AnnexError:
                batch.waiting.clear()  # whoever is to do the rest meets the same, and says so for each
                break
            under_way += 1
            try:
                await batch.over(wire)
            except AnnexError:
                await pool.discard(wire, Use.TRANSFER)
                if wire.heard or not wire.used:  # otherwise it had been closed while nobody used it
                    batch.waiting.clear()
            except BaseException:
                await pool.discard(wire, Use.TRANSFER)
                raise
            else:
                await pool.give_back(wire, Use.TRANSFER)
            finally:
                under_way -= 1
        if not under_way:
            all_of_us.cancel()  # those who still wait for a wire

    async with create_task_group() as tasks:
        for _ in range(min(remote.transfers, len(batch.waiting))):
            tasks.start_soon(worker, tasks.cancel_scope)


# -- putting ----------------------------------------------------------------------------------------


class _Content(NamedTuple):
    number: int
    key: Key
    request: Put
    bytes: bytes


class _Giving:
    def __init__(
        self,
        giver: Local,
        keys: Sequence[Key],
        associated_file: Callable[[Key], str],
        record: Callable[[Key, Stored], None],
    ) -> None:
        self._giver, self._keys, self._associated_file, self._record = giver, keys, associated_file, record
        self.waiting = deque(range(len(keys)))
        self.done: list[Taken | None] = [None] * len(keys)

    def _next(self) -> _Content | None:
        """The next content that is here and small."""
        while self.waiting:
            number = self.waiting.popleft()
            key = self._keys[number]
            content = self._read(key) if _is_small(key) else None
            if content is not None:
                return _Content(number, key, Put(key, hint(self._associated_file(key))), content)
        return None

    def _read(self, key: Key) -> bytes | None:
        try:
            with self._giver.store.open(key) as stored:
                content = stored.pread(stored.size, 0) if stored.size == key.size else b""
                return content if len(content) == key.size and stored.unchanged() else None
        except (AnnexError, OSError):
            return None

    async def over(self, wire: Wire) -> None:
        content, asked = self._next(), False
        while content is not None:
            if not asked:
                wire.put(content.request)
            answer = await wire.event()
            if not isinstance(answer, PutFrom):
                self._ended(content, await _not_taken(wire, content.key, answer))
                content, asked = self._next(), False
                continue
            sent, offset = content, answer.offset
            rest = sent.bytes[offset:]
            wire.put(DataHeader(len(rest)))
            wire.put_data(rest)
            if wire.version:
                wire.put(VALID)
            content, asked = self._next(), wire.version > 0
            if asked and content is not None:
                wire.put(content.request)
            try:
                result = await wire.event()
            except AnnexError as error:  # outcome unknown
                self._ended(sent, Taken(_NOBODY, error, len(rest)))
                raise
            self._ended(sent, _outcome(wire, sent.key, result, len(rest), offset))

    def _ended(self, content: _Content, taken: Taken | None) -> None:
        self.done[content.number] = taken
        if taken is not None and taken.stored.ok:
            self._record(content.key, taken.stored)


async def _not_taken(wire: Wire, key: Key, answer: Message | Data) -> Taken | None:
    """What *answer* to PUT means, if it is clear. A claim is checked, and others that are named are not heard here."""
    match answer:
        case AlreadyHave():
            if isinstance(await wire.ask(CheckPresent(key)), Success):
                return Taken(Stored(already=frozenset((wire.uuid,))))
            return None
        case Error() | Failure():
            return Taken(_NOBODY, refusal(wire, key, answer, "PUT"))
        case _:
            return None


def _outcome(wire: Wire, key: Key, result: Message | Data, sent: int, offset: int) -> Taken | None:
    try:
        return Taken(stored_by(wire, key, result), None, sent)
    except RemoteProtocolError:
        raise
    except VerificationFailed as error:
        # Nothing is stored. With an offset, what the peer had begun with was no part of the content.
        return None if offset else Taken(_NOBODY, error, sent)
    except AnnexError as error:
        return Taken(_NOBODY, error, sent)


# -- getting ----------------------------------------------------------------------------------------


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
            if not _is_small(key):
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
