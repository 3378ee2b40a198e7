"""The messages of the P2P protocol, versions 0 to 4, as values; ``parse`` and ``format``.

One frozen class per message. ``format(parse(line))`` is *line* again for every line that a strict
peer sends. What the protocol allows when is not known here but in ``states``.

A line is words separated by one space or tab; the last parameter runs to the end of the line, which
is how keys may contain spaces. Everything is done on bytes. Where git-annex is lenient and we are
not (numbers, UUIDs, NUL in keys) the line parses as ``Unknown``, so a server answers
``ERROR unknown command`` and the session goes on (fact sheets p2p-protocol, sections 1 and 2;
reliability, table 1.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

from annexpy.errors import InvalidInput, InvalidKey, LocalProtocolError
from annexpy.keys.key import Key
from annexpy.patterns import regex
from annexpy.uuids import UUID, parse_uuid

__all__ = [
    "ALREADY_HAVE",
    "AUTH_FAILURE",
    "DATA_PRESENT",
    "FAILURE",
    "GET_TIMESTAMP",
    "INVALID",
    "MAX_LINE",
    "MAX_VERSION",
    "NOTIFY_CHANGE",
    "SUCCESS",
    "UNLOCK_CONTENT",
    "VALID",
    "AlreadyHave",
    "AlreadyHavePlus",
    "Auth",
    "AuthFailure",
    "AuthSuccess",
    "Bypass",
    "Changed",
    "CheckPresent",
    "Connect",
    "ConnectDone",
    "DataHeader",
    "DataPresent",
    "Error",
    "Failure",
    "FailurePlus",
    "Get",
    "GetTimestamp",
    "Invalid",
    "LockContent",
    "Message",
    "NotifyChange",
    "Put",
    "PutFrom",
    "Remove",
    "RemoveBefore",
    "Success",
    "SuccessPlus",
    "Timestamp",
    "Unknown",
    "UnlockContent",
    "Valid",
    "Version",
    "format",
    "parse",
]

MAX_VERSION: Final = 4
MAX_LINE: Final = 32767
"""Characters of a line, without LF and with CR. One more and git-annex hangs up; so do we."""


# -- getting to know each other -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Auth:
    """The client says who it is. *token* is lower case ``[a-z0-9]``, never shown."""

    verb: ClassVar = b"AUTH"
    uuid: UUID
    token: str = field(repr=False)

    def line(self) -> bytes:
        return b"AUTH %b %b" % (self.uuid.encode(), self.token.encode())


@dataclass(frozen=True, slots=True)
class AuthSuccess:
    """The client may go on; *uuid* is the repository that answers. p2pstdio says it unasked."""

    verb: ClassVar = b"AUTH-SUCCESS"
    uuid: UUID

    def line(self) -> bytes:
        return b"AUTH-SUCCESS " + self.uuid.encode()


@dataclass(frozen=True, slots=True)
class AuthFailure:
    """The token is not good. Another AUTH may follow."""

    verb: ClassVar = b"AUTH-FAILURE"

    def line(self) -> bytes:
        return b"AUTH-FAILURE"


@dataclass(frozen=True, slots=True)
class Version:
    """The highest version that the client speaks; the version that will be spoken, in the answer."""

    verb: ClassVar = b"VERSION"
    number: int

    def line(self) -> bytes:
        return b"VERSION %d" % self.number


@dataclass(frozen=True, slots=True)
class Bypass:
    """Gateways that have been passed already and must not be asked again. Never answered."""

    verb: ClassVar = b"BYPASS"
    uuids: tuple[UUID, ...] = ()

    def line(self) -> bytes:
        return _with_uuids(b"BYPASS", self.uuids)


# -- asking about content -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CheckPresent:
    """Is the content there, by disk?"""

    verb: ClassVar = b"CHECKPRESENT"
    key: Key

    def line(self) -> bytes:
        return b"CHECKPRESENT " + self.key.raw


@dataclass(frozen=True, slots=True)
class LockContent:
    """Keep the content from being removed until UNLOCKCONTENT."""

    verb: ClassVar = b"LOCKCONTENT"
    key: Key

    def line(self) -> bytes:
        return b"LOCKCONTENT " + self.key.raw


@dataclass(frozen=True, slots=True)
class UnlockContent:
    """The end of a lock. Takes no parameter, whatever the protocol page says. Never answered."""

    verb: ClassVar = b"UNLOCKCONTENT"

    def line(self) -> bytes:
        return b"UNLOCKCONTENT"


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the content."""

    verb: ClassVar = b"REMOVE"
    key: Key

    def line(self) -> bytes:
        return b"REMOVE " + self.key.raw


