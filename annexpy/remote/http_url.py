"""Where the contents of a repository are over HTTP: ``annex+http://`` URLs as values.

``annex+http://HOST[:PORT]/[PATH/][git-annex/][UUID]``. The port is 9417 unless said, as for git-annex; what stands
before ``git-annex/`` is the path of a server or of one repository at it. Stock git-annex wants no UUID at the end.

Source: fact sheet p2p-protocol, section 6; git-annex-p2phttp(1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from annexpy.errors import InvalidInput, InvalidUUID
from annexpy.p2p.http import BASE
from annexpy.transport.http_dial import authority
from annexpy.uuids import UUID, parse_uuid

__all__ = ["ANNEX_PORT", "HTTPPlace", "parse_annex_url", "parse_http_url"]

ANNEX_PORT: Final = 9417
_PATH_SAFE: Final = "/-._~!$&'()*+,;=:@%"


@dataclass(frozen=True, slots=True)
class HTTPPlace:
    """A place at an HTTP server.

    Attributes:
        tls: https.
        host, port: Of the server.
        path: Percent-encoded. Of contents: up to ``/git-annex/``. Of a git repository: what git is given.
        uuid: Which repository, when the URL names it.
        user, password: From the URL; None where it has none. The password is never shown.
    """

    tls: bool
    host: str
    port: int
    path: str
    uuid: UUID | None = None
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{authority(self.host, self.port, tls=self.tls)}{self.path}"

    def __repr__(self) -> str:
        return f"HTTPPlace({self!s})"

    @property
    def base(self) -> bytes:
        """What stands before the UUID in requests."""
        return self.path.encode()


def parse_annex_url(url: str) -> HTTPPlace:
    """An ``annex+http://`` or ``annex+https://`` URL.

    Raises:
        InvalidInput: It is none.
    """
    scheme = url.partition("://")[0].lower()
    if scheme not in ("annex+http", "annex+https"):
        raise InvalidInput("annexUrl", _hidden(url), "annex+http://HOST/git-annex/ or annex+https://…")
    found = _parse(url[len("annex+") :], ANNEX_PORT)
    words = [word for word in found.path.split("/") if word]
    uuid: UUID | None = None
    base = BASE.decode().strip("/")
    if len(words) >= 2 and words[-2] == base:
        try:
            uuid = parse_uuid(unquote(words.pop()))
        except InvalidUUID as error:
            raise InvalidInput("annexUrl", _hidden(url), "behind git-annex/ only a UUID may stand") from error
    if words and words[-1] == base:
        words.pop()
    path = "".join(f"/{word}" for word in words) + BASE.decode()
    return HTTPPlace(found.tls, found.host, found.port, path, uuid, found.user, found.password)


def parse_http_url(url: str) -> HTTPPlace:
    """An ``http://`` or ``https://`` URL of a git repository.

    Raises:
        InvalidInput: It is none.
    """
    return _parse(url, None)


def _parse(url: str, port: int | None) -> HTTPPlace:
    try:
        parts = urlsplit(url)
        number = parts.port
    except ValueError as error:
        raise InvalidInput("URL", _hidden(url), f"a URL ({error})") from error
    tls = parts.scheme.lower() == "https"
    if parts.scheme.lower() not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise InvalidInput("URL", _hidden(url), "http://HOST/PATH or https://HOST/PATH, without query and fragment")
    user = None if parts.username is None else unquote(parts.username)
    password = None if parts.password is None else unquote(parts.password)
    if number is None:
        number = port or (443 if tls else 80)
    path = quote(parts.path, _PATH_SAFE, errors="surrogateescape") or "/"
    return HTTPPlace(tls, parts.hostname, number, path, None, user, password)


def _hidden(url: str) -> str:
    """*url* without what may be a password."""
    scheme, colon, rest = url.partition("://")
    where, slash, path = rest.partition("/")
    return scheme + colon + where.rpartition("@")[2] + slash + path
