"""Copy and move contents from one remote to another by streaming.

A move is a copy and then a drop. The drop needs what every drop needs (``actions.drop``), with one
exception that git-annex makes too: when the destination did not have the content before, moving it
does not make copies fewer, so the destination's own locked copy is proof enough. It must be a
repository whose copies count: moving to an untrusted one would make copies fewer. Whether the
destination had it is what the destination said of this very transfer, never the location log and
never a bare claim.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from annexpy.actions.get import relay
from annexpy.actions.many import TOGETHER, Each
from annexpy.actions.results import Moved, Progress, Transfer, Verified, verified_by
from annexpy.clock import Clock
from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.remote.base import BatchPresence, HasNodes, Remote, Stored
from annexpy.remote.kinds import bare_local, is_behind_wire, is_local, is_p2p
from annexpy.remote.local_take import Taken, take
from annexpy.remote.recording import Recording
from annexpy.remote.wrappers import Wrapper
from annexpy.system import CLOCK
from annexpy.uuids import UUID, is_cluster

if TYPE_CHECKING:  # what only a move needs
    from annexpy.policy.numcopies import Copies
    from annexpy.policy.trust import TrustLevel

__all__ = ["copy", "move"]

_JOBS: Final = 16
_WORTH_ASKING: Final = 4
_AHEAD: Final = 256
"""Small keys that go over wires between two looks at what else there is to do: each look lets the wires idle."""
_SAMPLE: Final = 8
"""If none of so many keys is at the destination, the others are hardly there either, and each put would tell."""


def copy(
    source: Remote,
    destination: Remote,
    keys: Iterable[Key] | AsyncIterable[Key],
    *,
    jobs: int = _JOBS,
    associated_file: Callable[[Key], str] | None = None,
    progress: Progress | None = None,
) -> Each[Key, Transfer]:
    """Copy contents from *source* to *destination*, *jobs* of them at a time; each result as it comes.

    Args:
        source: Where from; a ``Cluster`` of several where any will do.
        destination: Where to. Wrap it in ``Recording`` where its locations are to be logged.
        keys: Taken in windows; memory does not grow with their number.
        jobs: Transfers at once.
        associated_file: The path that goes with a key, a hint for preferred content.
        progress: Told how much of a content is at the destination.
    """
    copying = _Copying(source, destination, associated_file, progress)
    return Each(
        keys,
        copying.one,
        jobs=jobs,
        before=copying.look,
        same=lambda key: key,
        quickly=copying.quickly,
        together=_AHEAD if is_behind_wire(source) or is_behind_wire(destination) else TOGETHER,
    )


def move(
    source: Remote,
    destination: Remote,
    keys: Iterable[Key] | AsyncIterable[Key],
    *,
    copies: Copies | Callable[[Key], Copies],
    others: Sequence[Remote] = (),
    trust: Mapping[UUID, TrustLevel] | None = None,
    recorded: Callable[[Key], Mapping[UUID, str]] | None = None,
    nodes: Mapping[UUID, Collection[UUID]] | None = None,
    force: bool = False,
    clock: Clock = CLOCK,
    jobs: int = _JOBS,
    associated_file: Callable[[Key], str] | None = None,
    progress: Progress | None = None,
) -> Each[Key, Moved]:
    """Copy contents to *destination*, then drop them from *source*.

    Args:
        source, destination: From where to where. Wrap both in ``Recording`` where they are to be logged.
        keys: Taken in windows.
        copies: How many must stay; asked when the destination had the content before.
        others: Where more copies may be.
        trust, recorded, nodes, force, clock: As for ``drop``.
        jobs: Moves at once.
        associated_file: The path that goes with a key.
        progress: Told how much of a content is at the destination.
    """
    from annexpy.actions.drop import drop_for_move

    copying = _Copying(source, destination, associated_file, progress)
    give_up = drop_for_move(source, destination, others, copies, trust, nodes, force, clock)

    async def one(key: Key) -> Moved:
        transfer = await copying.one(key)
        if not transfer.ok:
            return Moved(transfer)
        return Moved(transfer, await give_up(key, transfer.stored, None if recorded is None else recorded(key)))

    return Each(keys, one, jobs=jobs, before=copying.look, same=lambda key: key)


class _Copying:
    """What is the same for all keys of one copy."""

    def __init__(
        self,
        source: Remote,
        destination: Remote,
        associated_file: Callable[[Key], str] | None,
        progress: Progress | None,
    ) -> None:
        self._source, self._destination = source, destination
        self._associated_file, self._progress = associated_file, progress
        self._present: set[Key] = set()

    async def look(self, keys: Sequence[Key]) -> None:
        """Ask for many keys at once which are there, where that is cheaper than to find out by one put each."""
        self._present.clear()
        destination, layers = self._destination, _inner(self._destination)
        # Of a cluster the question is which of its nodes have it, and its put answers that.
        cluster = isinstance(destination, HasNodes) or is_cluster(destination.uuid)
        if cluster or len(keys) < _WORTH_ASKING or is_local(destination):
            return
        if not isinstance(destination, BatchPresence):
            return
        for some in (keys[:_SAMPLE], keys[_SAMPLE:]):
            try:
                present = await destination.check_present_many(some)
            except AnnexError:
                return  # each put will meet the same, and say so for its key
            for key, there in zip(some, present, strict=True):
                if there:
                    self._present.add(key)
                    for wrapper in layers:
                        if isinstance(wrapper, Recording):
                            wrapper.found(key)
            if not self._present:
                return

    async def quickly(self, keys: Sequence[Key]) -> list[Transfer | None]:
        """Copy those of *keys* that are small, between this machine and one place; None for others."""
        recordings, source, destination = [], self._source, self._destination
        while isinstance(source, Recording):
            source = source.remote
        while isinstance(destination, Recording):
            recordings.append(destination)
            destination = destination.remote

        def record(key: Key, stored: Stored) -> None:
            for recording in recordings:
                recording.record(key, stored.copies, present=True)

        wanted = [key for key in keys if key not in self._present]
        took = dict(zip(wanted, await _taken(source, destination, wanted, self._file, record), strict=True))
        transfers: list[Transfer | None] = []
        for key in keys:
            taken = took.get(key)
            if taken is None:
                transfers.append(None)
                continue
            stored, error, moved = taken
            if self._progress is not None and stored.ok:
                self._progress(key, key.size or 0, key.size)
            verified = verified_by(key) if stored.uuids else Verified.NOT
            transfers.append(Transfer(key, stored, error, moved, 0, verified))
        return transfers

    def _file(self, key: Key) -> str:
        return "" if self._associated_file is None else self._associated_file(key)

    async def one(self, key: Key) -> Transfer:
        if key in self._present:
            if self._progress is not None and key.size is not None:
                self._progress(key, key.size, key.size)
            return Transfer(key, Stored(already=frozenset((self._destination.uuid,))))
        file = self._file(key)
        return await relay(
            self._source, key, lambda: self._destination.put(key, associated_file=file), file, self._progress
        )


async def _taken(
    source: Remote,
    destination: Remote,
    keys: Sequence[Key],
    associated_file: Callable[[Key], str],
    record: Callable[[Key, Stored], None],
) -> Sequence[Taken | None]:
    giver, taker = bare_local(source), bare_local(destination)
    if giver is not None and taker is not None:
        done = await take(taker, giver, keys)
        for key, taken in zip(keys, done, strict=True):
            if taken is not None:
                record(key, taken.stored)
        return done
    if giver is not None and is_p2p(destination):
        from annexpy.remote.p2p_small import give

        return await give(giver, destination, keys, associated_file, record)
    if taker is not None and is_p2p(source):
        from annexpy.remote.p2p_small_get import fetch

        return await fetch(taker, source, keys, associated_file)
    return [None] * len(keys)


def _inner(remote: Remote) -> list[Remote]:
    """*remote*, what it wraps, and so on; what does the work comes last."""
    layers = [remote]
    while isinstance(layers[-1], Wrapper):
        layers.append(layers[-1].remote)
    return layers
