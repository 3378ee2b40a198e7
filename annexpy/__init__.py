"""The git-annex P2P protocol in pure Python: store, prove and find every copy.

Everything a program needs is a name of this package. Nothing is imported until a name is used, because a
command that runs once per connection pays for every import (docs/design.md, "Start-up").

``annexpy.sync`` is the same without an event loop; ``annexpy.server`` shows repositories to others.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from annexpy.actions.configure import configure
    from annexpy.actions.copy import copy, move
    from annexpy.actions.drop import drop, drop_many, examine
    from annexpy.actions.facts import Facts
    from annexpy.actions.fsck import fsck
    from annexpy.actions.get import get
    from annexpy.actions.has import has_many
    from annexpy.actions.info import Info, info
    from annexpy.actions.key import annexed_key, key_of
    from annexpy.actions.log import Logged, log
    from annexpy.actions.prove import Proof, prove
    from annexpy.actions.push import Pushed, push
    from annexpy.actions.put import put, put_many
    from annexpy.actions.reader import KeyReader, open_key
    from annexpy.actions.reader import open_key as open
    from annexpy.actions.results import DropResult, Moved, Progress, Transfer, Verified
    from annexpy.actions.sync import Synced
    from annexpy.actions.sync import sync as sync_branch
    from annexpy.actions.verify import Checked, verify, verify_many
    from annexpy.actions.wanted import Wanted
    from annexpy.actions.whereis import Location, Whereis, whereis, whereis_all, whereis_many
    from annexpy.clock import Clock, Deadline
    from annexpy.errors import (
        AccessDenied,
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
        InvalidExpression,
        InvalidInput,
        InvalidKey,
        InvalidPath,
        InvalidUUID,
        KeyNotPresent,
        LocalProtocolError,
        LockHeld,
        NodesFailed,
        NoSpace,
        NotARepository,
        NotEnoughCopies,
        NotLocked,
        NotRegularFile,
        NotWanted,
        OutcomeUnknown,
        PeerError,
        PolicyError,
        ProtocolError,
        Refused,
        RemoteProtocolError,
        RepositoryError,
        RequiredContent,
        TimedOut,
        TransferInProgress,
        TransportError,
        UnknownUUID,
        UnsupportedRepository,
        VerificationFailed,
        WrongPartial,
    )
    from annexpy.keys.backend import is_secure, is_verifiable, name_content, verifier
    from annexpy.keys.key import Key
    from annexpy.logs.repos import TrustLevel
    from annexpy.logs.sizes import parse_size
    from annexpy.policy.expression import Expression
    from annexpy.policy.expression import parse as parse_expression
    from annexpy.policy.facts import KeyFacts, Repositories
    from annexpy.policy.numcopies import Copies, DropProof
    from annexpy.policy.placement import Choice, Unwanted
    from annexpy.policy.wanted import Policy
    from annexpy.remote.base import Download, LockedCopy, Remote, Removed, Stored, Upload
    from annexpy.remote.cluster import Cluster
    from annexpy.remote.connect import Connected, connect
    from annexpy.remote.http import HTTPRemote
    from annexpy.remote.local import Local
    from annexpy.remote.memory import MemoryRemote
    from annexpy.remote.p2p import P2PRemote
    from annexpy.remote.recording import Recording
    from annexpy.remote.s3_settings import S3Credentials, S3Settings
    from annexpy.remote.special import connect_s3
    from annexpy.remote.traced import Traced
    from annexpy.remote.wrappers import AppendOnly, ReadOnly, Wrapper
    from annexpy.repo.branch import Branch
    from annexpy.repo.commits import FileChange, SyncedBranch
    from annexpy.repo.filetree import FileTree, TreeFile
    from annexpy.repo.head import Head
    from annexpy.repo.own_lock import OwnLock, adopt_pidlock
    from annexpy.repo.repository import Repository
    from annexpy.system import SystemClock
    from annexpy.uuids import UUID, is_cluster, parse_uuid

__all__ = [
    "UUID",
    "AccessDenied",
    "AnnexError",
    "AppendOnly",
    "AuthFailed",
    "Branch",
    "BranchConflict",
    "Checked",
    "Choice",
    "Clock",
    "Cluster",
    "ConnectFailed",
    "Connected",
    "ConnectionLost",
    "ContentChanged",
    "ContentError",
    "ContentLocked",
    "Copies",
    "Deadline",
    "Download",
    "DropIncomplete",
    "DropProof",
    "DropResult",
    "Expression",
    "Facts",
    "FileChange",
    "FileTree",
    "HTTPRemote",
    "Head",
    "IncompleteTransfer",
    "Info",
    "InvalidExpression",
    "InvalidInput",
    "InvalidKey",
    "InvalidPath",
    "InvalidUUID",
    "Key",
    "KeyFacts",
    "KeyNotPresent",
    "KeyReader",
    "Local",
    "LocalProtocolError",
    "Location",
    "LockHeld",
    "LockedCopy",
    "Logged",
    "MemoryRemote",
    "Moved",
    "NoSpace",
    "NodesFailed",
    "NotARepository",
    "NotEnoughCopies",
    "NotLocked",
    "NotRegularFile",
    "NotWanted",
    "OutcomeUnknown",
    "OwnLock",
    "P2PRemote",
    "PeerError",
    "Policy",
    "PolicyError",
    "Progress",
    "Proof",
    "ProtocolError",
    "Pushed",
    "ReadOnly",
    "Recording",
    "Refused",
    "Remote",
    "RemoteProtocolError",
    "Removed",
    "Repositories",
    "Repository",
    "RepositoryError",
    "RequiredContent",
    "S3Credentials",
    "S3Settings",
    "Stored",
    "Synced",
    "SyncedBranch",
    "SystemClock",
    "TimedOut",
    "Traced",
    "Transfer",
    "TransferInProgress",
    "TransportError",
    "TreeFile",
    "TrustLevel",
    "UnknownUUID",
    "UnsupportedRepository",
    "Unwanted",
    "Upload",
    "VerificationFailed",
    "Verified",
    "Wanted",
    "Whereis",
    "Wrapper",
    "WrongPartial",
    "__version__",
    "adopt_pidlock",
    "annexed_key",
    "configure",
    "connect",
    "connect_s3",
    "copy",
    "drop",
    "drop_many",
    "examine",
    "fsck",
    "get",
    "has_many",
    "info",
    "is_cluster",
    "is_secure",
    "is_verifiable",
    "key_of",
    "log",
    "move",
    "name_content",
    "open",
    "open_key",
    "parse_expression",
    "parse_size",
    "parse_uuid",
    "prove",
    "push",
    "put",
    "put_many",
    "sync_branch",
    "verifier",
    "verify",
    "verify_many",
    "whereis",
    "whereis_all",
    "whereis_many",
]

__version__ = "0.1.0"
"""The version of the distribution; a test compares it with pyproject.toml."""

_PLACES = {
    "AccessDenied": "annexpy.errors",
    "AnnexError": "annexpy.errors",
    "AppendOnly": "annexpy.remote.wrappers",
    "AuthFailed": "annexpy.errors",
    "Branch": "annexpy.repo.branch",
    "BranchConflict": "annexpy.errors",
    "Checked": "annexpy.actions.verify",
    "Choice": "annexpy.policy.placement",
    "Clock": "annexpy.clock",
    "Cluster": "annexpy.remote.cluster",
    "ConnectFailed": "annexpy.errors",
    "Connected": "annexpy.remote.connect",
    "ConnectionLost": "annexpy.errors",
    "ContentChanged": "annexpy.errors",
    "ContentError": "annexpy.errors",
    "ContentLocked": "annexpy.errors",
    "Copies": "annexpy.policy.numcopies",
    "Deadline": "annexpy.clock",
    "Download": "annexpy.remote.base",
    "DropIncomplete": "annexpy.errors",
    "DropProof": "annexpy.policy.numcopies",
    "DropResult": "annexpy.actions.results",
    "Expression": "annexpy.policy.expression",
    "Facts": "annexpy.actions.facts",
    "FileChange": "annexpy.repo.commits",
    "FileTree": "annexpy.repo.filetree",
    "HTTPRemote": "annexpy.remote.http",
    "Head": "annexpy.repo.head",
    "IncompleteTransfer": "annexpy.errors",
    "Info": "annexpy.actions.info",
    "InvalidExpression": "annexpy.errors",
    "InvalidInput": "annexpy.errors",
    "InvalidKey": "annexpy.errors",
    "InvalidPath": "annexpy.errors",
    "InvalidUUID": "annexpy.errors",
    "Key": "annexpy.keys.key",
    "KeyFacts": "annexpy.policy.facts",
    "KeyNotPresent": "annexpy.errors",
    "KeyReader": "annexpy.actions.reader",
    "Local": "annexpy.remote.local",
    "LocalProtocolError": "annexpy.errors",
    "Location": "annexpy.actions.whereis",
    "LockHeld": "annexpy.errors",
    "LockedCopy": "annexpy.remote.base",
    "Logged": "annexpy.actions.log",
    "MemoryRemote": "annexpy.remote.memory",
    "Moved": "annexpy.actions.results",
    "NoSpace": "annexpy.errors",
    "NodesFailed": "annexpy.errors",
    "NotARepository": "annexpy.errors",
    "NotEnoughCopies": "annexpy.errors",
    "NotLocked": "annexpy.errors",
    "NotRegularFile": "annexpy.errors",
    "NotWanted": "annexpy.errors",
    "OutcomeUnknown": "annexpy.errors",
    "OwnLock": "annexpy.repo.own_lock",
    "P2PRemote": "annexpy.remote.p2p",
    "PeerError": "annexpy.errors",
    "Policy": "annexpy.policy.wanted",
    "PolicyError": "annexpy.errors",
    "Progress": "annexpy.actions.results",
    "Proof": "annexpy.actions.prove",
    "ProtocolError": "annexpy.errors",
    "Pushed": "annexpy.actions.push",
    "ReadOnly": "annexpy.remote.wrappers",
    "Recording": "annexpy.remote.recording",
    "Refused": "annexpy.errors",
    "Remote": "annexpy.remote.base",
    "RemoteProtocolError": "annexpy.errors",
    "Removed": "annexpy.remote.base",
    "Repositories": "annexpy.policy.facts",
    "Repository": "annexpy.repo.repository",
    "RepositoryError": "annexpy.errors",
    "RequiredContent": "annexpy.errors",
    "S3Credentials": "annexpy.remote.s3_settings",
    "S3Settings": "annexpy.remote.s3_settings",
    "Stored": "annexpy.remote.base",
    "Synced": "annexpy.actions.sync",
    "SyncedBranch": "annexpy.repo.commits",
    "SystemClock": "annexpy.system",
    "TimedOut": "annexpy.errors",
    "Traced": "annexpy.remote.traced",
    "Transfer": "annexpy.actions.results",
    "TransferInProgress": "annexpy.errors",
    "TransportError": "annexpy.errors",
    "TreeFile": "annexpy.repo.filetree",
    "TrustLevel": "annexpy.logs.repos",
    "UUID": "annexpy.uuids",
    "UnknownUUID": "annexpy.errors",
    "UnsupportedRepository": "annexpy.errors",
    "Unwanted": "annexpy.policy.placement",
    "Upload": "annexpy.remote.base",
    "VerificationFailed": "annexpy.errors",
    "Verified": "annexpy.actions.results",
    "Wanted": "annexpy.actions.wanted",
    "Whereis": "annexpy.actions.whereis",
    "Wrapper": "annexpy.remote.wrappers",
    "WrongPartial": "annexpy.errors",
    "adopt_pidlock": "annexpy.repo.own_lock",
    "annexed_key": "annexpy.actions.key",
    "configure": "annexpy.actions.configure",
    "connect": "annexpy.remote.connect",
    "connect_s3": "annexpy.remote.special",
    "copy": "annexpy.actions.copy",
    "drop": "annexpy.actions.drop",
    "drop_many": "annexpy.actions.drop",
    "examine": "annexpy.actions.drop",
    "fsck": "annexpy.actions.fsck",
    "get": "annexpy.actions.get",
    "has_many": "annexpy.actions.has",
    "info": "annexpy.actions.info",
    "is_cluster": "annexpy.uuids",
    "is_secure": "annexpy.keys.backend",
    "is_verifiable": "annexpy.keys.backend",
    "key_of": "annexpy.actions.key",
    "log": "annexpy.actions.log",
    "move": "annexpy.actions.copy",
    "name_content": "annexpy.keys.backend",
    "open": "annexpy.actions.reader:open_key",
    "open_key": "annexpy.actions.reader",
    "parse_expression": "annexpy.policy.expression:parse",
    "parse_size": "annexpy.logs.sizes",
    "parse_uuid": "annexpy.uuids",
    "prove": "annexpy.actions.prove",
    "push": "annexpy.actions.push",
    "put": "annexpy.actions.put",
    "put_many": "annexpy.actions.put",
    "sync_branch": "annexpy.actions.sync:sync",
    "verifier": "annexpy.keys.backend",
    "verify": "annexpy.actions.verify",
    "verify_many": "annexpy.actions.verify",
    "whereis": "annexpy.actions.whereis",
    "whereis_all": "annexpy.actions.whereis",
    "whereis_many": "annexpy.actions.whereis",
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
