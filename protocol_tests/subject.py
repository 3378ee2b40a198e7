"""How to reach an implementation: a command, ssh, a socket, a pair of byte streams, a URL."""

from __future__ import annotations

import base64
import os
import shlex
import socket
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol, TypeAlias
from urllib.parse import unquote_to_bytes

from protocol_tests import place
from protocol_tests.channel import Channel, HasFileno, Patience, Process, over_socket, over_streams
from protocol_tests.need import Need, Role
from protocol_tests.place import Place

__all__ = ["CLIENTS", "Breakable", "Dial", "Subject", "Visit", "command", "http", "ssh", "streams", "unix"]

CLIENTS: Final = tuple(f"{digit * 8}-2222-4333-8444-555555555555" for digit in "123456")
"""The UUIDs of the clients that the harness plays."""

_VARIABLES: Final = {Role.READONLY: "GIT_ANNEX_SHELL_READONLY", Role.APPENDONLY: "GIT_ANNEX_SHELL_APPENDONLY"}


@dataclass(frozen=True, slots=True)
class Visit:
    """One connection that is to be made: as *client* to *uuid*, in *role*."""

    client: str
    uuid: str
    role: Role
    patience: Patience


Dial: TypeAlias = Callable[[Visit], Channel]
"""Makes one connection; raises OSError when it cannot."""


class Breakable(Protocol):
    """A cluster whose nodes can be made to fail, for as long as a context lasts."""

    def away(self, node: int) -> AbstractContextManager[object]:
        """The node cannot be reached."""
        ...

    def readonly(self, node: int) -> AbstractContextManager[object]:
        """The node refuses to change anything."""
        ...

    def without_nodes(self) -> AbstractContextManager[object]:
        """The cluster is there, and has no node that can be used."""
        ...

    def unwanting(self, node: int) -> AbstractContextManager[object]:
        """The preferred content of the node is nothing."""
        ...

    def beyond(self) -> AbstractContextManager[tuple[Subject, str]]:
        """The cluster has one more node, behind another gateway; that node, and the UUID of that gateway."""
        ...

    def special(self) -> AbstractContextManager[str]:
        """The gateway shows a special remote; its UUID."""
        ...

    def served(self) -> AbstractContextManager[str]:
        """The gateway is shown over HTTP (HTTP_GATEWAY); the URL above all that it shows."""
        ...


@dataclass(frozen=True)
class Subject:
    """An implementation that is on trial.

    Attributes:
        name: For reports.
        dial: Connects to it; None for a server that does not speak lines.
        uuid: Of the repository; "" when it is not known before it says so.
        has: What requirements may need.
        token: Clients say AUTH with it; "" where the server speaks first.
        path: Of the repository, where it is on this machine.
        nodes: Of the cluster, as subjects of their own.
        cluster: Breaks them.
        url: Of an HTTP server, without the version.
        authorization: What requests over HTTP have as Authorization; "" for none.
        ca: Certificates that are trusted over TLS, in PEM; None for those of the system.
        environment: What is set for the server's processes.
        writer: Reaches the same contents and may write, where the subject itself may not.
        lasting: The repository was there before and stays.
    """

    name: str
    dial: Dial | None = None
    uuid: str = ""
    has: frozenset[Need] = frozenset()
    token: str = ""
    path: Path | None = None
    nodes: tuple[Subject, ...] = ()
    cluster: Breakable | None = None
    url: str = ""
    authorization: str = ""
    ca: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    writer: Subject | None = None
    lasting: bool = False

    def channel(self, visit: Visit) -> Channel:
        """A new connection.

        Raises:
            OSError: It cannot be made.
        """
        assert self.dial is not None, "asked only where LINES is had"
        return self.dial(visit)

    def missing(self, needs: frozenset[Need]) -> list[Need]:
        """What it does not have of *needs*."""
        return sorted(needs - self.has)


def command(template: str, repository: Place, environment: Mapping[str, str] | None = None) -> Subject:
    """A server that is started for each session.

    Args:
        template: A command line with ``{path}``, ``{client}`` and ``{uuid}``; no shell reads it.
        repository: What it is to show.
        environment: Added to its environment. A role adds the variable that git-annex-shell knows it by.
    """
    variables = dict(environment or {})

    def dial(visit: Visit) -> Channel:
        argv = place.fill(template, path=str(repository.path), client=visit.client, uuid=visit.uuid)
        role = {_VARIABLES[visit.role]: "1"} if visit.role in _VARIABLES else {}
        return Process(argv, visit.patience, variables | role)

    has = {Need.LINES, Need.REPOSITORY, Need.PROCESS, Need.PATH} | ({Need.ANY_UUID} if "{uuid}" in template else set())
    return Subject(template, dial, repository.uuid, frozenset(has), path=repository.path, environment=variables)


