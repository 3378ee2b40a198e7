"""Who may do what over HTTP: users with passwords, bearer tokens, and what is open to everybody.

A verdict is given before anybody looks whether the repository is there, so that it tells nothing about that.
The options are those of git-annex p2phttp, and so is what they mean, with one difference: wrong credentials are 401
wherever credentials could help. git-annex answers 403 to them when something is open to everybody, and then a
client that has stored a wrong password never asks for another one.

Source: fact sheet p2p-protocol, section 6, "Auth"; git-annex-p2phttp(1).
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum, Flag
from hashlib import sha256
from hmac import compare_digest
from types import MappingProxyType
from typing import Final, TypeAlias

from annexpy.errors import InvalidInput
from annexpy.uuids import UUID

__all__ = [
    "APPEND_ONLY",
    "EVERYTHING",
    "NOTHING",
    "READ_ONLY",
    "Access",
    "Grants",
    "Role",
    "Secret",
    "User",
    "Verdict",
    "Visitor",
    "everywhere",
    "open_to_all",
    "users_of_environment",
]


class Role(Flag):
    """What may be allowed on a repository."""

    READ = 1
    """Content, presence, time; git fetch."""
    LOCK = 2
    """Keep content from being removed."""
    APPEND = 4
    """Store content."""
    PUSH = 8
    """git push, of what deletes and rewinds nothing."""
    WRITE = 8 | 16
    """Remove content; git push, of anything."""


NOTHING: Final = Role(0)
READ_ONLY: Final = Role.READ | Role.LOCK
APPEND_ONLY: Final = READ_ONLY | Role.APPEND
EVERYTHING: Final = APPEND_ONLY | Role.WRITE

Grants: TypeAlias = Mapping[UUID | None, Role]
"""Repository → roles; under None stands what holds for all others."""

_NO_GRANTS: Final[Grants] = MappingProxyType({})
_PASSWORD: Final = "GIT_ANNEX_P2PHTTP_PASSWORD_"
_PERMISSIONS: Final = "GIT_ANNEX_P2PHTTP_PERMISSIONS_"


def everywhere(roles: Role) -> Grants:
    """*roles* on every repository."""
    return {None: roles}


def open_to_all(
    *, wideopen: bool = False, unauth_readonly: bool = False, unauth_appendonly: bool = False, unauth_nolocking: bool
) -> Grants:
    """What these options of git-annex p2phttp open to everybody."""
    roles = EVERYTHING if wideopen else APPEND_ONLY if unauth_appendonly else READ_ONLY if unauth_readonly else NOTHING
    if unauth_nolocking:
        roles &= ~Role.LOCK
    return everywhere(roles)


class Secret:
    """A password or token of which only a digest is kept. Never shown."""

    __slots__ = ("_digest",)

    def __init__(self, digest: bytes) -> None:
        self._digest = digest

    @classmethod
    def of(cls, text: str) -> Secret:
        """Keep *text*; or, as ``sha256:HEX``, what is the digest of a secret that we need not know.

        Raises:
            InvalidInput: Empty, or a digest that is none.
        """
        if not text:
            raise InvalidInput("secret", "", "not empty")
        scheme, _, digest = text.partition(":")
        if scheme != "sha256":
            return cls(sha256(text.encode("utf-8", "surrogateescape")).digest())
        try:
            raw = bytes.fromhex(digest)
        except ValueError:
            raw = b""
        if len(raw) != 32:
            raise InvalidInput("secret", "sha256:(hidden)", "64 hexadecimal digits")
        return cls(raw)

    def matches(self, said: bytes) -> bool:
        """Is it *said*? Takes the same time whatever is said."""
        return compare_digest(sha256(said).digest(), self._digest)

    def __repr__(self) -> str:
        return "Secret(…)"


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who has a secret: the password that goes with *name*, or a token.

    Attributes:
        name: For messages and for basic auth.
        secret: What proves it.
        grants: What they may do.
        token: The secret is a bearer token.
        uuids: Of the repositories whose lines of the git-annex branch their pushes may change; None: anybody's.
    """

    name: str
    secret: Secret
    grants: Grants
    token: bool = False
    uuids: frozenset[UUID] | None = None


