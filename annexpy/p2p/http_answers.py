"""What HTTP servers answer to the verbs of the P2P protocol, and the body of ``keeplocked``: values ⇄ JSON.

Source: fact sheet p2p-protocol, section 6, "what the real client sends and requires".
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from annexpy.errors import InvalidInput, RemoteProtocolError
from annexpy.p2p.http import (
    CheckPresentRequest,
    GetRequest,
    GetTimestampRequest,
    KeepLockedRequest,
    LockContentRequest,
    PossessionRequest,
    PutOffsetRequest,
    PutRequest,
    RemoveBeforeRequest,
    RemoveRequest,
    Request,
)
from annexpy.uuids import UUID, parse_uuid

__all__ = [
    "JSON_TYPE",
    "AlreadyHaveAnswer",
    "Answer",
    "KeepLockedBody",
    "LockAnswer",
    "OffsetAnswer",
    "PossessionAnswer",
    "PresentAnswer",
    "RemovedAnswer",
    "StoredAnswer",
    "TimestampAnswer",
    "format_answer",
    "format_unlock",
    "parse_answer",
]

JSON_TYPE: Final = b"application/json;charset=utf-8"
"""Without it, stock clients do not read the answer."""
_MAX_KEEP_LOCKED: Final = 4096
_DIGEST: Final = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True, slots=True)
class PresentAnswer:
    """To ``checkpresent``."""

    present: bool


@dataclass(frozen=True, slots=True)
class OffsetAnswer:
    """To ``putoffset``: the first byte that is wanted. May exceed the size of the key: then send none."""

    offset: int


@dataclass(frozen=True, slots=True)
class AlreadyHaveAnswer:
    """To ``putoffset``: nothing has to be sent; *uuids* have it too. A claim: check before relying on it."""

    uuids: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """To ``put``. *already*: nothing was needed of it; only our own servers say that, git-annex reads over it."""

    stored: bool
    uuids: tuple[UUID, ...] = ()
    already: bool = False


@dataclass(frozen=True, slots=True)
class RemovedAnswer:
    """To ``remove`` and ``remove-before``; *uuids* no longer have it, possibly some even when not *removed*."""

    removed: bool
    uuids: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class TimestampAnswer:
    """To ``gettimestamp``: whole seconds of the server's steady clock, rounded down."""

    seconds: int


@dataclass(frozen=True, slots=True)
class PossessionAnswer:
    """To ``possession``; None: the content is not there."""

    digest: bytes | None


@dataclass(frozen=True, slots=True)
class LockAnswer:
    """To ``lockcontent``, and at the end of ``keeplocked``; None: not locked (any longer)."""

    lock_id: str | None = None


Answer: TypeAlias = (
    PresentAnswer
    | OffsetAnswer
    | AlreadyHaveAnswer
    | StoredAnswer
    | RemovedAnswer
    | TimestampAnswer
    | PossessionAnswer
    | LockAnswer
)


def format_answer(answer: Answer, version: int) -> bytes:
    """*answer* as the JSON body that a client of *version* reads.

    From version 2 on ``plusuuids`` has to be there, and git-annex has it first.
    """
    already = False
    match answer:
        case PresentAnswer(present):
            return b'{"present":true}' if present else b'{"present":false}'
        case OffsetAnswer(offset):
            return b'{"offset":%d}' % offset
        case TimestampAnswer(seconds):
            return b'{"timestamp":%d}' % seconds
        case PossessionAnswer(None):
            return b'{"sha256":null}'
        case PossessionAnswer(bytes() as digest):
            return b'{"sha256":"%b"}' % digest.hex().encode()
        case LockAnswer(None):
            return b'{"locked":false}'
        case LockAnswer(lock_id):
            return b'{"locked":true,"lockid":"%b"}' % str(lock_id).encode()
        case AlreadyHaveAnswer(uuids):
            return b'{"alreadyhave":true%b}' % (b"," + _plus(uuids) if version >= 2 else b"")
        case StoredAnswer(done, uuids, already):
            word = b"stored"
        case RemovedAnswer(done, uuids):
            word = b"removed"
    plus = _plus(uuids) + b"," if version >= 2 else b""
    more = b',"already":true' if already else b""
    return b'{%b"%b":%b%b}' % (plus, word, b"true" if done else b"false", more)


def _plus(uuids: tuple[UUID, ...]) -> bytes:
    # Nothing in a UUID needs escaping (``parse_uuid``).
    return b'"plusuuids":[%b]' % b",".join(b'"%b"' % uuid.encode() for uuid in uuids)


