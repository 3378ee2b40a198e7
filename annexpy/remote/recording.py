"""A wrapper that records: who got, was found to have, or gave up a content, as its remote names them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Protocol, runtime_checkable

from annexpy.abilities import Ability
from annexpy.clock import Clock, Deadline
from annexpy.errors import AnnexError, DropIncomplete
from annexpy.keys.key import Key
from annexpy.remote.base import BatchRemove, HasNodes, Remote, Removed, Stored, Upload, found
from annexpy.remote.wrappers import Wrapper
from annexpy.system import CLOCK
from annexpy.uuids import UUID, is_cluster

__all__ = ["Recording", "Records", "record"]

log = logging.getLogger(__name__)

_TOGETHER: Final = 64
"""Records of puts that are written down together: to write one costs as much as a put of a small content."""
_WAIT: Final = 1.0
"""Seconds that such a record waits for others."""
_LONG: Final = 4 << 20
"""Bytes of a put that takes so long that what waits is written down before it begins."""


class Records(Protocol):
    """Where locations are written: a ``Branch``."""

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None: ...


def record(branch: Records, key: Key, uuids: Iterable[str], *, present: bool) -> None:
    """Write that these repositories have, or no longer have, *key*. The UUID of a cluster is never a copy."""
    for uuid in uuids:
        if not is_cluster(uuid):
            branch.set_present(key, UUID(uuid), present)


@runtime_checkable
class _Spools(Protocol, metaclass=Ability):
    """Records that can be written down without a commit: those of a ``Branch``."""

    @property
    def queued(self) -> int: ...

    def sync_now(self, *, durable: bool = True) -> None: ...


class Recording(Wrapper):
    """Writes to *branch* who got, was found to have, or gave up a content.

    Exactly those that the remote named, at the moment it named them: before anything that goes wrong
    after that can be raised, and for a removal that only some nodes made, too. What is unknown is not
    written. With a ``Branch``, no removal is asked for before all records would survive the end of this
    process, and that of the removal does then. Of puts, a kill costs what was recorded in the second before the last
    request, and at most 63 records: nothing here wakes up to write them when no request comes.
    Of a cluster, ``nodes`` are the nodes with the same recording around each.
    """

    def __new__(cls, remote: Remote, branch: Records, *, clock: Clock = CLOCK) -> Recording:
        return object.__new__(_RecordingCluster if isinstance(remote, HasNodes) else cls)

    def __init__(self, remote: Remote, branch: Records, *, clock: Clock = CLOCK) -> None:
        super().__init__(remote)
        self.branch, self._clock = branch, clock
        self._spools = branch if isinstance(branch, _Spools) else None
        self._waiting_since: float | None = None

    def record(self, key: Key, uuids: Iterable[str], *, present: bool) -> None:
        """As the function of that name, of the records of a put: so many are written down together."""
        record(self.branch, key, uuids, present=present)
        now = self._clock.now()
        if self._waiting_since is None:
            self._waiting_since = now
        self.keep(1 if now - self._waiting_since >= _WAIT else _TOGETHER)

    def keep(self, least: int = 1) -> None:
        """Have records survive a kill when *least* are waiting."""
        if self._spools is not None and self._spools.queued >= least:
            self._waiting_since = None
            try:
                self._spools.sync_now(durable=False)
            except AnnexError as error:  # still queued; what was done stands, and the commit meets the same
                log.warning("%s: %s", self.name, error)

    def __reduce__(self) -> tuple[object, ...]:
        return Recording, (self.remote, self.branch)

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return _RecordingPut(self, key, self.remote.put(key, associated_file=associated_file))

    def found(self, key: Key) -> None:
        """Record, as a put would have, that a check found *key* here, so that none was made."""
        self.record(key, (self.uuid,), present=True)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        self.keep()
        try:
            removed = await self.remote.remove_content(key, deadline=deadline)
        except DropIncomplete as error:
            record(self.branch, key, error.removed, present=False)
            self.keep()
            raise
        record(self.branch, key, removed.uuids, present=False)
        self.keep()
        return removed

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        if not isinstance(self.remote, BatchRemove):
            return [await self.remove_content(key, deadline=deadline) for key in keys]
        self.keep()
        results = await self.remote.remove_content_many(keys, deadline=deadline)
        for key, removed in zip(keys, results, strict=True):
            record(self.branch, key, removed.uuids, present=False)
        self.keep()
        return results


class _RecordingCluster(Recording):
    @property
    def nodes(self) -> tuple[Remote, ...]:
        assert isinstance(self.remote, HasNodes)
        return tuple(Recording(node, self.branch) for node in self.remote.nodes)


class _RecordingPut(AbstractAsyncContextManager[Upload]):
    __slots__ = ("_inner", "_key", "_recording")

    def __init__(self, recording: Recording, key: Key, inner: AbstractAsyncContextManager[Upload]) -> None:
        self._recording, self._key, self._inner = recording, key, inner

    async def __aenter__(self) -> Upload:
        upload = await self._inner.__aenter__()
        if upload.already is not None:  # this way never finishes
            try:
                self._recording.record(self._key, upload.already, present=True)
            except BaseException as error:
                await self._inner.__aexit__(type(error), error, error.__traceback__)
                raise
        return _RecordingUpload(self._recording, self._key, upload)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return await self._inner.__aexit__(kind, error, traceback)


class _RecordingUpload:
    __slots__ = ("_key", "_recording", "_upload", "already", "copy", "offset", "take", "write")

    def __init__(self, recording: Recording, key: Key, upload: Upload) -> None:
        self._recording, self._key, self._upload = recording, key, upload
        self.already, self.offset = upload.already, upload.offset
        self.write = upload.write
        self.copy: object = getattr(upload, "copy", None)  # as ``LocalUpload`` has them
        self.take: object = getattr(upload, "take", None)

    @property
    def failed(self) -> Mapping[UUID, AnnexError]:
        return found(self._upload).failed

    async def start(self, length: int) -> None:
        if length >= _LONG:
            self._recording.keep()
        await self._upload.start(length)

    async def finish(self, valid: bool = True) -> Stored:
        return self._stored(await self._upload.finish(valid))

    async def data_present(self) -> Stored:
        return self._stored(await self._upload.data_present())

    def _stored(self, stored: Stored) -> Stored:
        self._recording.record(self._key, stored.copies, present=True)
        return stored