class Verdict(Enum):
    """What becomes of a request; the value is the status."""

    ALLOWED = 200
    WHO_ARE_YOU = 401
    FORBIDDEN = 403
    NOT_THERE = 404


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody who asks for something.

    Attributes:
        name: Of the user; "" for anybody.
        grants: What they may do.
        known: They have proved to be a user.
        may_tell: They could prove to be one.
        uuids: As of ``User``.
    """

    name: str
    grants: Grants
    known: bool
    may_tell: bool
    uuids: frozenset[UUID] | None = None

    def verdict(self, uuid: UUID, role: Role) -> Verdict:
        """May they act in *role* on *uuid*?"""
        roles = self.grants.get(uuid)
        if roles is None:
            roles = self.grants.get(None, NOTHING)
        if role in roles:
            return Verdict.ALLOWED
        if self.known:
            # To somebody with no business there it looks as if it was not there.
            return Verdict.FORBIDDEN if roles else Verdict.NOT_THERE
        return Verdict.WHO_ARE_YOU if self.may_tell else Verdict.FORBIDDEN


def _at_most(most: Role, grants: Grants) -> Grants:
    return {uuid: roles & most for uuid, roles in grants.items()}


_NOBODY: Final = Secret(sha256(b"").digest())


class Access:
    """The rules of one server. Replace it as a whole to change them while the server runs."""

    def __init__(
        self,
        *,
        anonymous: Grants = _NO_GRANTS,
        users: Iterable[User] = (),
        allow_plain_http: bool = False,
        uuids: frozenset[UUID] | None = None,
        most: Role = EVERYTHING,
    ) -> None:
        """Rules.

        Args:
            anonymous: What is open to everybody.
            users: Who may do what beyond, or instead: who proves to be a user is held to their own grants.
            allow_plain_http: Listen to credentials that others could read along.
            uuids: Whose lines of the git-annex branch may change by pushes that are open to everybody.
            most: Nobody may do more than this.

        Raises:
            InvalidInput: Two users of one name.
        """
        self._anonymous = _at_most(most, anonymous)
        self._by_name: dict[bytes, User] = {}
        self._tokens: list[User] = []
        for given in users:
            user = replace(given, grants=_at_most(most, given.grants))
            if user.token:
                self._tokens.append(user)
            elif self._by_name.setdefault(user.name.encode("utf-8", "surrogateescape"), user) is not user:
                raise InvalidInput("user", user.name, "each once")
        self._plain, self._uuids = allow_plain_http, uuids

    def visitor(self, authorization: bytes | None, *, secure: bool) -> Visitor:
        """Who sends this header ``Authorization``, or none.

        Raises:
            InvalidInput: Neither Basic nor Bearer, or no base64.
        """
        users = bool(self._by_name or self._tokens)
        helps = users and (secure or self._plain)
        if authorization is not None:
            user = self._identify(authorization)
            if user is not None and helps:
                return Visitor(user.name, user.grants, True, True, user.uuids)
        closed = not users and not any(self._anonymous.values())
        return Visitor("", self._anonymous, False, helps or closed, self._uuids)

    def _identify(self, authorization: bytes) -> User | None:
        scheme, _, said = authorization.partition(b" ")
        match scheme.lower():
            case b"basic":
                try:
                    name, _, password = b64decode(said.strip(), validate=True).partition(b":")
                except ValueError as error:
                    raise InvalidInput("authorization", "(hidden)", "Basic and base64") from error
                if not said.strip():
                    raise InvalidInput("authorization", scheme, "Basic and base64")
                user = self._by_name.get(name)
                matches = (_NOBODY if user is None else user.secret).matches(password)
                return user if matches else None
            case b"bearer":
                found = None
                for user in self._tokens:  # all of them, whichever it is
                    if user.secret.matches(said.strip()):
                        found = user
                return found
            case _:
                raise InvalidInput("authorization", scheme, "Basic or Bearer")


def users_of_environment(environ: Mapping[str, str], uuids: frozenset[UUID] | None = None) -> list[User]:
    """The users that ``GIT_ANNEX_P2PHTTP_PASSWORD_NAME`` and ``…_PERMISSIONS_NAME`` make, as for ``--authenv``.

    All of them with these *uuids*.

    Raises:
        InvalidInput: Permissions other than ``readonly`` and ``appendonly``, or an empty password.
    """
    users = []
    for variable, password in environ.items():
        if not variable.startswith(_PASSWORD):
            continue
        name = variable.removeprefix(_PASSWORD)
        match environ.get(_PERMISSIONS + name):
            case None | "":
                roles = EVERYTHING
            case "readonly":
                roles = Role.READ  # without locking, as measured
            case "appendonly":
                roles = APPEND_ONLY
            case other:
                raise InvalidInput(_PERMISSIONS + name, other, "readonly or appendonly")
        users.append(User(name, Secret.of(password), everywhere(roles), uuids=uuids))
    return users
