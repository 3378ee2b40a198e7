"""Lines of the P2P protocol as messages: ``parse``.

``format(parse(line))`` is *line* again for every line that a strict peer sends.

A line is words separated by one space or tab; the last parameter runs to the end of the line, which
is how keys may contain spaces. Everything is done on bytes. Where git-annex is lenient and we are
not (numbers, UUIDs, NUL in keys) the line parses as ``Unknown``, so a server answers
``ERROR unknown command`` and the session goes on (fact sheets p2p-protocol, sections 1 and 2;
reliability, table 1.3).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from annexpy.errors import InvalidInput, InvalidKey
from annexpy.keys.key import Key
from annexpy.p2p.extensions import GetRange, Possessed, Possession
from annexpy.p2p.messages import (
    ALREADY_HAVE,
    AUTH_FAILURE,
    DATA_PRESENT,
    FAILURE,
    GET_TIMESTAMP,
    INVALID,
    NOTIFY_CHANGE,
    SUCCESS,
    UNLOCK_CONTENT,
    VALID,
    AlreadyHavePlus,
    Auth,
    AuthSuccess,
    Bypass,
    Changed,
    CheckPresent,
    Connect,
    ConnectDone,
    DataHeader,
    Error,
    FailurePlus,
    Get,
    LockContent,
    Message,
    Put,
    PutFrom,
    Remove,
    RemoveBefore,
    SuccessPlus,
    Timestamp,
    Unknown,
    Version,
)
from annexpy.patterns import regex
from annexpy.uuids import UUID, parse_uuid

__all__ = ["parse"]

_TWO_FIELDS = regex(rb"([^ \t]*)[ \t](.*)", re.DOTALL)
_THREE_FIELDS = regex(rb"([^ \t]*)[ \t]([^ \t]*)[ \t](.*)", re.DOTALL)
_FOUR_FIELDS = regex(rb"([^ \t]*)[ \t]([^ \t]*)[ \t]([^ \t]*)[ \t](.*)", re.DOTALL)
_NUMBER = regex(rb"-?[0-9]{1,40}\Z")
_DIGEST = regex(rb"[0-9a-f]{64}\Z")


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


def _get_range(rest: bytes) -> GetRange:
    offset, end, associated_file, key = _fields(_FOUR_FIELDS, rest)
    wanted = _number("offset", offset), _number("end", end)
    return GetRange(_key(key), *wanted, _associated_file(associated_file))


def _put(rest: bytes) -> Put:
    associated_file, key = _fields(_TWO_FIELDS, rest)
    return Put(_key(key), _associated_file(associated_file))


def _remove_before(rest: bytes) -> RemoveBefore:
    timestamp, key = _fields(_TWO_FIELDS, rest)
    return RemoveBefore(_key(key), _number("timestamp", timestamp, signed=True))


def _digest(field_name: str, raw: bytes) -> bytes:
    if not _DIGEST.match(raw):
        raise InvalidInput(field_name, raw, "32 bytes in lower case hex")
    return bytes.fromhex(raw.decode())


def _possession(rest: bytes) -> Possession:
    nonce, key = _fields(_TWO_FIELDS, rest)
    return Possession(_digest("nonce", nonce), _key(key))


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
    b"POSSESSION": _possession,
    b"GET-RANGE": _get_range,
    b"POSSESSED": lambda rest: Possessed(_digest("digest", rest)),
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
