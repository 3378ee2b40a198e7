"""What subjects may have and requirements may need: abilities, roles, versions."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["ANY_ROLE", "NEWEST", "Need", "Role"]

NEWEST: Final = 4
"""The highest version of the protocol that the requirements know."""


class Role(StrEnum):
    """What the server lets its client do."""

    WRITE = "write"
    APPENDONLY = "appendonly"
    READONLY = "readonly"


ANY_ROLE: Final = frozenset(Role)
"""Whatever the client may do."""


class Need(StrEnum):
    """What not every subject has."""

    LINES = "lines"  # it speaks the line protocol
    REPOSITORY = "repository"  # a repository of its own stands behind it, no proxy
    PROCESS = "process"  # each session is a process of its own
    PATH = "path"  # the repository is on this machine
    ANY_UUID = "any uuid"  # the UUID that is asked for may be chosen
    TOKEN = "token"  # clients authenticate
    CLUSTER = "cluster"  # a gateway to a cluster whose nodes can be asked one by one
    BROKEN_NODES = "broken nodes"  # and whose nodes can be broken
    HTTP = "http"
    HTTP_GATEWAY = "http gateway"  # a cluster whose gateway can be shown over HTTP, too
    CREDENTIALS = "credentials"  # requests over HTTP have an Authorization
    TLS = "tls"  # HTTP over TLS
    MACHINES = "machines"  # hypothesis is installed

    @property
    def said(self) -> str:
        """For the reader of a report."""
        return _SAID.get(self, self.value)


_SAID: Final = {
    Need.LINES: "a server that speaks lines",
    Need.REPOSITORY: "a server with a repository of its own",
    Need.PROCESS: "a server process of its own for each session (--command)",
    Need.PATH: "a repository on this machine",
    Need.ANY_UUID: "a command with {uuid}",
    Need.TOKEN: "a server that authenticates (--token)",
    Need.CLUSTER: "a cluster (--nodes)",
    Need.BROKEN_NODES: "nodes that the harness has made itself (--command and --nodes NUMBER)",
    Need.HTTP: "a server that speaks HTTP (--http)",
    Need.HTTP_GATEWAY: "a command that shows a gateway over HTTP (--command, --nodes NUMBER and --http-server)",
    Need.CREDENTIALS: "a name and a password, or a token (--http with https://NAME:PASSWORD@HOST, or with --token)",
    Need.TLS: "an https:// URL (--http)",
    Need.MACHINES: "hypothesis",
}
