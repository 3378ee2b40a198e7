"""Addresses: from what a user writes to a ``Remote``.

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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self
from urllib.parse import SplitResult, unquote, urlsplit

from annexpy.clock import Clock
from annexpy.errors import InvalidInput, Refused, UnknownUUID
from annexpy.patterns import regex
from annexpy.remote.base import Remote
from annexpy.remote.local_place import LocalPlace
from annexpy.repo.config import RemoteConfig
from annexpy.repo.files import Files
from annexpy.repo.p2p_networks import SCHEME, parse_p2p_address, token_for
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.system import CLOCK, new_uuid
from annexpy.transport.base import Dial
from annexpy.uuids import UUID, parse_uuid

if TYPE_CHECKING:
    from annexpy.policy.routes import Route

__all__ = ["Address", "Connected", "cluster_nodes", "connect", "connect_route", "resolve"]

_SHELL: Final = "git-annex-shell"
_SSH_WIRES: Final = 2
"""Each wire is a shell process at the other end, which costs more to start than hundreds of requests."""
_SHELL_SECONDS: Final = 0.3
_HTTP_CONNECTIONS: Final = 16
_DEADLINE: Final = 60.0
_LONGER: Final = 1.2
"""Who waits for somebody who waits for others must wait longer than they do."""
_SCP: Final = regex(r"(?:[^/@:\s]+@)?(?:\[[0-9a-fA-F:.%]+\]|[^/:\s\[\]]+):(?!/{2}).+", re.DOTALL)
_SCHEME: Final = regex(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NOT_OFFERED: Final = {
    "tor-annex": "tor is not carried; use ssh or a unix socket",
    "annex": "special remotes are not reached through git",
    "ext": "git's ext helper runs any command; use exec:COMMAND",
}


class Connected(Remote, Protocol):
    """A Remote that can be reached for on purpose, as ``connect`` gives it."""

    async def connect(self) -> UUID:
        """Make sure that it can be reached and is the right one; its UUID."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a remote is, and what is known about it already.

    Attributes:
        name: As the user wrote it, for messages.
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


def connect(
    address: str | os.PathLike[str],
    *,
    uuid: UUID | str | None = None,
    name: str | None = None,
    repository: Repository | None = None,
    durability: Durability = "full",
    clock: Clock = CLOCK,
) -> Connected:
    """A remote by its address. Nothing is opened yet; ``async with`` opens it and closes it in the end.

    Args:
        address: See the top of this module.
        uuid: Which repository it must be; anything else there is ``UnknownUUID``. Without it the remote's
            ``uuid`` is known only once it is connected.
        name: For messages.
        repository: Whose git remotes may be named, and who asks: its UUID is told to the other side.
        durability: For repositories on this machine: "full", or "fast" by choice.
        clock: Time for locks and deadlines.

    Raises:
        InvalidInput: No address.
        Refused: A carrier that annexpy does not offer.
        InvalidUUID: *uuid* is none.
    """
    text = os.fspath(address)
    if repository is not None and (nodes := cluster_nodes(text, repository)):
        return _cluster(text, nodes, uuid, name or text, repository, durability, clock)
    if repository is not None and (route := _proxied(text, repository)) is not None:
        return connect_route(route, repository, name=name, durability=durability, clock=clock)
    if (found_special := _special(text, uuid, name, repository, clock)) is not None:
        return found_special
    found = resolve(text, repository)
    wanted = found.uuid if uuid is None else parse_uuid(uuid)
    shown = found.name if name is None else name
    if found.http is not None:
        return _http(found, repository, wanted, shown, found.cost, clock)
    if found.dial is not None:
        from annexpy.remote.p2p import P2PRemote

        return P2PRemote(
            found.dial,
            uuid=wanted,
            name=shown,
            cost=found.cost,
            clock=clock,
            client_uuid=found.client,
            token=found.token,
            connections=found.connections,
            price=found.price,
        )
    assert found.path is not None
    client = None if repository is None else repository.uuid
    is_word = found.path == text and "/" not in text
    absent = _no_such_remote(repository) if is_word and repository is not None else ""
    return LocalPlace(
        found.path, uuid=wanted, name=shown, cost=found.cost, durability=durability, client=client, absent=absent
    )


def _special(
    text: str, uuid: UUID | str | None, name: str | None, repository: Repository | None, clock: Clock
) -> Connected | None:
    """The special remote that *text* is the name or the address of, if that is one."""
    remote = None if repository is None else repository.config.remotes().get(text)
    if remote is None and text.startswith("directory:"):
        from annexpy.remote.special import connect_directory

        path = text.removeprefix("directory:")
        if not path or "\0" in path:
            raise InvalidInput("remote", text, "the path of a folder after directory:")
        wanted = None if uuid is None else parse_uuid(uuid)
        return connect_directory(path, wanted, name or text, repository, clock=clock)
    if remote is None or remote.url is not None or repository is None:
        return None
    from annexpy.remote.special import connect_special

    found = connect_special(remote, repository, name=name, clock=clock)
    if uuid is not None and found.uuid != parse_uuid(uuid):
        raise UnknownUUID(f"{name or text}: expected repository {uuid}, found {found.uuid}")
    return found


def _no_such_remote(repository: Repository) -> str:
    """What to say of a word that is no remote and no directory."""
    remotes = repository.config.remotes().values()
    names = sorted({remote.name for remote in remotes} | {name for remote in remotes for name in remote.cluster_node})
    there = f"the git remotes are {', '.join(names)}" if names else "there are no git remotes"
    return f"no git remote and no directory of that name; {there}"