@dataclass(frozen=True, slots=True)
class RemoveBefore:
    """Remove the content, but only while the server's clock is below *timestamp* (seconds, strictly)."""

    verb: ClassVar = b"REMOVE-BEFORE"
    key: Key
    timestamp: int

    def line(self) -> bytes:
        return b"REMOVE-BEFORE %d %b" % (self.timestamp, self.key.raw)


@dataclass(frozen=True, slots=True)
class GetTimestamp:
    """What does the server's clock say?"""

    verb: ClassVar = b"GETTIMESTAMP"

    def line(self) -> bytes:
        return b"GETTIMESTAMP"


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Whole seconds of the server's steady clock, rounded down."""

    verb: ClassVar = b"TIMESTAMP"
    seconds: int

    def line(self) -> bytes:
        return b"TIMESTAMP %d" % self.seconds


# -- moving content -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Get:
    """Send the content from byte *offset*. *associated_file* is escaped (``associated``), possibly empty."""

    verb: ClassVar = b"GET"
    key: Key
    offset: int = 0
    associated_file: bytes = b""

    def line(self) -> bytes:
        return b"GET %d %b %b" % (self.offset, _one_word(self.associated_file), self.key.raw)


@dataclass(frozen=True, slots=True)
class Put:
    """The client would like to send the content. *associated_file* is escaped, possibly empty."""

    verb: ClassVar = b"PUT"
    key: Key
    associated_file: bytes = b""

    def line(self) -> bytes:
        return b"PUT %b %b" % (_one_word(self.associated_file), self.key.raw)


@dataclass(frozen=True, slots=True)
class PutFrom:
    """Send it, from byte *offset*. May exceed the size of the key: then nothing is to be sent."""

    verb: ClassVar = b"PUT-FROM"
    offset: int

    def line(self) -> bytes:
        return b"PUT-FROM %d" % self.offset


@dataclass(frozen=True, slots=True)
class AlreadyHave:
    """Nothing has to be sent. A claim: it names nobody."""

    verb: ClassVar = b"ALREADY-HAVE"

    def line(self) -> bytes:
        return b"ALREADY-HAVE"


@dataclass(frozen=True, slots=True)
class AlreadyHavePlus:
    """Nothing has to be sent: these have it."""

    verb: ClassVar = b"ALREADY-HAVE-PLUS"
    uuids: tuple[UUID, ...] = ()

    def line(self) -> bytes:
        return _with_uuids(b"ALREADY-HAVE-PLUS", self.uuids)


@dataclass(frozen=True, slots=True)
class DataHeader:
    """``DATA``: exactly *length* raw bytes follow at once, then the next line."""

    verb: ClassVar = b"DATA"
    length: int

    def line(self) -> bytes:
        return b"DATA %d" % self.length


@dataclass(frozen=True, slots=True)
class DataPresent:
    """In place of DATA: the content got there by other means."""

    verb: ClassVar = b"DATA-PRESENT"

    def line(self) -> bytes:
        return b"DATA-PRESENT"


@dataclass(frozen=True, slots=True)
class Valid:
    """The source did not change while the DATA was sent."""

    verb: ClassVar = b"VALID"

    def line(self) -> bytes:
        return b"VALID"


@dataclass(frozen=True, slots=True)
class Invalid:
    """The source changed, or there was none."""

    verb: ClassVar = b"INVALID"

    def line(self) -> bytes:
        return b"INVALID"


# -- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Success:
    """It is so; it is done."""

    verb: ClassVar = b"SUCCESS"

    def line(self) -> bytes:
        return b"SUCCESS"


@dataclass(frozen=True, slots=True)
class SuccessPlus:
    """It is done, at these (which may leave out the repository itself)."""

    verb: ClassVar = b"SUCCESS-PLUS"
    uuids: tuple[UUID, ...] = ()

    def line(self) -> bytes:
        return _with_uuids(b"SUCCESS-PLUS", self.uuids)


@dataclass(frozen=True, slots=True)
class Failure:
    """It is not so; it is not done."""

    verb: ClassVar = b"FAILURE"

    def line(self) -> bytes:
        return b"FAILURE"


@dataclass(frozen=True, slots=True)
class FailurePlus:
    """Not done everywhere, but at these it is."""

    verb: ClassVar = b"FAILURE-PLUS"
    uuids: tuple[UUID, ...] = ()

    def line(self) -> bytes:
        return _with_uuids(b"FAILURE-PLUS", self.uuids)