def ssh(host: str, path: str, *, program: str = "ssh", shell: str = "git-annex-shell", uuid: str = "") -> Subject:
    """A repository at *path* of *host*, which must be there already.

    Args:
        host: As ssh knows it.
        path: On that machine.
        program: ssh and its options.
        shell: What is run there.
        uuid: Of the repository; otherwise the first answer says it.
    """

    def dial(visit: Visit) -> Channel:
        words = f"{shell} 'p2pstdio' {shlex.quote(path)} '{visit.client}'"
        return Process(
            [*shlex.split(program), host, words + (f" --uuid {visit.uuid}" if visit.uuid else "")], visit.patience
        )

    has = frozenset((Need.LINES, Need.REPOSITORY, Need.ANY_UUID))
    return Subject(f"ssh {host} {path}", dial, uuid, has, lasting=True)


def unix(path: str | os.PathLike[str], *, uuid: str = "", token: str = "") -> Subject:
    """A unix socket. With *token*, clients say AUTH first; without, the server speaks first."""

    def dial(visit: Visit) -> Channel:
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connected.settimeout(visit.patience.seconds)
        try:
            connected.connect(os.fspath(path))
        except OSError:
            connected.close()
            raise
        return over_socket(connected)

    has = frozenset((Need.LINES, Need.REPOSITORY)) | ({Need.TOKEN} if token else frozenset())
    return Subject(f"unix {os.fspath(path)}", dial, uuid, has, token=token, lasting=True)


def streams(
    connect: Callable[[], tuple[HasFileno, HasFileno, Callable[[], None]]],
    *,
    name: str = "streams",
    uuid: str = "",
    token: str = "",
    has: frozenset[Need] = frozenset((Need.REPOSITORY,)),
) -> Subject:
    """Anything in this process that speaks the protocol over a pair of byte streams.

    Args:
        connect: Begins a session: gives what the server's bytes are read from, what the client's are written to
            (with ``fileno()``, such as two ends of ``socket.socketpair()``), and a function that closes them. It is
            called from the thread that runs the checks, once for each session.
        name: For reports.
        uuid: Of the repository; otherwise the first answer says it.
        token: Clients say AUTH with it.
        has: What requirements may need, besides lines.
    """

    def dial(visit: Visit) -> Channel:
        del visit
        return over_streams(*connect())

    return Subject(name, dial, uuid, has | {Need.LINES} | ({Need.TOKEN} if token else frozenset()), token=token)


def http(url: str, *, uuid: str = "", token: str = "", ca: Path | None = None) -> Subject:
    """An HTTP server.

    Args:
        url: ``http://HOST:PORT/git-annex/UUID``, or without the UUID where *uuid* says it. With ``NAME:PASSWORD@``
            before the host, requests say them as Basic.
        uuid: Of the repository.
        token: Requests say it as Bearer.
        ca: Certificates that are trusted, in PEM; otherwise those of the system.

    Raises:
        place.Unusable: The URL has no UUID, or is no URL of HTTP.
    """
    scheme, _, rest = url.partition("://")
    login, at, _ = rest.partition("/")[0].rpartition("@")
    shown = f"{scheme}://{rest.removeprefix(login + at)}"
    base, _, last = shown.rstrip("/").rpartition("/")
    if last != "git-annex":
        base, uuid = base, uuid or last
    else:
        base = shown.rstrip("/")
    if scheme not in ("http", "https") or not uuid or not base.endswith("/git-annex"):
        raise place.Unusable(f"{shown}: not http://HOST:PORT/git-annex/UUID")
    authorization = f"Bearer {token}" if token else ""
    if login:
        authorization = f"Basic {base64.b64encode(unquote_to_bytes(login)).decode()}"
    has = {Need.HTTP} | ({Need.CREDENTIALS} if authorization else set()) | ({Need.TLS} if scheme == "https" else set())
    return Subject(
        f"http {shown}",
        None,
        uuid,
        frozenset(has),
        url=f"{base}/{uuid}",
        authorization=authorization,
        ca=ca,
        lasting=True,
    )
