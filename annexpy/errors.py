"""Every error annexpy raises on purpose.

::

    AnnexError
    ├── InvalidInput             InvalidKey · InvalidUUID · InvalidPath · InvalidExpression ·
    │                            Refused
    ├── ProtocolError            LocalProtocolError · RemoteProtocolError · PeerError
    ├── TransportError           ConnectFailed · ConnectionLost · OutcomeUnknown · AuthFailed ·
    │                            TimedOut · NodesFailed
    ├── ContentError             KeyNotPresent · VerificationFailed (WrongPartial) ·
    │                            ContentChanged · IncompleteTransfer · ContentLocked · NotLocked ·
    │                            TransferInProgress · NoSpace · NotRegularFile
    ├── PolicyError              NotEnoughCopies · DropIncomplete · RequiredContent · NotWanted ·
    │                            AccessDenied
    └── RepositoryError          NotARepository · UnsupportedRepository · UnknownUUID ·
                                 LockHeld · BranchConflict

Each carries its facts as attributes and makes its message from them, so nobody has to parse a
sentence. Library exceptions (dulwich, asyncssh, OSError …) are mapped once, at the module that
touches the library, with ``raise … from``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

__all__ = [
    "AccessDenied",
    "AnnexError",
    "AuthFailed",
    "BranchConflict",
    "ConnectFailed",
    "ConnectionLost",
    "ContentChanged",
    "ContentError",
    "ContentLocked",
    "DropIncomplete",
    "IncompleteTransfer",
    "InvalidExpression",
    "InvalidInput",
    "InvalidKey",
    "InvalidPath",
    "InvalidUUID",
    "KeyNotPresent",
    "LocalProtocolError",
    "LockHeld",
    "NoSpace",
    "NodesFailed",
    "NotARepository",
    "NotEnoughCopies",
    "NotLocked",
    "NotRegularFile",
    "NotWanted",
    "OutcomeUnknown",
    "PeerError",
    "PolicyError",
    "ProtocolError",
    "Refused",
    "RemoteProtocolError",
    "RepositoryError",
    "RequiredContent",
    "TimedOut",
    "TransferInProgress",
    "TransportError",
    "UnknownUUID",
    "UnsupportedRepository",
    "VerificationFailed",
    "WrongPartial",
]


def _text(value: object) -> str:
    """*value* for a message: control characters and undecodable bytes are shown, never sent raw."""
    shown = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in shown.encode("utf-8", "backslashreplace").decode()
    )


class AnnexError(Exception):
    """Anything annexpy refuses or fails to do. ``str()`` is one sentence without a full stop."""

    retryable = False
    """True when the same call may succeed later with nothing changed by the caller."""

    def __reduce__(self) -> tuple[Callable[..., AnnexError], tuple[object, ...]]:
        """Workers in other processes raise it here with its facts; exceptions would be made anew of their message."""
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(kind: type[AnnexError], args: tuple[object, ...], facts: dict[str, object]) -> AnnexError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(facts)
    return error


# -- what the caller handed in --------------------------------------------------------------------


class InvalidInput(AnnexError, ValueError):
    """A value that breaks a named limit.

    Attributes:
        field: What was wrong, as the user knows it ("key size", "uuid" …).
        value: The value, whole.
        limit: The rule it broke, as a phrase.
    """

    def __init__(self, field: str, value: object, limit: str) -> None:
        self.field, self.value, self.limit = field, value, limit
        shown = _text(value)
        if len(shown) > 120:
            shown = shown[:117] + "..."
        super().__init__(f"{field} {shown!r}: {limit}")


class InvalidKey(InvalidInput):
    """Not a git-annex key, or one that we do not write (shared rules: docs, table of deviations)."""


class InvalidUUID(InvalidInput):
    """Not a repository UUID: 1–64 of ``[A-Za-z0-9._-]``, not starting with a dot."""


class InvalidPath(InvalidInput):
    """A path that leaves the place it must stay in, or a source that may not be archived."""


class InvalidExpression(InvalidInput):
    """Not a preferred content expression, at one term of it.

    Attributes:
        term: What could not be read, as it stands in the expression.
        position: Characters before it.
    """

    def __init__(self, term: str, position: int, limit: str) -> None:
        self.term, self.position = term, position
        super().__init__(f"expression term at {position}", term, limit)


class Refused(InvalidInput):
    """A feature that annexpy does not offer, refused by name; docs list them."""


# -- the P2P protocol -----------------------------------------------------------------------------


class ProtocolError(AnnexError):
    """The conversation broke the P2P protocol."""


class LocalProtocolError(ProtocolError):
    """We tried to send something that is not legal now."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that is not legal now. The connection is of no further use."""