@dataclass(frozen=True, slots=True)
class Error:
    """Not understood, not allowed, or broken. Control characters of *text* are sent as spaces."""

    verb: ClassVar = b"ERROR"
    text: str = ""

    def line(self) -> bytes:
        text = self.text.encode("utf-8", "backslashreplace")[:_MAX_ERROR].translate(_WITHOUT_CONTROLS)
        return b"ERROR " + text if text else b"ERROR"


# -- services that are no verbs of a key-holder ---------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connect:
    """Join me to git-upload-pack or git-receive-pack."""

    verb: ClassVar = b"CONNECT"
    service: bytes

    def line(self) -> bytes:
        return b"CONNECT " + self.service


@dataclass(frozen=True, slots=True)
class ConnectDone:
    """The service ended with exit *code*."""

    verb: ClassVar = b"CONNECTDONE"
    code: int

    def line(self) -> bytes:
        return b"CONNECTDONE %d" % self.code


@dataclass(frozen=True, slots=True)
class NotifyChange:
    """Tell me when refs have changed."""

    verb: ClassVar = b"NOTIFYCHANGE"

    def line(self) -> bytes:
        return b"NOTIFYCHANGE"


@dataclass(frozen=True, slots=True)
class Changed:
    """Refs have changed to these object ids."""

    verb: ClassVar = b"CHANGED"
    refs: tuple[bytes, ...] = ()

    def line(self) -> bytes:
        return b" ".join((b"CHANGED", *self.refs))


@dataclass(frozen=True, slots=True)
class Unknown:
    """A line that is none of the above. Only received, never sent.

    Attributes:
        raw: The line, without its end.
        reason: What was wrong, for our log; the peer is told ``unknown command`` and no more.
    """

    verb: ClassVar = b""
    raw: bytes
    reason: str = ""

    def line(self) -> bytes:
        raise LocalProtocolError("an unknown line is never sent")


Message: TypeAlias = (
    Auth
    | AuthSuccess
    | AuthFailure
    | Version
    | Bypass
    | CheckPresent
    | LockContent
    | UnlockContent
    | Remove
    | RemoveBefore
    | GetTimestamp
    | Timestamp
    | Get
    | Put
    | PutFrom
    | AlreadyHave
    | AlreadyHavePlus
    | DataHeader
    | DataPresent
    | Valid
    | Invalid
    | Success
    | SuccessPlus
    | Failure
    | FailurePlus
    | Error
    | Connect
    | ConnectDone
    | NotifyChange
    | Changed
    | Unknown
)

AUTH_FAILURE: Final = AuthFailure()
UNLOCK_CONTENT: Final = UnlockContent()
GET_TIMESTAMP: Final = GetTimestamp()
ALREADY_HAVE: Final = AlreadyHave()
DATA_PRESENT: Final = DataPresent()
VALID: Final = Valid()
INVALID: Final = Invalid()
SUCCESS: Final = Success()
FAILURE: Final = Failure()
NOTIFY_CHANGE: Final = NotifyChange()

_MAX_ERROR: Final = 8000
_WITHOUT_CONTROLS: Final = bytes(0x20 if byte < 0x20 or byte == 0x7F else byte for byte in range(256))
_WHITE_SPACE = regex(rb"[\x00\t-\r ]")
_TWO_FIELDS = regex(rb"([^ \t]*)[ \t](.*)", re.DOTALL)
_THREE_FIELDS = regex(rb"([^ \t]*)[ \t]([^ \t]*)[ \t](.*)", re.DOTALL)
_NUMBER = regex(rb"-?[0-9]{1,40}\Z")


def format(message: Message) -> bytes:
    """*message* as the line to send, LF included.

    Raises:
        LocalProtocolError: It would not arrive as it is: a line feed inside, a carriage return at the
            end (which the receiver drops), or longer than ``MAX_LINE`` bytes.
    """
    line = message.line()
    if b"\n" in line or line[-1:] == b"\r" or len(line) > MAX_LINE:
        raise LocalProtocolError(f"not to be sent as one line: {line[:80]!r}")
    return line + b"\n"


def parse(line: bytes) -> Message:
    """The message in *line* (its CR and LF already removed). Never raises: see ``Unknown``."""
    verb, _, rest = line.partition(b" ")
    parser = _PARSERS.get(verb)
    try:
        if parser is not None:
            return parser(rest)
        bare = _BARE.get(verb)
        if bare is not None and not rest:
            return bare
        if b"\t" in verb and (match := _TWO_FIELDS.match(line)) and b"\t" not in match[1]:
            # A tab separates as well as a space does, but nobody sends one: keep it off the fast path.
            return parse(match[1] + b" " + match[2])
    except InvalidInput as error:
        # What could be a token is not kept: unknown lines are logged.
        return Unknown(verb if verb == b"AUTH" else line, str(error))
    return Unknown(line, "no such command")


