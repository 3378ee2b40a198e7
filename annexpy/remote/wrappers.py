"""Remotes around a Remote: they record, refuse or tell, and pass the rest on.

Batches pass through as batches where the inner remote has them.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, Protocol, TypeVar, runtime_checkable

from annexpy.abilities import Ability
from annexpy.clock import Clock, Deadline
from annexpy.errors import AccessDenied, AnnexError, DropIncomplete
from annexpy.keys.key import Key
from annexpy.remote.base import (
    BatchRemove,
    Connects,
    Download,
    HasNodes,
    LockedCopy,
    Ranged,
    Remote,
    Removed,
    Stored,
    Upload,
    check_present_many,
    found,
)
from annexpy.remote.health import Limited, Patient
from annexpy.remote.possession import possession, proves
from annexpy.system import CLOCK
from annexpy.uuids import UUID, is_cluster

__all__ = ["AppendOnly", "ReadOnly", "Recording", "Records", "Traced", "Wrapper", "record"]

log = logging.getLogger(__name__)
T = TypeVar("T")

_TOGETHER: Final = 64
"""Records of puts that are written down together: to write one costs as much as a put of a small content."""
_WAIT: Final = 1.0
"""Seconds that such a record waits for others."""
_LONG: Final = 4 << 20
"""Bytes of a put that takes so long that what waits is written down before it begins."""


class Records(Protocol):
    """Where locations are written: a ``Branch``."""

    def set_present(self, key: Key, uuid: UUID, present: bool) -> None: ...


class Wrapper:
    """Passes everything on to *remote*."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    @property
    def uuid(self) -> UUID:
        return self.remote.uuid

    @property
    def name(self) -> str:
        return self.remote.name

    @property
    def cost(self) -> int:
        return self.remote.cost

    @property
    def patience(self) -> float:
        """As in ``Patient``; 0 when the inner remote has nothing to say about that."""
        return self.remote.patience if isinstance(self.remote, Patient) else 0.0

    @property
    def transfers(self) -> int:
        """As in ``Limited``; plenty when the inner remote has nothing to say about that."""
        return self.remote.transfers if isinstance(self.remote, Limited) else 64

    @property
    def ranges(self) -> bool:
        """As in ``Ranged``."""
        return isinstance(self.remote, Ranged) and self.remote.ranges

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.remote!r})"

    async def connect(self) -> UUID:
        """The UUID, connecting to the inner remote when it has to, to know it."""
        return await self.remote.connect() if isinstance(self.remote, Connects) else self.remote.uuid

    async def check_present(self, key: Key) -> bool:
        return await self.remote.check_present(key)

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        return await check_present_many(self.remote, keys)

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return self.remote.lock_content(key)

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        return await self.remote.remove_content(key, deadline=deadline)

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        if isinstance(self.remote, BatchRemove):
            return await self.remote.remove_content_many(keys, deadline=deadline)
        return [await self.remove_content(key, deadline=deadline) for key in keys]

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        return self.remote.put(key, associated_file=associated_file)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        return self.remote.get(key, offset=offset, end=end, associated_file=associated_file)

    async def proves(self) -> bool:
        """As in ``Proves``."""
        return await proves(self.remote)

    async def prove(self, key: Key, nonce: bytes) -> bytes:
        """As in ``Proves``."""
        return await possession(self.remote, key, nonce)

    async def aclose(self) -> None:
        await self.remote.aclose()


# -- recording ------------------------------------------------------------------------------------


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


# -- refusing -------------------------------------------------------------------------------------


class AppendOnly(Wrapper):
    """Takes content and never gives it up. Locking stays possible, as with git-annex."""

    def _no_removal(self) -> AccessDenied:
        return AccessDenied("this repository is append-only; removal denied")

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        raise self._no_removal()

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        raise self._no_removal()


class ReadOnly(AppendOnly):
    """Gives content, and never takes any or gives it up. Locking stays possible, as with git-annex."""

    def _no_removal(self) -> AccessDenied:
        return AccessDenied("this repository is read-only; write access denied")

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        raise self._no_removal()


# -- telling --------------------------------------------------------------------------------------


class Traced(Wrapper):
    """Logs every request and its outcome at DEBUG: keys, lengths, UUIDs and reasons, never content."""

    async def check_present(self, key: Key) -> bool:
        return await self.told("CHECKPRESENT", key, self.remote.check_present(key))

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        return await self.told("CHECKPRESENT", f"{len(keys)} keys", check_present_many(self.remote, keys))

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        return _Traced(
            self, "LOCKCONTENT", key, self.remote.lock_content(key), lambda lock: f"until {lock.expires:.0f}"
        )

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        until = "" if deadline is None else f" before {deadline.at:.0f}"
        return await self.told(f"REMOVE{until}", key, self.remote.remove_content(key, deadline=deadline))

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        removal = super().remove_content_many(keys, deadline=deadline)
        return (
            await self.told("REMOVE", f"{len(keys)} keys", removal)
            if isinstance(self.remote, BatchRemove)
            else await removal
        )

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        inner = self.remote.put(key, associated_file=associated_file)
        return _TracedPut(self, "PUT", key, inner, _wanted)

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        inner = self.remote.get(key, offset=offset, end=end, associated_file=associated_file)
        return _Traced(
            self, f"GET {offset}", key, inner, lambda download: f"{download.length} bytes from {download.source}"
        )

    async def told(self, verb: str, key: object, answer: Awaitable[T]) -> T:
        self.tell(">", verb, key)
        try:
            given = await answer
        except AnnexError as error:
            self.tell("<", verb, error)
            raise
        self.tell("<", verb, given)
        return given

    def tell(self, direction: str, verb: str, what: object) -> None:
        log.debug("%s %s %s %s", self.name, direction, verb, ascii(str(what))[1:-1])


class _Traced(AbstractAsyncContextManager[T]):
    """Tells how a context was entered and left."""

    def __init__(
        self, traced: Traced, verb: str, key: Key, inner: AbstractAsyncContextManager[T], shown: Callable[[T], str]
    ) -> None:
        self._traced, self._verb, self._key, self._inner, self._shown = traced, verb, key, inner, shown

    async def __aenter__(self) -> T:
        self._traced.tell(">", self._verb, self._key)
        try:
            entered = await self._inner.__aenter__()
        except AnnexError as error:
            self._traced.tell("<", self._verb, error)
            raise
        self._traced.tell("<", self._verb, self._shown(entered))
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        self._traced.tell(">", f"end of {self._verb}", "" if error is None else repr(error))
        return await self._inner.__aexit__(kind, error, traceback)


class _TracedPut(_Traced[Upload]):
    async def __aenter__(self) -> Upload:
        return _TracedUpload(self._traced, await super().__aenter__())


class _TracedUpload:
    __slots__ = ("_traced", "_upload", "already", "offset", "write")

    def __init__(self, traced: Traced, upload: Upload) -> None:
        self._traced, self._upload = traced, upload
        self.already, self.offset, self.write = upload.already, upload.offset, upload.write

    @property
    def failed(self) -> Mapping[UUID, AnnexError]:
        return found(self._upload).failed

    async def start(self, length: int) -> None:
        self._traced.tell(">", "DATA", length)
        await self._upload.start(length)

    async def finish(self, valid: bool = True) -> Stored:
        return await self._traced.told("VALID" if valid else "INVALID", "", self._upload.finish(valid))

    async def data_present(self) -> Stored:
        return await self._traced.told("DATA-PRESENT", "", self._upload.data_present())


def _wanted(upload: Upload) -> str:
    return f"from {upload.offset}" if upload.already is None else f"already in {', '.join(sorted(upload.already))}"
