"""Connect: from an address, or a way through gateways, to a ``Remote``.

Nothing is opened before it is needed, so a cluster can be made of places that are away at the moment, and what is not
there raises ``ConnectFailed`` when it is used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self

from annexpy.clock import Clock
from annexpy.errors import InvalidInput, Refused, UnknownUUID
from annexpy.remote.address import Address, address_of, resolve, shell_at
from annexpy.remote.base import Remote
from annexpy.remote.local_place import LocalPlace
from annexpy.repo.p2p_networks import SCHEME
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.system import CLOCK
from annexpy.uuids import UUID, parse_uuid

if TYPE_CHECKING:
    from annexpy.policy.routes import Route

__all__ = ["Connected", "cluster_nodes", "connect", "connect_route"]

_DEADLINE: Final = 60.0
_LONGER: Final = 1.2
"""Who waits for somebody who waits for others must wait longer than they do."""


class Connected(Remote, Protocol):
    """A Remote that can be reached for on purpose, as ``connect`` gives it."""

    async def connect(self) -> UUID:
        """Make sure that it can be reached and is the right one; its UUID."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


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
        address: See ``annexpy.remote.address``.
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
    found = address_of(remote, repository, route.uuid)
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
        found = shell_at(found, remote, repository, route.uuid)
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
