"""Addresses: what a user writes, and where that leads. ``connect`` makes a ``Remote`` of it.

======================  ==========================================================================
``/srv/lab.git``        a repository on this machine; ``./name`` where a git remote has the name
``ssh://host/path``     git-annex-shell over ssh, also ``host:path``; by the system's ssh where
                        ``GIT_SSH_COMMAND``, ``core.sshCommand`` or ``annex-ssh-options`` is set
``annex+http://host/``  annexpy or git-annex p2phttp, also ``annex+https://``; behind ``git-annex/`` the UUID
                        of the repository, where it is not known otherwise
``https://host/x.git``  a git repository over HTTP that says where its contents are (``annex.url``)
``unix:/run/a.socket``  whoever speaks P2P on that unix socket
``p2p-annex::net:addr``  whoever the program ``git-annex-p2p-net`` finds at *addr*, as git-annex has it
``exec:command …``      whatever speaks P2P on its stdin and stdout
``directory:PATH``      the directory special remote in that folder
``name``                the git remote of that name, with its ``annex-*`` settings; or the cluster of that
                        name, made of the git remotes with ``annex-cluster-node = name``; or a special remote
``gateway-node``        what the git remote ``gateway`` is a proxy for, ``gateway-cluster`` included, as
                        proxy.log has it; also behind several proxies
======================  ==========================================================================

Nothing is opened before it is needed, so a cluster can be made of places that are away at the moment,
and what is not there raises ``ConnectFailed`` when it is used. Carriers that annexpy does not offer are
refused by name (docs/out-of-scope.md).
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from annexpy.errors import InvalidInput, Refused
from annexpy.patterns import regex
from annexpy.repo.config import RemoteConfig
from annexpy.repo.files import Files
from annexpy.repo.p2p_networks import SCHEME, parse_p2p_address, token_for
from annexpy.repo.repository import Repository
from annexpy.system import new_uuid
from annexpy.transport.base import Dial
from annexpy.uuids import UUID, parse_uuid

__all__ = ["Address", "address_of", "resolve", "shell_at"]

_SHELL: Final = "git-annex-shell"
_SSH_WIRES: Final = 2
"""Each wire is a shell process at the other end, which costs more to start than hundreds of requests."""
_SHELL_SECONDS: Final = 0.3
_HTTP_CONNECTIONS: Final = 16
_SCP: Final = regex(r"(?:[^/@:\s]+@)?(?:\[[0-9a-fA-F:.%]+\]|[^/:\s\[\]]+):(?!/{2}).+", re.DOTALL)
_SCHEME: Final = regex(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NOT_OFFERED: Final = {
    "tor-annex": "tor is not carried; use ssh or a unix socket",
    "annex": "special remotes are not reached through git",
    "ext": "git's ext helper runs any command; use exec:COMMAND",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a remote is, and what is known about it already.

    Attributes:
        name: As the user wrote it, but for a password, for messages.
        path: Of a repository on this machine; None when *dial* leads there.
        dial: Opens a connection that speaks P2P; None for a path and for *http*.
        http: What ``HTTPRemote`` takes; None for all else.
        uuid: Which repository must be there, where that is known.
        cost: git-annex's cost.
        connections: How many wires at once are sensible.
        price: What one more costs, in seconds of waiting for another to come free.
        client: Who asks, where that has to be said first, with *token*.
        token: See above.
    """

    name: str
    path: str | None = None
    dial: Dial | None = None
    http: str | None = None
    uuid: UUID | None = None
    cost: int = 200
    connections: int = 4
    price: float = 0.0
    client: UUID | None = None
    token: str | None = None


def resolve(address: str | os.PathLike[str], repository: Repository | None = None) -> Address:
    """What *address* means to somebody who works in *repository*.

    Raises:
        InvalidInput: No address.
        Refused: A carrier that annexpy does not offer.
    """
    text = os.fspath(address)
    if repository is not None and (remote := repository.config.remotes().get(text)) is not None:
        return address_of(remote, repository)
    return _place(text, _without_password(text), _Asker.of(repository))


def _without_password(text: str) -> str:
    scheme, colon, rest = text.partition("://")
    where, slash, path = rest.partition("/")
    who, _, host = where.rpartition("@")
    return f"{scheme}://{who.partition(':')[0]}@{host}{slash}{path}" if colon and ":" in who else text


@dataclass(frozen=True, slots=True)
class _Asker:
    """Who asks, and how the asker wants ssh to be used."""

    uuid: UUID
    ssh_command: str = ""
    shell: str = _SHELL
    ssh_options: str = ""
    expected: UUID | None = None
    files: Files | None = None

    @classmethod
    def of(cls, repository: Repository | None) -> _Asker:
        # A throw-away UUID: who works in no repository of his own has none to tell, and records none.
        uuid = new_uuid() if repository is None else repository.uuid
        configured = "" if repository is None else repository.config.get("core.sshcommand") or ""
        files = None if repository is None else repository.files
        return cls(uuid, os.environ.get("GIT_SSH_COMMAND") or configured, files=files)


def address_of(remote: RemoteConfig, repository: Repository, expected: UUID | None = None) -> Address:
    """Where a git remote of *repository* is, which is *expected* to be that one.

    Raises:
        Refused: A special remote, or a carrier that annexpy does not offer.
    """
    if remote.url is None:
        kind = remote.get("annex-externaltype") or "without url"
        raise Refused("remote", remote.name, f"a special remote ({kind}), which git-annex itself reaches")
    uuid = expected or (None if remote.uuid is None else parse_uuid(remote.uuid))
    url = remote.annex_url or remote.url
    asker = replace(
        _Asker.of(repository), shell=remote.shell or _SHELL, ssh_options=remote.ssh_options or "", expected=uuid
    )
    found = _place(url, remote.name, asker)
    path = found.path
    if path is not None and not os.path.isabs(path):
        path = os.path.join(repository.path, path)  # as git takes it
    cost = found.cost if remote.cost is None else remote.cost
    return replace(found, name=remote.name, path=path, uuid=uuid, cost=cost)