class PeerError(ProtocolError):
    """The peer answered ``ERROR`` with *text*."""

    def __init__(self, peer: str, text: str) -> None:
        self.peer, self.text = peer, text
        super().__init__(f"{_text(peer)}: {_text(text)}")


# -- the wire -------------------------------------------------------------------------------------


class TransportError(AnnexError):
    """Bytes did not travel."""

    retryable = True


class ConnectFailed(TransportError):
    """No connection to *address* could be made."""

    def __init__(self, address: str, reason: str) -> None:
        self.address, self.reason = address, reason
        super().__init__(f"cannot connect to {_text(address)}: {_text(reason)}")


class ConnectionLost(TransportError):
    """The connection ended while *waiting_for*. The outcome at the peer is unknown."""

    def __init__(self, peer: str, waiting_for: str, reason: str = "") -> None:
        self.peer, self.waiting_for, self.reason = peer, waiting_for, reason
        because = f" ({_text(reason)})" if reason else ""
        super().__init__(f"{_text(peer)} hung up while waiting for {waiting_for}{because}")


class OutcomeUnknown(TransportError):
    """*peer* was asked for *what*, and what it said, if anything, leaves open whether that was or will be done."""

    def __init__(self, peer: str, what: str, reason: str) -> None:
        self.peer, self.what, self.reason = peer, what, reason
        super().__init__(f"{_text(peer)}: the outcome of {what} is unknown ({_text(reason)})")


class AuthFailed(TransportError):
    """*address* refused our credentials."""

    retryable = False

    def __init__(self, address: str, reason: str = "authentication refused") -> None:
        self.address, self.reason = address, reason
        super().__init__(f"{_text(address)}: {_text(reason)}")


class TimedOut(TransportError):
    """*peer* did not come up with *waiting_for* within *seconds*. The outcome is unknown."""

    def __init__(self, peer: str, waiting_for: str, seconds: float) -> None:
        self.peer, self.waiting_for, self.seconds = peer, waiting_for, seconds
        super().__init__(f"{_text(peer)}: no {waiting_for} within {seconds:g} s")


class NodesFailed(TransportError):
    """No node of a cluster did what it was asked. Where a reason is a TransportError, the outcome there is unknown.

    Attributes:
        cluster: The cluster, as the user knows it.
        doing: What was asked, as a phrase ("to store KEY").
        failed: UUID of a node → why not. Empty when the cluster has no nodes.
    """

    def __init__(self, cluster: str, doing: str, failed: Iterable[tuple[str, AnnexError]]) -> None:
        self.cluster, self.doing, self.failed = cluster, doing, dict(failed)
        self.retryable = any(error.retryable for error in self.failed.values())
        why = "; ".join(f"{_text(uuid)}: {error}" for uuid, error in self.failed.items()) or "it has no nodes"
        super().__init__(f"{_text(cluster)}: no node was able {_text(doing)} ({why})")


# -- content --------------------------------------------------------------------------------------


class ContentError(AnnexError):
    """The content of one key could not be had, kept or removed.

    Attributes:
        key: The key, as text.
        where: Which repository or remote, as the user knows it.
    """

    what = "content error"

    def __init__(self, key: object, where: str = "", reason: str = "") -> None:
        self.key, self.where, self.reason = str(key), where, reason
        place = f" in {_text(where)}" if where else ""
        because = f": {_text(reason)}" if reason else ""
        super().__init__(f"{_text(self.key)}: {self.what}{place}{because}")


class KeyNotPresent(ContentError):
    """The place was asked and does not have the content."""

    what = "content is not present"


class VerificationFailed(ContentError):
    """The bytes are not the ones the key names."""

    what = "content does not match its key"


class WrongPartial(VerificationFailed):
    """What came, together with the partial that was there, does not match the key. The partial is thrown away."""

    what = "a part that was there before did not match its key, and is thrown away; put it again"
    retryable = True


class ContentChanged(ContentError):
    """The sender said ``INVALID``: what it sent is not the content of the key."""

    what = "content changed while it was sent"
    retryable = True


class ContentLocked(ContentError):
    """Somebody holds a content lock or a retention, so it may not be removed."""

    what = "content is locked"
    retryable = True


class NotLocked(ContentError):
    """The content could not be locked in place."""

    what = "content could not be locked"


class TransferInProgress(ContentError):
    """Another process is receiving the same key into the same repository."""

    what = "transfer already in progress"
    retryable = True


class NotRegularFile(ContentError):
    """Something other than a regular file stands where the content should be."""

    what = "object is not a regular file"


