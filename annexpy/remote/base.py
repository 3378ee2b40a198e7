"""The one interface: everything that can hold a key is a ``Remote``.

``serve()`` shows any Remote to the other side of a wire and ``P2PRemote`` makes the other side of a
wire a Remote, so proxies, clusters and gateways are compositions (docs/design.md, "the one idea").
What must survive such relaying is exactly what the result types below carry.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from annexpy.abilities import Ability
from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectFailed, NodesFailed, RemoteProtocolError, TimedOut, TransportError
from annexpy.keys.key import Key
from annexpy.uuids import UUID

__all__ = [
    "BatchPresence",
    "BatchRemove",
    "Connects",
    "Download",
    "HasNodes",
    "LockedCopy",
    "NamesFailures",
    "Ranged",
    "Remote",
    "Removed",
    "Stored",
    "Upload",
    "check_present_many",
    "found",
    "is_open_end",
    "may_happen_yet",
]

_NOBODY: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Stored:
    """How a put ended.

    Attributes:
        uuids: Repositories that received the content now, and said so after verifying it.
        already: Repositories that were positively found to have it before. Never a bare claim.
        failed: Repositories that were tried and did not end up with it, and why.
    """

    uuids: frozenset[UUID] = _NOBODY
    already: frozenset[UUID] = _NOBODY
    failed: Mapping[UUID, AnnexError] = field(default_factory=dict)

    @property
    def copies(self) -> frozenset[UUID]:
        """Everybody who has it now."""
        return self.uuids | self.already

    @property
    def ok(self) -> bool:
        """At least one repository has it now (the protocol's SUCCESS)."""
        return bool(self.uuids or self.already)

    def then(self, later: Stored) -> Stored:
        """How both ended, *later* being another put of the same content to the same place."""
        uuids = self.uuids | later.uuids
        already = (self.already | later.already) - uuids
        failed = {**self.failed, **later.failed}
        return Stored(
            uuids, already, {uuid: failed[uuid] for uuid in failed if uuid not in uuids and uuid not in already}
        )


@dataclass(frozen=True, slots=True)
class Removed:
    """How a removal ended.

    Attributes:
        ok: Everybody who was asked no longer has it.
        uuids: Those who no longer have it, possibly some even when not ``ok`` (FAILURE-PLUS).
        failed: Those who still have it, or may have it, and why.
    """

    ok: bool
    uuids: frozenset[UUID] = _NOBODY
    failed: Mapping[UUID, AnnexError] = field(default_factory=dict)


class LockedCopy(Protocol):
    """A copy that cannot be removed while this is held."""

    @property
    def uuid(self) -> UUID: ...

    @property
    def expires(self) -> float:
        """``Clock.now()`` from which the lock is no longer promised: taken *before* LOCKCONTENT was sent, + 600 s."""
        ...

    async def held(self) -> bool:
        """Look now, as far as can be seen from here, whether the lock still stands.

        A lock on a stock server is gone with its connection, so this looks at the connection. Ask
        it immediately before a removal that relies on the lock, and void the proof when False.
        """
        ...


def is_open_end(error: BaseException | None) -> bool:
    """Leaving a lock with *error* means that a removal which relies on it may be under way: do not give it back.

    So do a TransportError, a peer that broke the protocol, and a group of errors with one of those in it. After
    anything else whoever held the lock knows that nothing relies on it.
    """
    if isinstance(error, BaseExceptionGroup):
        return any(map(is_open_end, error.exceptions))
    return isinstance(error, TransportError | RemoteProtocolError)


def may_happen_yet(*errors: AnnexError) -> bool:
    """One of *errors* leaves open whether what was asked for was done, or is still to be done."""
    for error in errors:
        match error:
            case ConnectFailed() | TimedOut(seconds=0):
                pass  # nobody was asked, or a deadline was found to have passed
            case NodesFailed(failed=failed) if failed:
                if may_happen_yet(*failed.values()):
                    return True
            case TransportError() | RemoteProtocolError():
                return True
    return False


class Upload(Protocol):
    """One put in progress.

    Order: look at ``already`` and ``offset``; then ``start`` → ``write``* → ``finish``, or
    ``data_present``, or leave. Leaving without ``finish`` keeps what arrived as a partial where the
    far side can, which on a wire means closing it: a short DATA would destroy the partial.
    """

    @property
    def already(self) -> frozenset[UUID] | None:
        """Not None: nothing has to be sent; these were positively found to have it. Never empty."""
        ...

    @property
    def offset(self) -> int:
        """The first byte that is wanted. May exceed the size of the key: then send 0 bytes, VALID."""
        ...

    async def start(self, length: int) -> None:
        """Say that *length* bytes will follow, from ``offset``.

        Raises:
            InvalidInput: More than the key can have.
        """
        ...

    async def write(self, data: bytes) -> None:
        """Hand over the next bytes. Waits while the receiver is behind (bounded memory)."""
        ...

    async def finish(self, valid: bool = True) -> Stored:
        """The end. *valid* False: the sender saw its source change.

        Content with a verifiable hash is verified and may be stored even then; other content is not.
        ``Stored`` is given only once the content is on disk, synced as the store promises.

        Raises:
            VerificationFailed, ContentChanged, IncompleteTransfer, NoSpace, TransferInProgress:
                nothing is stored.
            ConnectionLost, TimedOut: outcome unknown.
        """
        ...

    async def data_present(self) -> Stored:
        """Say that the content got there by other means (DATA-PRESENT); the far side checks."""
        ...


@runtime_checkable
class NamesFailures(Protocol, metaclass=Ability):
    """An ``Upload`` into several repositories that tells who is out while it is not finished."""

    @property
    def failed(self) -> Mapping[UUID, AnnexError]:
        """Repositories that were tried and will not end up with the content, and why."""
        ...


def found(upload: Upload) -> Stored:
    """How a put ended that has nothing to send: who has the content, and who failed in finding out."""
    failed = upload.failed if isinstance(upload, NamesFailures) else {}
    return Stored(already=upload.already or _NOBODY, failed=failed)


class Download(Protocol):
    """One get in progress. Iterate to the end, then look at ``valid``.

    Leaving the ``async with`` normally after the end tells the sender SUCCESS, an exception tells it
    FAILURE, and leaving early closes the connection.
    """

    @property
    def length(self) -> int:
        """Bytes that will come, from the asked offset."""
        ...

    @property
    def source(self) -> UUID:
        """Which repository the bytes (now) come from."""
        ...

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Immutable chunks, ``length`` bytes in all.

        Raises:
            ConnectionLost, TimedOut, IncompleteTransfer: what came before is a good prefix.
        """
        ...

    @property
    def valid(self) -> bool:
        """After the end: False when the sender saw the content change. Then none of it may be kept unverified."""
        ...


@runtime_checkable
class Remote(Protocol, metaclass=Ability):
    """Anything that can hold keys. Every method may raise TransportError; then the outcome is unknown."""

    @property
    def uuid(self) -> UUID: ...

    @property
    def name(self) -> str:
        """For messages, as the user wrote it."""
        ...

    @property
    def cost(self) -> int:
        """git-annex's cost: 100 local, 200 on the network."""
        ...

    async def check_present(self, key: Key) -> bool:
        """True only when the content was looked for and found. By disk, not by log."""
        ...

    def lock_content(self, key: Key) -> AbstractAsyncContextManager[LockedCopy]:
        """Keep the content from being removed.

        Raises:
            NotLocked: Absent, being removed, or this kind of remote cannot lock (clusters).
        """
        ...

    async def remove_content(self, key: Key, *, deadline: Deadline | None = None) -> Removed:
        """Ask this remote to give up its content of *key*. The raw verb: no numcopies here.

        Absent content counts as removed. A cancelled call may have removed it or not.

        Args:
            key: What to remove.
            deadline: Latest moment; never sent on as an unconditional removal.
        """
        ...

    def put(self, key: Key, *, associated_file: str = "") -> AbstractAsyncContextManager[Upload]:
        """Start storing *key*. Entering asks the far side what it has."""
        ...

    def get(
        self, key: Key, *, offset: int = 0, end: int | None = None, associated_file: str = ""
    ) -> AbstractAsyncContextManager[Download]:
        """Start reading *key* from byte *offset*, up to but without byte *end*.

        Raises:
            KeyNotPresent: On entering.
        """
        ...

    async def aclose(self) -> None:
        """Give back connections and file handles. Idempotent."""
        ...


@runtime_checkable
class HasNodes(Protocol, metaclass=Ability):
    """A Remote made of Remotes."""

    @property
    def nodes(self) -> Sequence[Remote]: ...


@runtime_checkable
class Connects(Protocol, metaclass=Ability):
    """A Remote that may not know its UUID before it was connected to."""

    async def connect(self) -> UUID: ...


@runtime_checkable
class BatchPresence(Protocol, metaclass=Ability):
    """A Remote that answers many presence checks faster than one by one."""

    async def check_present_many(self, keys: Sequence[Key]) -> list[bool]:
        """In the order of *keys*. All or nothing: an error loses the whole answer."""
        ...


@runtime_checkable
class BatchRemove(Protocol, metaclass=Ability):
    """A Remote that pipelines removals."""

    async def remove_content_many(self, keys: Sequence[Key], *, deadline: Deadline | None = None) -> list[Removed]:
        """In the order of *keys*; each as ``remove_content``.

        After a lost connection the rest is failed, outcome unknown.
        """
        ...


@runtime_checkable
class Ranged(Protocol, metaclass=Ability):
    """A Remote that may be able to send a part of a content and nothing after it."""

    @property
    def ranges(self) -> bool:
        """A get with an end costs no more than what it brings. May become True once something was asked."""
        ...


async def check_present_many(remote: Remote, keys: Sequence[Key]) -> list[bool]:
    """Presence of many keys, pipelined where *remote* can."""
    if isinstance(remote, BatchPresence):
        return await remote.check_present_many(keys)
    return [await remote.check_present(key) for key in keys]