def connect_route(
    route: Route,
    repository: Repository,
    *,
    name: str | None = None,
    durability: Durability = "full",
    clock: Clock = CLOCK,
    bypass: tuple[UUID, ...] = (),
    connections: int | None = None,
) -> Connected:
    """The remote at the end of *route*; see ``connect``.

    Args:
        route: Which way.
        repository: Whose git remotes the way begins with.
        name: For messages.
        durability: As for ``connect``.
        clock: As for ``connect``.
        bypass: Repositories that a gateway at the end is to leave out.
        connections: How many wires at once, where it is not to be the usual number.
    """
    shown = name or route.name
    remote = repository.config.remotes().get(route.via.name)
    if remote is None:
        raise InvalidInput("remote", route.via.name, "the name of a git remote")
    if remote.url is None and not route.hops:
        from annexpy.remote.special import connect_special

        return connect_special(remote, repository, name=name, clock=clock)
    found = _git_remote(remote, repository, route.uuid)
    if found.path is not None:
        if not route.hops:
            return LocalPlace(
                found.path,
                uuid=route.uuid,
                name=shown,
                cost=route.cost,
                durability=durability,
                client=repository.uuid,
            )
        found = _shell_at(found, remote, repository, route.uuid)
    deadline = _DEADLINE * _LONGER**route.hops
    if found.http is not None:
        gateway = None if remote.uuid is None else parse_uuid(remote.uuid)
        return _http(found, repository, route.uuid, shown, route.cost, clock, gateway, deadline, bypass, connections)
    if found.dial is None or (route.hops and (remote.url or "").startswith(("unix:", "exec:", SCHEME))):
        raise Refused("remote", shown, f"{remote.url} has no way to ask for a repository behind it")
    from annexpy.remote.p2p import P2PRemote

    return P2PRemote(
        found.dial,
        uuid=route.uuid,
        name=shown,
        cost=route.cost,
        clock=clock,
        client_uuid=found.client,
        token=found.token,
        connections=connections or found.connections,
        price=found.price,
        deadline=deadline,
        bypass=bypass,
    )


def _http(
    found: Address,
    repository: Repository | None,
    uuid: UUID | None,
    name: str,
    cost: int,
    clock: Clock,
    gateway: UUID | None = None,
    deadline: float = _DEADLINE,
    bypass: tuple[UUID, ...] = (),
    connections: int | None = None,
) -> Connected:
    from annexpy.remote.http import HTTPRemote

    assert found.http is not None
    return HTTPRemote(
        found.http,
        uuid=uuid,
        gateway=gateway,
        name=name,
        cost=cost,
        clock=clock,
        client_uuid=None if repository is None else repository.uuid,
        folder=None if repository is None else repository.path,
        connections=connections or found.connections,
        deadline=deadline,
        bypass=bypass,
    )


def _proxied(text: str, repository: Repository) -> Route | None:
    """The way to the proxied remote called *text*, if that is one."""
    remotes = repository.config.remotes()
    if "/" in text or text in remotes or not any(text.startswith(f"{remote}-") for remote in remotes):
        return None
    from annexpy.policy.routes import proxied_routes
    from annexpy.repo.topology import topology  # it reads the branch

    return proxied_routes(topology(repository)).get(text)


def _shell_at(found: Address, remote: RemoteConfig, repository: Repository, uuid: UUID) -> Address:
    """A gateway on this machine: its shell shows what lies behind it, as git-annex does it too."""
    from annexpy.transport.pipe import DialCommand

    shell = shlex.split(remote.shell) if remote.shell else [sys.executable, "-m", "annexpy.server.shell"]
    assert found.path is not None
    argv = (*shell, "p2pstdio", os.path.abspath(found.path), repository.uuid, "--uuid", uuid)
    return replace(found, path=None, dial=DialCommand(argv, name=found.name), price=_SHELL_SECONDS)


def cluster_nodes(address: str, repository: Repository) -> list[str]:
    """The git remotes of *repository* that are the nodes of the cluster *address*; none when that is no cluster."""
    remotes = repository.config.remotes()
    if address in remotes:
        return []
    return [remote.name for remote in remotes.values() if address in remote.cluster_node]


def _cluster(
    cluster: str,
    nodes: Sequence[str],
    uuid: UUID | str | None,
    name: str,
    repository: Repository,
    durability: Durability,
    clock: Clock,
) -> Connected:
    from annexpy.remote.named_cluster import NamedCluster

    configured = uuid or repository.config.get(f"annex.cluster.{cluster}")
    return NamedCluster(
        [connect(node, repository=repository, durability=durability, clock=clock) for node in nodes],
        uuid=None if configured is None else parse_uuid(configured),
        name=name,
        clock=clock,
    )


def resolve(address: str | os.PathLike[str], repository: Repository | None = None) -> Address:
    """What *address* means to somebody who works in *repository*.

    Raises:
        InvalidInput: No address.
        Refused: A carrier that annexpy does not offer.
    """
    text = os.fspath(address)
    if repository is not None and (remote := repository.config.remotes().get(text)) is not None:
        return _git_remote(remote, repository)
    return _place(text, text, _Asker.of(repository))


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


def _git_remote(remote: RemoteConfig, repository: Repository, expected: UUID | None = None) -> Address:
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
