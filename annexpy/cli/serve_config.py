"""The TOML file of ``annexpy serve --config``: the same as on the command line, and HTTP's users.

::

    directories = ["lab.git", "tenants"]

    [http]
    listen = ["127.0.0.1:9417"]
    unauth-readonly = true

    [ssh]
    listen = ["127.0.0.1:2222"]
    authorized-keys = "authorized_keys"

    [[user]]
    name = "alice"
    password = "sha256:…"
    may = "append-only"

    [unix]
    listen = ["lab=lab.sock"]

Paths are relative to the file. What is not known is refused: it may have been a restriction.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Container
from typing import Any, Final

import click

from annexpy.cli.serve_options import HTTPOptions, P2POptions, ServeOptions, SSHOptions
from annexpy.cli.serve_p2p import socket_of
from annexpy.errors import InvalidInput
from annexpy.server.auth import (
    APPEND_ONLY,
    EVERYTHING,
    NOTHING,
    READ_ONLY,
    Grants,
    Role,
    Secret,
    User,
    everywhere,
)
from annexpy.server.limits import ServerMode
from annexpy.uuids import UUID, parse_uuid

__all__ = ["read_config"]

_MODES: Final = {mode.value: mode for mode in ServerMode}
_ROLES: Final = {"read-only": READ_ONLY, "append-only": APPEND_ONLY, "write": EVERYTHING}


def read_config(path: str) -> ServeOptions:
    """All that it says.

    Raises:
        ClickException: It cannot be read, or not understood.
    """
    try:
        with open(path, "rb") as file:
            table = _Table(tomllib.load(file), "", os.path.dirname(os.path.abspath(path)))
        directories = tuple(map(table.path, table.texts("directories") or ["."]))
        http, ssh, unix, p2p = (table.table(name) for name in ("http", "ssh", "unix", "p2p"))
        mode, uuids = _MODES[table.one_of("may", _MODES)], table.uuids("uuids")
        users = tuple(_user(one) for one in table.tables("user"))
        options = HTTPOptions(
            tuple(http.texts("listen")),
            wideopen=http.flag("wideopen"),
            unauth_readonly=http.flag("unauth-readonly"),
            unauth_appendonly=http.flag("unauth-appendonly"),
            unauth_nolocking=http.flag("unauth-nolocking"),
            authenv=http.flag("authenv"),
            authenv_http=http.flag("authenv-http"),
            certfile=http.file("certfile"),
            chainfile=http.file("chainfile"),
            privatekeyfile=http.file("privatekeyfile"),
            url=http.text("url"),
            users=users,
            uuids=uuids,
        )
        places = SSHOptions(tuple(ssh.texts("listen")), ssh.file("authorized-keys"), ssh.file("host-key"))
        sockets = tuple(map(unix.socket, unix.texts("listen")))
        peers = P2POptions(sockets, networks=p2p.flag("enabled"), uuids=uuids)
        for one in (table, http, ssh, unix, p2p):
            one.end()
    except OSError as error:
        raise click.ClickException(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # InvalidInput, and all that tomllib raises
        raise click.ClickException(f"{path}: {error}") from error
    asked = ServeOptions(directories, options, places, peers, mode)
    if not asked.of_networks and not peers:
        raise click.ClickException(f"{path}: nothing to listen on: give http.listen, ssh.listen, unix.listen or p2p")
    return asked


def _user(table: _Table) -> User:
    token = table.text("token")
    secret = Secret.of(token or table.text("password"))
    roles, places = table.roles("may"), table.texts("repositories")
    grants: Grants = {parse_uuid(uuid): roles for uuid in places} if places else everywhere(roles)
    user = User(table.text("name"), secret, grants, bool(token), table.uuids("uuids"))
    table.end()
    return user


class _Table:
    """A table of which every key has to be asked for."""

    def __init__(self, values: dict[str, Any], name: str, folder: str) -> None:
        self._values, self._name, self._folder = values, name, folder

    def _take(self, key: str, kind: type, usual: Any) -> Any:  # of that kind
        value = self._values.pop(key, usual)
        if not isinstance(value, kind):
            raise InvalidInput(f"{self._name}{key}", str(value), f"of type {kind.__name__}")
        return value

    def text(self, key: str) -> str:
        return str(self._take(key, str, ""))

    def texts(self, key: str) -> list[str]:
        found = self._take(key, list, [])
        if not all(isinstance(one, str) for one in found):
            raise InvalidInput(f"{self._name}{key}", str(found), "a list of texts")
        return list(found)

    def flag(self, key: str) -> bool:
        return bool(self._take(key, bool, False))

    def one_of(self, key: str, words: Container[str]) -> str:
        """One of *words*; "write" when nothing is said."""
        word = self.text(key) or "write"
        if word not in words:
            raise InvalidInput(f"{self._name}{key}", word, "read-only, append-only or write")
        return word

    def roles(self, key: str) -> Role:
        """As ``one_of``, or a list of single roles: read, lock, append, write."""
        if not isinstance(self._values.get(key), list):
            return _ROLES[self.one_of(key, _ROLES)]
        found = NOTHING
        for word in self.texts(key):
            if word.upper() not in Role.__members__ or word != word.lower():
                raise InvalidInput(f"{self._name}{key}", word, ", ".join(name.lower() for name in Role.__members__))
            found |= Role[word.upper()]
        return found

    def uuids(self, key: str) -> frozenset[UUID] | None:
        """None when nothing is said."""
        return frozenset(map(parse_uuid, self.texts(key))) if key in self._values else None

    def socket(self, text: str) -> str:
        """``[NAME=]PATH``."""
        name, path = socket_of(text)
        return f"{name}={self.path(path)}" if name else self.path(path)

    def file(self, key: str) -> str | None:
        name = self.text(key)
        return self.path(name) if name else None

    def path(self, name: str) -> str:
        return os.path.join(self._folder, os.path.expanduser(name))

    def table(self, key: str) -> _Table:
        return _Table(self._take(key, dict, {}), f"{key}.", self._folder)

    def tables(self, key: str) -> list[_Table]:
        found = self._take(key, list, [])
        if not all(isinstance(one, dict) for one in found):
            raise InvalidInput(key, str(found), f"[[{key}]]")
        return [_Table(one, f"{key}.", self._folder) for one in found]

    def end(self) -> None:
        """Nothing else is in it.

        Raises:
            InvalidInput: Something is.
        """
        for key, value in self._values.items():
            raise InvalidInput("setting", f"{self._name}{key} = {value!r}", "one that is known; see docs/serve.md")
