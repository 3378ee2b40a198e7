"""What stands in the path and the query of a request over HTTP: values and how they are encoded.

Source: fact sheet p2p-protocol, section 6; fact sheet reliability, table 1.3.
"""

from __future__ import annotations

import re
from base64 import b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from annexpy.errors import InvalidInput, InvalidKey, InvalidPath, InvalidUUID
from annexpy.keys.key import MAX_SIZE, Key
from annexpy.uuids import UUID, parse_uuid

__all__ = ["Query", "decoded", "encoded", "key_of", "number_of", "text_of"]

_NUMBER = re.compile(rb"-?[0-9]{1,19}\Z")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_OTHER_ALPHABET = re.compile(rb"[+/]")
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_UNRESERVED: Final = "-._~"


class Query:
    """The parameters of a request, read when they are asked for.

    Everything raises ``InvalidInput`` that names the parameter, when it is given twice or is not what it should be.
    """

    __slots__ = ("_given",)

    def __init__(self, query: bytes) -> None:
        self._given: dict[bytes, list[bytes]] = {}
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            self._given.setdefault(name, []).append(value)

    def given(self, name: str) -> bool:
        return name.encode() in self._given

    def maybe(self, name: str) -> bytes | None:
        values = self._given.get(name.encode())
        if values is None:
            return None
        if len(values) > 1:
            raise InvalidInput(name, b"&".join(values), "given once")
        return decoded(name, values[0].replace(b"+", b" "))

    def needed(self, name: str) -> bytes:
        value = self.maybe(name)
        if value is None:
            raise InvalidInput(name, "", "a parameter that has to be there")
        return value

    def key(self) -> Key:
        return key_of(self.needed("key"))

    def client(self) -> UUID:
        return _uuid("clientuuid", self.needed("clientuuid"))

    def uuids(self, name: str) -> tuple[UUID, ...]:
        return tuple(_uuid(name, decoded(name, value)) for value in self._given.get(name.encode(), ()))

    def number(self, name: str, default: int | None = None) -> int:
        value = self.needed(name) if default is None else self.maybe(name)
        if value is None:
            assert default is not None
            return default
        return number_of(name, value, signed=name == "timestamp")

    def truth(self, name: str) -> bool:
        value = self.maybe(name)
        if value in (None, b"false"):
            return False
        if value in (b"", b"true"):
            return True
        raise InvalidInput(name, value, "true or false")

    def associated_file(self) -> str:
        """A hint, for messages and preferred content, so control characters are replaced and no reason to refuse."""
        value = self.maybe("associatedfile") or b""
        if value[:1] == b"/":
            raise InvalidPath("associatedfile", value, "relative to the top of the repository")
        return _CONTROL.sub("_", value.decode("utf-8", "surrogateescape"))


def decoded(name: str, raw: bytes) -> bytes:
    """*raw* without its encoding: percent signs, and base64url in square brackets.

    Raises:
        InvalidInput: Names the parameter *name*. Likewise below.
    """
    value = raw
    if b"%" in raw:
        if _BAD_ESCAPE.search(raw):
            raise InvalidInput(name, raw, "two hexadecimal digits behind every %")
        value = unquote_to_bytes(raw)
    if value[:1] == b"[" and value[-1:] == b"]":
        try:
            if _OTHER_ALPHABET.search(value):
                raise Base64Error
            return b64decode(value[1:-1], altchars=b"-_", validate=True)
        except Base64Error as error:
            raise InvalidInput(name, raw, "base64url with padding inside of [ and ]") from error
    return value


def key_of(raw: bytes) -> Key:
    """The key that *raw* serialises; none that a proxy would forge a line of."""
    if b"\0" in raw or b"\n" in raw or raw[-1:] == b"\r":
        raise InvalidKey("key", raw, "no NUL, line feed or final carriage return")
    return Key.parse(raw)


def _uuid(name: str, raw: bytes) -> UUID:
    try:
        return parse_uuid(raw)
    except InvalidUUID as error:
        raise InvalidInput(name, raw, error.limit) from error


def text_of(name: str, raw: bytes) -> str:
    """*raw* as text."""
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidInput(name, raw, "ASCII") from error


def number_of(name: str, raw: bytes, *, signed: bool = False) -> int:
    """The number that *raw* is in plain decimal, up to the largest size there can be."""
    if not _NUMBER.match(raw) or (raw[:1] == b"-" and not signed) or int(raw) > MAX_SIZE:
        raise InvalidInput(name, raw, "a decimal number below 2^63" if signed else "0 to 2^63-1, in decimal")
    return int(raw)


def encoded(raw: bytes) -> bytes:
    """*raw* as git-annex sends it: text as it is, all else (and what looks like it) as base64url in brackets."""
    try:
        raw.decode()
        plain = not (raw[:1] == b"[" and raw[-1:] == b"]")
    except UnicodeDecodeError:
        plain = False
    return quote_from_bytes(raw if plain else b"[" + urlsafe_b64encode(raw) + b"]", _UNRESERVED).encode()