class IncompleteTransfer(ContentError):
    """Fewer or more bytes arrived than were announced."""

    what = "incomplete transfer"
    retryable = True

    def __init__(self, key: object, received: int, expected: int, where: str = "") -> None:
        self.received, self.expected = received, expected
        super().__init__(key, where, f"{received} of {expected} bytes")


class NoSpace(ContentError):
    """Storing would leave less than the disk reserve, or the system refused (*said*).

    *need* and *free* are bytes; a *need* of 0 is not known.
    """

    what = "not enough free disk space"

    def __init__(self, key: object, where: str, need: int, free: int, reserve: int = 0, said: str = "") -> None:
        self.need, self.free, self.reserve = need, free, reserve
        numbers = f"{need} bytes needed, {free} free" if need else f"{free} bytes free"
        super().__init__(key, where, f"{said + ': ' if said else ''}{numbers}, {reserve} reserved")


# -- policy ---------------------------------------------------------------------------------------


class PolicyError(AnnexError):
    """A rule of the repository forbids it."""


class NotEnoughCopies(PolicyError):
    """A drop was refused before anything was removed.

    Attributes:
        key: The key, as text.
        have: Copies that were proven.
        need: Copies that must remain.
        counted: Place → how it was proven.
        missing: Place → why it did not count.
    """

    def __init__(
        self,
        key: object,
        have: int,
        need: int,
        *,
        counted: Mapping[str, str] | None = None,
        missing: Mapping[str, str] | None = None,
    ) -> None:
        self.key, self.have, self.need = str(key), have, need
        self.counted, self.missing = dict(counted or {}), dict(missing or {})
        parts = [f"{_text(self.key)}: {have} {'copy' if have == 1 else 'copies'} verified, {need} needed"]
        if self.counted:
            parts.append("counted: " + ", ".join(f"{_text(p)} ({h})" for p, h in self.counted.items()))
        if self.missing:
            parts.append("not counted: " + ", ".join(f"{_text(p)} ({_text(w)})" for p, w in self.missing.items()))
        super().__init__("; ".join(parts))


class DropIncomplete(PolicyError):
    """Some places removed the content and some did not. What is gone has been recorded.

    Attributes:
        removed: UUIDs that no longer have it.
        remaining: UUID → why it still has it, or may have it.
    """

    retryable = True

    def __init__(self, key: object, removed: Sequence[str], remaining: Mapping[str, str]) -> None:
        self.key, self.removed, self.remaining = str(key), tuple(removed), dict(remaining)
        left = ", ".join(f"{_text(u)} ({_text(w)})" for u, w in self.remaining.items()) or "unknown"
        super().__init__(
            f"{_text(self.key)}: removed from {', '.join(map(_text, self.removed)) or 'nowhere'}; remaining: {left}"
        )


class RequiredContent(PolicyError):
    """A drop was refused because a repository must keep the content. Nothing was removed.

    Attributes:
        key: The key, as text.
        places: The repositories that require it, as the user knows them.
        file: The file that it is required for; None for the key itself.
    """

    def __init__(self, key: object, places: Iterable[str], file: bytes | None = None) -> None:
        self.key, self.places, self.file = str(key), tuple(places), file
        named = f" as {_text(file.decode('utf-8', 'surrogateescape'))}" if file is not None else ""
        super().__init__(f"{_text(self.key)}: required content of {', '.join(map(_text, self.places))}{named}")


class NotWanted(PolicyError):
    """No repository wants the content and the policy is to refuse then."""


class AccessDenied(PolicyError):
    """The peer's role does not allow the request (read-only, append-only …)."""


# -- local repositories ---------------------------------------------------------------------------


class RepositoryError(AnnexError):
    """A local repository is not what it should be."""


class NotARepository(RepositoryError):
    """*path* is no git repository, or one without git-annex."""

    def __init__(self, path: str, reason: str = "not a git-annex repository") -> None:
        self.path, self.reason = path, reason
        super().__init__(f"{_text(path)}: {_text(reason)}")


class UnsupportedRepository(RepositoryError):
    """A repository version or tuning that annexpy does not write."""


class UnknownUUID(RepositoryError):
    """Expected one repository and found another, or none of that UUID is known."""


class LockHeld(RepositoryError):
    """A lock was not free within its deadline.

    Attributes:
        lock: The lock file.
        holder: Who has it, as far as can be found out ("pid 4711 on node3").
        seconds: How long we waited.
    """

    retryable = True

    def __init__(self, lock: str, holder: str, seconds: float) -> None:
        self.lock, self.holder, self.seconds = lock, holder, seconds
        super().__init__(f"{_text(lock)} is held by {_text(holder)}; gave up after {seconds:g} s")


class BranchConflict(RepositoryError):
    """The git-annex branch kept moving, or cannot be merged (transitions, tuning)."""

    retryable = True
