"""Small contents from a repository on this machine to a peer: some at once, without a task for each.

One task puts (or gets: ``p2p_small_get``) one content after the other over one wire, and the next request goes out with
the last words about the one before, so that a content costs either side one turn of its event loop. Whatever is not
small, or does not go smoothly, is left to ``P2PUpload`` and ``P2PDownload``, as long as the peer has nothing that it
could store.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from anyio import CancelScope, create_task_group

from annexpy.errors import AnnexError, RemoteProtocolError, VerificationFailed
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.p2p.connection import Data
from annexpy.p2p.messages import (
    VALID,
    AlreadyHave,
    CheckPresent,
    DataHeader,
    Error,
    Failure,
    Message,
    Put,
    PutFrom,
    Success,
)
from annexpy.remote.base import Stored
from annexpy.remote.local import Local
from annexpy.remote.local_take import Taken
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.p2p_answers import refusal, stored_by
from annexpy.remote.p2p_transfer import hint
from annexpy.remote.p2p_upload import SMALL
from annexpy.remote.pool import Use
from annexpy.remote.wire import Wire

__all__ = ["Batch", "give", "is_small", "over_wires"]

_NOBODY: Final = Stored()


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
    await over_wires(remote, giving)
    return giving.done


def is_small(key: Key) -> bool:
    """It goes this way: all of it fits into a few writes, and its hash proves it."""
    return key.size is not None and key.size <= SMALL and is_verifiable(key)


class Batch(Protocol):
    """Contents that are waiting; ``waiting`` are the numbers of those that nobody has begun with."""

    waiting: deque[int]

    async def over(self, wire: Wire) -> None:
        """One after the other over *wire*, until none is waiting. Raises what makes the wire useless."""
        ...


async def over_wires(remote: P2PRemote, batch: Batch) -> None:
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
            content = self._read(key) if is_small(key) else None
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