def parse_answer(request: Request, body: bytes) -> Answer:
    """The JSON *body* that answered *request*.

    Raises:
        RemoteProtocolError: Not JSON, or names the field that is missing or wrong.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"answer to {request.verb.decode()} is not JSON: {body[:80]!r}") from error
    if not isinstance(said, dict):
        raise RemoteProtocolError(f"answer to {request.verb.decode()} is not an object: {body[:80]!r}")
    match request:
        case CheckPresentRequest():
            return PresentAnswer(_truth(said, "present"))
        case PutOffsetRequest():
            if "offset" in said:
                return OffsetAnswer(_count(said, "offset"))
            if _truth(said, "alreadyhave"):
                return AlreadyHaveAnswer(_uuids(said))
            raise RemoteProtocolError("answer to putoffset: neither offset nor alreadyhave")
        case PutRequest():
            return StoredAnswer(_truth(said, "stored"), _uuids(said), said.get("already") is True)
        case RemoveRequest() | RemoveBeforeRequest():
            return RemovedAnswer(_truth(said, "removed"), _uuids(said))
        case GetTimestampRequest():
            return TimestampAnswer(_count(said, "timestamp", least=None))
        case PossessionRequest():
            return PossessionAnswer(_digest(said))
        case LockContentRequest() | KeepLockedRequest():
            if not _truth(said, "locked"):
                return LockAnswer()
            lock_id = said.get("lockid")
            if not isinstance(lock_id, str) or not lock_id:
                raise RemoteProtocolError("answer field lockid: a text that has to be there")
            return LockAnswer(lock_id)
        case GetRequest():
            raise RemoteProtocolError("content is no JSON")


def _truth(said: Mapping[str, object], name: str) -> bool:
    value = said.get(name)
    if not isinstance(value, bool):
        raise RemoteProtocolError(f"answer field {name}: true or false, not {value!r}")
    return value


def _count(said: Mapping[str, object], name: str, least: int | None = 0) -> int:
    value = said.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or (least is not None and value < least):
        raise RemoteProtocolError(f"answer field {name}: a whole number, not {value!r}")
    return value


def _digest(said: Mapping[str, object]) -> bytes | None:
    value = said.get("sha256", "")
    if value is None:
        return None
    if not isinstance(value, str) or not _DIGEST.match(value):
        raise RemoteProtocolError(f"answer field sha256: 32 bytes in lower case hex, not {value!r}")
    return bytes.fromhex(value)


def _uuids(said: Mapping[str, object]) -> tuple[UUID, ...]:
    value = said.get("plusuuids", [])
    if not isinstance(value, list):
        raise RemoteProtocolError(f"answer field plusuuids: a list, not {value!r}")
    try:
        return tuple(parse_uuid(uuid) for uuid in value)
    except (InvalidInput, TypeError, AttributeError) as error:
        raise RemoteProtocolError(f"answer field plusuuids: {error}") from error


# -- the body of keeplocked -----------------------------------------------------------------------


def format_unlock(unlock: bool) -> bytes:
    """One piece of the body of ``keeplocked``. The first, with False, says that the lock is wanted."""
    return b'{"unlock":true}\n' if unlock else b'{"unlock":false}\n'


class KeepLockedBody:
    """Reads the body of ``keeplocked`` as it arrives."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = ""

    def unlocks(self, data: bytes) -> bool:
        """Does the body, with *data*, say to unlock?

        Raises:
            InvalidInput: Something else than the objects that ``format_unlock`` makes.
        """
        try:
            self._rest = (self._rest + data.decode("latin-1")).lstrip()
            while self._rest:
                said, end = json.JSONDecoder().raw_decode(self._rest)
                if not isinstance(said, dict) or not isinstance(said.get("unlock"), bool):
                    raise InvalidInput("unlock", self._rest[:end], "true or false")
                self._rest = self._rest[end:].lstrip()
                if said["unlock"]:
                    return True
        except (json.JSONDecodeError, RecursionError) as error:
            # Half an object: the rest is yet to come.
            if len(self._rest) > _MAX_KEEP_LOCKED or self._rest[:1] not in ("", "{"):
                raise InvalidInput("keeplocked", self._rest[:80], "JSON objects with unlock") from error
        except ValueError as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput("keeplocked", self._rest[:80], "JSON objects with unlock") from error  # a huge number
        return False
