"""The messages of the P2P protocol, versions 0 to 4, as values, and as lines to send.

One frozen class per message. ``lines`` has the way back; what the protocol allows when is known in ``states``. What
only our own ends say to each other stands in ``extensions``.

Source: fact sheet p2p-protocol, sections 1 and 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final, TypeAlias

from annexpy.errors import LocalProtocolError
from annexpy.keys.key import Key
from annexpy.p2p.extensions import GetRange, Possessed, Possession
from annexpy.patterns import regex
from annexpy.uuids import UUID

__all__ = [
    "ALREADY_HAVE",
    "AUTH_FAILURE",
    "DATA_PRESENT",
    "FAILURE",
    "GET_TIMESTAMP",
    "INVALID",
    "MAX_LINE",
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
]

MAX_LINE: Final = 32767
"""Characters of a line, without LF and with CR. One more and git-annex hangs up; so do we."""


@dataclass(frozen=True, slots=True)
class _Word:
    """Says it all with its verb.

    Who comes from this or one of the next two has no more fields, and is no dataclass anew: making one takes 0.3 ms.
    """

    verb: ClassVar[bytes]

    def line(self) -> bytes:
        return self.verb


@dataclass(frozen=True, slots=True)
class _KeyMessage:
    verb: ClassVar[bytes]
    key: Key

    def line(self) -> bytes:
        return self.verb + b" " + self.key.raw


@dataclass(frozen=True, slots=True)
class _WithUUIDs:
    verb: ClassVar[bytes]
    uuids: tuple[UUID, ...] = ()

    def line(self) -> bytes:
        return b" ".join((self.verb, *(uuid.encode() for uuid in self.uuids)))


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


class AuthFailure(_Word):
    """The token is not good. Another AUTH may follow."""

    __slots__ = ()
    verb: ClassVar = b"AUTH-FAILURE"


@dataclass(frozen=True, slots=True)
class Version:
    """The highest version that the client speaks; the version that will be spoken, in the answer."""

    verb: ClassVar = b"VERSION"
    number: int

    def line(self) -> bytes:
        return b"VERSION %d" % self.number


class Bypass(_WithUUIDs):
    """Gateways that have been passed already and must not be asked again. Never answered."""

    __slots__ = ()
    verb: ClassVar = b"BYPASS"


# -- asking about content -------------------------------------------------------------------------


class CheckPresent(_KeyMessage):
    """Is the content there, by disk?"""

    __slots__ = ()
    verb: ClassVar = b"CHECKPRESENT"


class LockContent(_KeyMessage):
    """Keep the content from being removed until UNLOCKCONTENT."""

    __slots__ = ()
    verb: ClassVar = b"LOCKCONTENT"


class UnlockContent(_Word):
    """The end of a lock. Takes no parameter, whatever the protocol page says. Never answered."""

    __slots__ = ()
    verb: ClassVar = b"UNLOCKCONTENT"


class Remove(_KeyMessage):
    """Remove the content."""

    __slots__ = ()
    verb: ClassVar = b"REMOVE"


@dataclass(frozen=True, slots=True)
class RemoveBefore:
    """Remove the content, but only while the server's clock is below *timestamp* (seconds, strictly)."""

    verb: ClassVar = b"REMOVE-BEFORE"
    key: Key
    timestamp: int

    def line(self) -> bytes:
        return b"REMOVE-BEFORE %d %b" % (self.timestamp, self.key.raw)


class GetTimestamp(_Word):
    """What does the server's clock say?"""

    __slots__ = ()
    verb: ClassVar = b"GETTIMESTAMP"


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
        return b"GET %d %b %b" % (self.offset, self.associated_file, self.key.raw)


@dataclass(frozen=True, slots=True)
class Put:
    """The client would like to send the content. *associated_file* is escaped, possibly empty."""

    verb: ClassVar = b"PUT"
    key: Key
    associated_file: bytes = b""

    def line(self) -> bytes:
        return b"PUT %b %b" % (self.associated_file, self.key.raw)


@dataclass(frozen=True, slots=True)
class PutFrom:
    """Send it, from byte *offset*. May exceed the size of the key: then nothing is to be sent."""

    verb: ClassVar = b"PUT-FROM"
    offset: int

    def line(self) -> bytes:
        return b"PUT-FROM %d" % self.offset


class AlreadyHave(_Word):
    """Nothing has to be sent. A claim: it names nobody."""

    __slots__ = ()
    verb: ClassVar = b"ALREADY-HAVE"


class AlreadyHavePlus(_WithUUIDs):
    """Nothing has to be sent: these have it."""

    __slots__ = ()
    verb: ClassVar = b"ALREADY-HAVE-PLUS"


@dataclass(frozen=True, slots=True)
class DataHeader:
    """``DATA``: exactly *length* raw bytes follow at once, then the next line."""

    verb: ClassVar = b"DATA"
    length: int

    def line(self) -> bytes:
        return b"DATA %d" % self.length


class DataPresent(_Word):
    """In place of DATA: the content got there by other means."""

    __slots__ = ()
    verb: ClassVar = b"DATA-PRESENT"


class Valid(_Word):
    """The source did not change while the DATA was sent."""

    __slots__ = ()
    verb: ClassVar = b"VALID"


class Invalid(_Word):
    """The source changed, or there was none."""

    __slots__ = ()
    verb: ClassVar = b"INVALID"


# -- answers --------------------------------------------------------------------------------------


class Success(_Word):
    """It is so; it is done."""

    __slots__ = ()
    verb: ClassVar = b"SUCCESS"


class SuccessPlus(_WithUUIDs):
    """It is done, at these (which may leave out the repository itself)."""

    __slots__ = ()
    verb: ClassVar = b"SUCCESS-PLUS"


class Failure(_Word):
    """It is not so; it is not done."""

    __slots__ = ()
    verb: ClassVar = b"FAILURE"


class FailurePlus(_WithUUIDs):
    """Not done everywhere, but at these it is."""

    __slots__ = ()
    verb: ClassVar = b"FAILURE-PLUS"


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


class NotifyChange(_Word):
    """Tell me when refs have changed."""

    __slots__ = ()
    verb: ClassVar = b"NOTIFYCHANGE"


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
    | Possession
    | Possessed
    | Get
    | GetRange
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
_ABOUT_FILES: Final = (Get, GetRange, Put)


def format(message: Message) -> bytes:
    """*message* as the line to send, LF included.

    Raises:
        LocalProtocolError: It would not arrive as it is: a line feed inside, a carriage return at the
            end (which the receiver drops), an associated file that is not escaped, or longer than
            ``MAX_LINE`` bytes.
    """
    line = message.line()
    if b"\n" in line or line[-1:] == b"\r" or len(line) > MAX_LINE:
        raise LocalProtocolError(f"not to be sent as one line: {line[:80]!r}")
    if isinstance(message, _ABOUT_FILES) and _WHITE_SPACE.search(message.associated_file):
        raise LocalProtocolError(f"associated file is not escaped: {message.associated_file[:80]!r}")
    return line + b"\n"