def _with_uuids(verb: bytes, uuids: tuple[UUID, ...]) -> bytes:
    return b" ".join((verb, *(uuid.encode() for uuid in uuids)))


def _one_word(associated_file: bytes) -> bytes:
    if _WHITE_SPACE.search(associated_file):
        raise LocalProtocolError(f"associated file is not escaped: {associated_file[:80]!r}")
    return associated_file


def _key(raw: bytes) -> Key:
    if b"\0" in raw:
        raise InvalidKey("key", raw, "no NUL on the wire")
    return Key.parse(raw)


def _number(field_name: str, raw: bytes, *, signed: bool = False) -> int:
    """Plain decimal only: git-annex would also take hexadecimal, parentheses and trailing words."""
    if not _NUMBER.match(raw) or (raw[:1] == b"-" and not signed):
        raise InvalidInput(field_name, raw, "a decimal number" if signed else "a decimal number, not negative")
    return int(raw)


def _fields(pattern: re.Pattern[bytes], rest: bytes) -> tuple[bytes, ...]:
    match = pattern.fullmatch(rest)
    if match is None:
        raise InvalidInput("parameters", rest, f"{pattern.groups} of them")
    return match.groups()


def _uuids(rest: bytes) -> tuple[UUID, ...]:
    return tuple(map(parse_uuid, rest.split()))


def _associated_file(raw: bytes) -> bytes:
    if raw[:1] == b"/":
        raise InvalidInput("associated file", raw, "relative to the top of the repository")
    return raw


def _auth(rest: bytes) -> Auth:
    uuid, _, token = rest.replace(b"\t", b" ").partition(b" ")
    if token and not token.isalnum():
        raise InvalidInput("token", "(hidden)", "only letters and digits")
    return Auth(parse_uuid(uuid), token.decode().lower())


def _get(rest: bytes) -> Get:
    offset, associated_file, key = _fields(_THREE_FIELDS, rest)
    return Get(_key(key), _number("offset", offset), _associated_file(associated_file))


def _put(rest: bytes) -> Put:
    associated_file, key = _fields(_TWO_FIELDS, rest)
    return Put(_key(key), _associated_file(associated_file))


def _remove_before(rest: bytes) -> RemoveBefore:
    timestamp, key = _fields(_TWO_FIELDS, rest)
    return RemoveBefore(_key(key), _number("timestamp", timestamp, signed=True))


def _connect(rest: bytes) -> Connect:
    if rest not in (b"git-upload-pack", b"git-receive-pack"):
        raise InvalidInput("service", rest, "git-upload-pack or git-receive-pack")
    return Connect(rest)


_PARSERS: Final[dict[bytes, Callable[[bytes], Message]]] = {
    b"CHECKPRESENT": lambda rest: CheckPresent(_key(rest)),
    b"LOCKCONTENT": lambda rest: LockContent(_key(rest)),
    b"REMOVE": lambda rest: Remove(_key(rest)),
    b"REMOVE-BEFORE": _remove_before,
    b"GET": _get,
    b"PUT": _put,
    b"PUT-FROM": lambda rest: PutFrom(_number("offset", rest)),
    b"DATA": lambda rest: DataHeader(_number("length", rest)),
    b"VERSION": lambda rest: Version(_number("version", rest)),
    b"TIMESTAMP": lambda rest: Timestamp(_number("timestamp", rest, signed=True)),
    b"BYPASS": lambda rest: Bypass(_uuids(rest)),
    b"ALREADY-HAVE-PLUS": lambda rest: AlreadyHavePlus(_uuids(rest)),
    b"SUCCESS-PLUS": lambda rest: SuccessPlus(_uuids(rest)),
    b"FAILURE-PLUS": lambda rest: FailurePlus(_uuids(rest)),
    b"ERROR": lambda rest: Error(rest.decode("utf-8", "backslashreplace")),
    b"AUTH": _auth,
    b"AUTH-SUCCESS": lambda rest: AuthSuccess(parse_uuid(rest)),
    b"CONNECT": _connect,
    b"CONNECTDONE": lambda rest: ConnectDone(_number("exit code", rest, signed=True)),
    b"CHANGED": lambda rest: Changed(tuple(rest.split())),
}

_BARE: Final[dict[bytes, Message]] = {
    message.verb: message
    for message in (
        AUTH_FAILURE,
        UNLOCK_CONTENT,
        GET_TIMESTAMP,
        ALREADY_HAVE,
        DATA_PRESENT,
        VALID,
        INVALID,
        SUCCESS,
        FAILURE,
        NOTIFY_CHANGE,
    )
}
