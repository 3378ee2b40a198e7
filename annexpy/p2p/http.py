"""The verbs of the P2P protocol, versions 0 to 4, as HTTP requests: values only. ``http_answers`` has the answers.

Paths, query parameters and headers ⇄ frozen classes; who carries them, and who may ask, is known elsewhere.
A server first finds the ``Route`` (which repository, which verb), decides whether the client may ask for that,
and only then reads the parameters with ``parse_request``. A client goes the other way round.

Beyond git-annex: unknown versions are ``NoSuchRoute``, so that clients fall back (git-annex answers 400); presence
and time may be asked with GET, since they change nothing; what git-annex would take for a key that exists nowhere
(NUL or a line feed inside) is refused, because a proxy would forge a line of it.

Source: fact sheet p2p-protocol, section 6; fact sheet reliability, table 1.3.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, TypeAlias

from annexpy.errors import InvalidInput
from annexpy.keys.key import Key
from annexpy.p2p.http_query import Query, decoded, encoded, key_of, number_of, text_of
from annexpy.p2p.versions import MAX_VERSION
from annexpy.uuids import UUID, parse_uuid

__all__ = [
    "BASE",
    "CONTENT_TYPE",
    "DATA_LENGTH",
    "CheckPresentRequest",
    "GetRequest",
    "GetTimestampRequest",
    "KeepLockedRequest",
    "LockContentRequest",
    "NoSuchRoute",
    "PossessionRequest",
    "PutOffsetRequest",
    "PutRequest",
    "RemoveBeforeRequest",
    "RemoveRequest",
    "Request",
    "Route",
    "WrongMethod",
    "format_request",
    "method_of",
    "parse_data_length",
    "parse_request",
    "parse_route",
]

BASE: Final = b"/git-annex/"
DATA_LENGTH: Final = b"x-git-annex-data-length"
"""Header: how many bytes of content a body has. Fewer is how a sender says INVALID."""
CONTENT_TYPE: Final = b"application/octet-stream"

_VERBS: Final[Mapping[bytes, tuple[int, bytes]]] = {
    b"key": (0, b"GET HEAD"),
    b"checkpresent": (0, b"POST GET"),
    b"putoffset": (1, b"POST"),
    b"put": (0, b"POST"),
    b"remove": (0, b"POST"),
    b"remove-before": (3, b"POST"),
    b"gettimestamp": (3, b"POST GET"),
    b"possession": (4, b"POST"),
    b"lockcontent": (0, b"POST"),
    b"keeplocked": (0, b"POST"),
}
"""Verb (``possession`` is ours) → the version that introduced it, and its methods; the first is the one that we use."""

_VERSION = re.compile(rb"v([0-9])\Z")
_NONCE = re.compile(rb"[0-9a-f]{64}\Z")


class NoSuchRoute(InvalidInput):
    """A path that leads nowhere, an unknown version, or a verb that its version does not have: 404."""


class WrongMethod(InvalidInput):
    """The path is asked with other methods: 405. *allowed* is the value of the header ``Allow``."""

    def __init__(self, method: bytes, allowed: bytes) -> None:
        self.allowed = allowed.replace(b" ", b", ")
        super().__init__("method", method, f"one of {self.allowed.decode()}")


# -- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes, before its parameters are read.

    Attributes:
        uuid: Which repository is asked.
        verb: "checkpresent", "put" …; ``key`` reads content.
        version: 0 to 4; None for ``/git-annex/UUID/key/KEY``, which is for everybody.
        key: Last part of the path, still encoded; only where the verb is ``key``.
        query: What stands behind the question mark.
    """

    uuid: UUID
    verb: bytes
    version: int | None
    key: bytes = b""
    query: bytes = b""