def _place(text: str, name: str, asker: _Asker) -> Address:
    if not text or "\0" in text or "\n" in text:
        raise InvalidInput(
            "remote",
            text,
            "must be a path, ssh://HOST/PATH, annex+http://HOST/, unix:SOCKET, exec:COMMAND or a git remote",
        )
    prefix = text.partition("::")[0]
    if "::" in text and prefix in _NOT_OFFERED:
        raise Refused("remote", text, _NOT_OFFERED[prefix])
    if text.startswith(SCHEME):
        return _p2p_network(text, name, asker)
    if text.startswith("unix:"):
        return _unix(text.removeprefix("unix:"), name)
    if text.startswith("exec:"):
        return _exec(text.removeprefix("exec:"), name)
    scheme = _SCHEME.match(text)
    if scheme is None:
        if _SCP.fullmatch(text) and not os.path.exists(text):
            host, path = _split_scp(text)
            return _ssh(host, None, path, name, asker)
        return Address(name, path=text, cost=100)
    match scheme[1].lower():
        case "file":
            return Address(name, path=unquote(_split_url(text).path), cost=100)
        case "ssh" | "git+ssh" | "ssh+git":
            parts = _split_url(text)
            host = parts.hostname or ""
            if parts.username:
                host = f"{unquote(parts.username)}@{host}"
            path = unquote(parts.path)
            return _ssh(host, parts.port, path, name, asker)  # "/~/x" goes out as it is; the shell there knows it
        case "annex+http" | "annex+https" | "http" | "https":
            return Address(name, http=text, connections=_HTTP_CONNECTIONS)
        case other:
            raise Refused("remote", text, f"{other}:// is not carried; use ssh, a unix socket or a path")


def _unix(path: str, name: str) -> Address:
    from annexpy.transport.sockets import DialUnix

    if not path:
        raise InvalidInput("remote", "unix:", "the path of a socket after unix:")
    return Address(name, dial=DialUnix(path.removeprefix("//")), cost=100, connections=8)


def _p2p_network(text: str, name: str, asker: _Asker) -> Address:
    from annexpy.transport.pipe import DialCommand

    address = parse_p2p_address(text)
    token = token_for(asker.files, address) if asker.files is not None else ""
    dial = DialCommand(address.argv, name=name)
    return Address(name, dial=dial, connections=2, price=_SHELL_SECONDS, client=asker.uuid, token=token)


def _exec(command: str, name: str) -> Address:
    from annexpy.transport.pipe import DialCommand

    try:
        argv = tuple(shlex.split(command))
    except ValueError as error:
        raise InvalidInput("remote", command, f"a command line ({error})") from error
    if not argv:
        raise InvalidInput("remote", "exec:", "a command after exec:")
    return Address(name, dial=DialCommand(argv, name=name), cost=150, connections=2, price=_SHELL_SECONDS)


def _split_url(text: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise InvalidInput("remote", text, f"a URL ({error})") from error
    return parts


def _split_scp(text: str) -> tuple[str, str]:
    end = text.find("]:") + 1 if "[" in text.partition(":")[0] else text.index(":")
    if not end:
        raise InvalidInput("remote", text, "HOST:PATH or [HOST]:PATH")
    return text[:end].replace("[", "").replace("]", ""), text[end + 1 :]


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\"'\"'") + "'"


def _ssh(host: str, port: int | None, path: str, name: str, asker: _Asker) -> Address:
    from annexpy.transport.ssh import DialSSH, DialSystemSSH

    if not path or path == "/":
        raise InvalidInput("ssh path", path, "must be the path of a repository on the host")
    user, _, host = host.rpartition("@")
    # To the letter what git-annex sends: forced commands of forges take it apart by hand.
    command = f"{asker.shell} 'p2pstdio' {_quoted(path)} {_quoted(asker.uuid)}"
    if asker.expected is not None:
        command += f" --uuid {asker.expected}"
    system = asker.ssh_command or os.environ.get("GIT_SSH")
    if system is None and not asker.ssh_options:
        dial = DialSSH(host, command, user, port or 0, name=name)
        return Address(name, dial=dial, connections=_SSH_WIRES, price=_SHELL_SECONDS)
    program = (system or "ssh",)
    try:
        options = tuple(shlex.split(asker.ssh_options))
    except ValueError as error:
        raise InvalidInput("annex-ssh-options", asker.ssh_options, f"words for a command line ({error})") from error
    if asker.ssh_command:
        program, options = (" ".join([asker.ssh_command, *map(shlex.quote, options)]),), ()
    return Address(
        name,
        dial=DialSystemSSH(
            host, command, user, port or 0, name=name, program=(*program, *options), shell=bool(asker.ssh_command)
        ),
        connections=_SSH_WIRES,
        price=_SHELL_SECONDS,
    )


def shell_at(found: Address, remote: RemoteConfig, repository: Repository, uuid: UUID) -> Address:
    """A gateway on this machine: its shell shows what lies behind it, as git-annex does it too."""
    from annexpy.transport.pipe import DialCommand

    shell = shlex.split(remote.shell) if remote.shell else [sys.executable, "-m", "annexpy.server.shell"]
    assert found.path is not None
    argv = (*shell, "p2pstdio", os.path.abspath(found.path), repository.uuid, "--uuid", uuid)
    return replace(found, path=None, dial=DialCommand(argv, name=found.name), price=_SHELL_SECONDS)
