"""The git-annex P2P protocol in pure Python: store, prove and find every copy.

Everything a program needs is a name of this package. Nothing is imported until a name is used, because a
command that runs once per connection pays for every import (docs/design.md, "Start-up").

``annexpy.sync`` is the same without an event loop; ``annexpy.server`` shows repositories to others.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from annexpy.clock import Clock, Deadline
    from annexpy.errors import (
        AnnexError,
        AuthFailed,
        BranchConflict,
        ConnectFailed,
        ConnectionLost,
        ContentChanged,
        ContentError,
        ContentLocked,
        DropIncomplete,
        IncompleteTransfer,
        InvalidInput,
        InvalidKey,
        InvalidPath,
        InvalidUUID,
        KeyNotPresent,
        LocalProtocolError,
        LockHeld,
        NoSpace,
        NotARepository,
        NotEnoughCopies,
        NotLocked,
        NotRegularFile,
        NotWanted,
        PeerError,
        PolicyError,
        ProtocolError,
        Refused,
        RemoteProtocolError,
        RepositoryError,
        TimedOut,
        TransferInProgress,
        TransportError,
        UnknownUUID,
        UnsupportedRepository,
        VerificationFailed,
    )
    from annexpy.keys.key import Key
    from annexpy.remote.base import Download, LockedCopy, Remote, Removed, Stored, Upload
    from annexpy.uuids import UUID, is_cluster, parse_uuid

__all__ = [
    "UUID",
    "AnnexError",
    "AuthFailed",
    "BranchConflict",
    "Clock",
    "ConnectFailed",
    "ConnectionLost",
    "ContentChanged",
    "ContentError",
    "ContentLocked",
    "Deadline",
    "Download",
    "DropIncomplete",
    "IncompleteTransfer",
    "InvalidInput",
    "InvalidKey",
    "InvalidPath",
    "InvalidUUID",
    "Key",
    "KeyNotPresent",
    "LocalProtocolError",
    "LockHeld",
    "LockedCopy",
    "NoSpace",
    "NotARepository",
    "NotEnoughCopies",
    "NotLocked",
    "NotRegularFile",
    "NotWanted",
    "PeerError",
    "PolicyError",
    "ProtocolError",
    "Refused",
    "Remote",
    "RemoteProtocolError",
    "Removed",
    "RepositoryError",
    "Stored",
    "TimedOut",
    "TransferInProgress",
    "TransportError",
    "UnknownUUID",
    "UnsupportedRepository",
    "Upload",
    "VerificationFailed",
    "__version__",
    "is_cluster",
    "parse_uuid",
]

__version__ = "0.1.0"
"""The version of the distribution; a test compares it with pyproject.toml."""

_PLACES = {
    "AnnexError": "annexpy.errors",
    "AuthFailed": "annexpy.errors",
    "BranchConflict": "annexpy.errors",
    "Clock": "annexpy.clock",
    "ConnectFailed": "annexpy.errors",
    "ConnectionLost": "annexpy.errors",
    "ContentChanged": "annexpy.errors",
    "ContentError": "annexpy.errors",
    "ContentLocked": "annexpy.errors",
    "Deadline": "annexpy.clock",
    "Download": "annexpy.remote.base",
    "DropIncomplete": "annexpy.errors",
    "IncompleteTransfer": "annexpy.errors",
    "InvalidInput": "annexpy.errors",
    "InvalidKey": "annexpy.errors",
    "InvalidPath": "annexpy.errors",
    "InvalidUUID": "annexpy.errors",
    "Key": "annexpy.keys.key",
    "KeyNotPresent": "annexpy.errors",
    "LocalProtocolError": "annexpy.errors",
    "LockHeld": "annexpy.errors",
    "LockedCopy": "annexpy.remote.base",
    "NoSpace": "annexpy.errors",
    "NotARepository": "annexpy.errors",
    "NotEnoughCopies": "annexpy.errors",
    "NotLocked": "annexpy.errors",
    "NotRegularFile": "annexpy.errors",
    "NotWanted": "annexpy.errors",
    "PeerError": "annexpy.errors",
    "PolicyError": "annexpy.errors",
    "ProtocolError": "annexpy.errors",
    "Refused": "annexpy.errors",
    "Remote": "annexpy.remote.base",
    "RemoteProtocolError": "annexpy.errors",
    "Removed": "annexpy.remote.base",
    "RepositoryError": "annexpy.errors",
    "Stored": "annexpy.remote.base",
    "TimedOut": "annexpy.errors",
    "TransferInProgress": "annexpy.errors",
    "TransportError": "annexpy.errors",
    "UUID": "annexpy.uuids",
    "UnknownUUID": "annexpy.errors",
    "UnsupportedRepository": "annexpy.errors",
    "Upload": "annexpy.remote.base",
    "VerificationFailed": "annexpy.errors",
    "is_cluster": "annexpy.uuids",
    "parse_uuid": "annexpy.uuids",
}
"""Name → module, or module:name where the two differ."""


def __getattr__(name: str) -> object:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module 'annexpy' has no attribute {name!r}")
    from importlib import import_module

    module, _, other = place.partition(":")
    value: object = getattr(import_module(module), other or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