@dataclass(frozen=True, slots=True)
class _KeyRequest:
    uuid: UUID
    key: Key
    client: UUID | None = None
    version: int = MAX_VERSION
    bypass: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Send the content from byte *offset*."""

    verb: ClassVar = b"key"
    uuid: UUID
    key: Key
    client: UUID | None = None
    version: int | None = MAX_VERSION
    bypass: tuple[UUID, ...] = ()
    offset: int = 0
    associated_file: str = ""


@dataclass(frozen=True, slots=True)
class CheckPresentRequest(_KeyRequest):
    """Is the content there, by disk?"""

    verb: ClassVar = b"checkpresent"


@dataclass(frozen=True, slots=True)
class PutOffsetRequest(_KeyRequest):
    """Which byte do you want first?"""

    verb: ClassVar = b"putoffset"


@dataclass(frozen=True, slots=True)
class PutRequest:
    """Store the content; *length* bytes of it follow, from byte *offset*. *data_present*: it got there otherwise."""

    verb: ClassVar = b"put"
    uuid: UUID
    key: Key
    length: int
    client: UUID | None = None
    version: int = MAX_VERSION
    bypass: tuple[UUID, ...] = ()
    offset: int = 0
    associated_file: str = ""
    data_present: bool = False


@dataclass(frozen=True, slots=True)
class RemoveRequest(_KeyRequest):
    """Remove the content."""

    verb: ClassVar = b"remove"


@dataclass(frozen=True, slots=True)
class RemoveBeforeRequest:
    """Remove the content, but only while the server's clock is below *timestamp* (seconds, strictly)."""

    verb: ClassVar = b"remove-before"
    uuid: UUID
    key: Key
    timestamp: int
    client: UUID | None = None
    version: int = MAX_VERSION
    bypass: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class GetTimestampRequest:
    """What does the server's clock say?"""

    verb: ClassVar = b"gettimestamp"
    uuid: UUID
    client: UUID | None = None
    version: int = MAX_VERSION
    bypass: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class PossessionRequest:
    """What is the SHA-256 of *nonce* and the content behind it? Asked of our own servers only."""

    verb: ClassVar = b"possession"
    uuid: UUID
    key: Key
    nonce: bytes
    client: UUID | None = None
    version: int = MAX_VERSION
    bypass: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class LockContentRequest(_KeyRequest):
    """Keep the content from being removed; ``keeplocked`` has to follow."""

    verb: ClassVar = b"lockcontent"


@dataclass(frozen=True, slots=True)
class KeepLockedRequest:
    """Keep the lock *lock_id* while this request lasts; its body is what ``format_unlock`` makes."""

    verb: ClassVar = b"keeplocked"
    uuid: UUID
    lock_id: str
    client: UUID | None = None
    version: int = MAX_VERSION
    bypass: tuple[UUID, ...] = ()


Request: TypeAlias = (
    GetRequest
    | CheckPresentRequest
    | PutOffsetRequest
    | PutRequest
    | RemoveRequest
    | RemoveBeforeRequest
    | GetTimestampRequest
    | PossessionRequest
    | LockContentRequest
    | KeepLockedRequest
)


def parse_route(method: bytes, target: bytes, base: bytes = BASE) -> Route:
    """Where *target*, the second word of a request, leads.

    Raises:
        NoSuchRoute: Nowhere. Tells nothing about which repositories there are.
        WrongMethod: It is there, but not for *method*.
    """
    path, _, query = target.partition(b"?")
    if not path.startswith(base):
        raise NoSuchRoute("path", path, f"below {base.decode()}")
    words = path[len(base) :].removesuffix(b"/").split(b"/")
    version: int | None = None
    key = b""
    match words:
        case [who, b"key", key]:
            verb = b"key"
        case [who, number, b"key", key]:
            verb, version = b"key", _version(number)
        case [who, number, verb] if verb != b"key":
            version = _version(number)
        case _:
            raise NoSuchRoute("path", path, "UUID/vN/VERB or UUID/key/KEY")
    since, methods = _VERBS.get(verb, (MAX_VERSION + 1, b""))
    if (MAX_VERSION if version is None else version) < since:
        raise NoSuchRoute("path", path, f"no such verb in version {version}")
    try:
        uuid = parse_uuid(decoded("uuid", who))
    except InvalidInput as error:
        raise NoSuchRoute("path", path, "the UUID of a repository") from error
    if method not in methods.split():
        raise WrongMethod(method, methods)
    return Route(uuid, verb, version, key, query)


def _version(word: bytes) -> int:
    match = _VERSION.match(word)
    if match is None or int(match[1]) > MAX_VERSION:
        raise NoSuchRoute("version", word, f"v0 to v{MAX_VERSION}")
    return int(match[1])


def parse_request(route: Route, data_length: bytes | None = None) -> Request:
    """The request that *route* and its query make.

    Args:
        route: Where it goes.
        data_length: Value of the header ``DATA_LENGTH``; only ``put`` needs it.

    Raises:
        InvalidInput: Names the parameter that is missing, given twice or not what it should be.
    """
    ask = Query(route.query)
    uuid, version = route.uuid, route.version
    bypass = ask.uuids("bypass") if b"bypass" in route.query else ()
    if route.verb == b"key":
        key = key_of(decoded("key", route.key))
        if version is None:
            return GetRequest(uuid, key, version=None)
        client = ask.client()
        return GetRequest(uuid, key, client, version, bypass, ask.number("offset", 0), ask.associated_file())
    assert version is not None
    if route.verb == b"keeplocked":
        lock_id = text_of("lockid", ask.needed("lockid"))
        # Of no use to anybody but for messages, and git-annex does not need it.
        return KeepLockedRequest(uuid, lock_id, ask.client() if ask.given("clientuuid") else None, version, bypass)
    client = ask.client()
    match route.verb:
        case b"checkpresent":
            return CheckPresentRequest(uuid, ask.key(), client, version, bypass)
        case b"putoffset":
            return PutOffsetRequest(uuid, ask.key(), client, version, bypass)
        case b"put":
            present = version >= 4 and ask.truth("data-present")
            if data_length is None and not present:
                raise InvalidInput(DATA_LENGTH.decode(), "", "a header that has to be there")
            length = 0 if data_length is None else parse_data_length(data_length)
            offset, name = ask.number("offset", 0), ask.associated_file()
            return PutRequest(uuid, ask.key(), length, client, version, bypass, offset, name, present)
        case b"remove":
            return RemoveRequest(uuid, ask.key(), client, version, bypass)
        case b"remove-before":
            return RemoveBeforeRequest(uuid, ask.key(), ask.number("timestamp"), client, version, bypass)
        case b"gettimestamp":
            return GetTimestampRequest(uuid, client, version, bypass)
        case b"possession":
            return PossessionRequest(uuid, ask.key(), _nonce(ask.needed("nonce")), client, version, bypass)
        case b"lockcontent":
            return LockContentRequest(uuid, ask.key(), client, version, bypass)
        case verb:
            raise NoSuchRoute("path", verb, "a verb of the protocol")


def _nonce(value: bytes) -> bytes:
    if not _NONCE.match(value):
        raise InvalidInput("nonce", value, "32 bytes in lower case hex")
    return bytes.fromhex(value.decode())


def parse_data_length(value: bytes) -> int:
    """The header ``DATA_LENGTH``.

    Raises:
        InvalidInput: Not a plain number of bytes.
    """
    return number_of(DATA_LENGTH.decode(), value)


# -- requests, as a client makes them -----------------------------------------------------------------


def method_of(request: Request) -> bytes:
    """GET or POST, as every server takes it."""
    return b"GET" if isinstance(request, GetRequest) else b"POST"


def format_request(request: Request, base: bytes = BASE) -> bytes:
    """The target that asks for *request*: path and query.

    The header ``DATA_LENGTH`` of a ``PutRequest`` is left to the caller.

    Args:
        request: What to ask.
        base: What stands before the UUID, with its slash.
    """
    path = base + encoded(request.uuid.encode())
    query: list[bytes] = []

    def say(name: bytes, value: bytes) -> None:
        query.append(name + b"=" + value)

    if request.version is not None:
        path += b"/v%d" % request.version
    path += b"/" + request.verb
    if isinstance(request, GetRequest):
        path += b"/" + encoded(request.key.raw)
    elif isinstance(request, KeepLockedRequest):
        say(b"lockid", encoded(request.lock_id.encode()))
    elif not isinstance(request, GetTimestampRequest):
        say(b"key", encoded(request.key.raw))
    if request.client is not None:
        say(b"clientuuid", encoded(request.client.encode()))
    for uuid in request.bypass:
        say(b"bypass", encoded(uuid.encode()))
    match request:
        case GetRequest():
            _say_file(say, request.associated_file)
            if request.offset:
                say(b"offset", b"%d" % request.offset)
        case PutRequest():
            _say_file(say, request.associated_file)
            say(b"offset", b"%d" % request.offset)
            if request.data_present:
                say(b"data-present", b"true")
        case RemoveBeforeRequest():
            say(b"timestamp", b"%d" % request.timestamp)
        case PossessionRequest():
            say(b"nonce", request.nonce.hex().encode())
    return path + b"?" + b"&".join(query) if query else path


def _say_file(say: Callable[[bytes, bytes], None], name: str) -> None:
    if name:
        say(b"associatedfile", encoded(name.encode("utf-8", "surrogateescape")))
