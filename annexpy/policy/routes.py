"""Who is reached through whom: proxies, proxies behind proxies, clusters, and clusters with several gateways.

Everything is worked out from what the git-annex branch and the git configuration say, so that the same facts
give the same routes on every gateway. A way that would come by the same repository twice is none.

Source: fact sheets p2p-protocol, section 5, and repository-format, section 5; ``git annex updatecluster`` and
``updateproxy`` of 10.20261026, by running them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from annexpy.logs.repos import Proxied
from annexpy.uuids import UUID, is_cluster

__all__ = [
    "HOP_COST",
    "ClusterRoutes",
    "Neighbour",
    "Relay",
    "Route",
    "Topology",
    "cluster_log",
    "cluster_routes",
    "nearest_routes",
    "proxied_route",
    "proxied_routes",
    "proxy_log",
]

HOP_COST: Final = 20
"""What each repository that relays adds to the cost, so that the shorter of two ways is taken."""
_MOST_HOPS: Final = 8


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A git remote of a repository.

    Attributes:
        name: Of the remote.
        uuid: Which repository it is.
        cost: git-annex's cost.
        proxied: ``annex-proxy``: others may reach it through this repository.
        node_of: Names of clusters (``annex-cluster-node``).
        gateway_of: UUIDs of clusters that it is another gateway of (``annex-cluster-gateway``).
    """

    name: str
    uuid: UUID
    cost: int = 200
    proxied: bool = False
    node_of: frozenset[str] = frozenset()
    gateway_of: frozenset[UUID] = frozenset()


@dataclass(frozen=True, slots=True)
class Topology:
    """What one repository knows.

    Attributes:
        uuid: Its own.
        neighbours: Its git remotes. (Settings of proxied remotes, which are none, mean nothing to git-annex.)
        proxies: proxy.log.
        clusters: cluster.log.
        names: ``annex.cluster.NAME``: the clusters that it is a gateway of.
    """

    uuid: UUID
    neighbours: tuple[Neighbour, ...]
    proxies: Mapping[UUID, frozenset[Proxied]]
    clusters: Mapping[UUID, frozenset[UUID]]
    names: Mapping[str, UUID]


@dataclass(frozen=True, slots=True)
class Route:
    """A way to a repository or cluster.

    Attributes:
        name: ``GATEWAY-NODE``; that of the git remote where nothing lies between.
        via: The git remote that is connected to.
        uuid: Who is asked for there.
        hops: How many repositories relay.
    """

    name: str
    via: Neighbour
    uuid: UUID
    hops: int = 0

    @property
    def cost(self) -> int:
        return self.via.cost + HOP_COST * self.hops

    @property
    def order(self) -> tuple[int, int, str]:
        """The smallest is the best of several ways to the same place."""
        return self.hops, self.cost, self.name


@dataclass(frozen=True, slots=True)
class Relay:
    """Another gateway of the same cluster.

    Attributes:
        route: The way to the cluster there.
        bypass: Repositories that it must leave out, because they are reached in another way or asked already.
        nodes: Who is reached through it.
        depth: How many gateways may lie behind each other on that way.
    """

    route: Route
    bypass: tuple[UUID, ...]
    nodes: frozenset[UUID]
    depth: int = 1


@dataclass(frozen=True, slots=True)
class ClusterRoutes:
    """Every node of a cluster, each in one way.

    Attributes:
        uuid: Of the cluster.
        name: Of the cluster, here.
        nodes: The ways to its nodes.
        relays: Its other gateways, for the nodes behind them.
    """

    uuid: UUID
    name: str
    nodes: tuple[Route, ...]
    relays: tuple[Relay, ...] = ()


# -- proxied remotes ------------------------------------------------------------------------------


def proxied_routes(topology: Topology) -> dict[str, Route]:
    """Every remote that exists because some git remote is a proxy, by name; the shortest way where two share one.

    A name that a git remote has is that git remote's.
    """
    taken = {neighbour.name for neighbour in topology.neighbours}
    found: dict[str, Route] = {}
    for route in _behind(topology):
        if route.name not in taken and (route.name not in found or route.order < found[route.name].order):
            found[route.name] = route
    return found


def nearest_routes(topology: Topology) -> list[Route]:
    """The best way to each repository that only a proxy leads to; no clusters."""
    near = {topology.uuid, *(neighbour.uuid for neighbour in topology.neighbours)}
    found: dict[UUID, Route] = {}
    for route in proxied_routes(topology).values():
        if route.uuid not in near and not is_cluster(route.uuid):
            known = found.get(route.uuid)
            found[route.uuid] = route if known is None or route.order < known.order else known
    return sorted(found.values(), key=lambda route: route.order)


def _behind(topology: Topology) -> Iterator[Route]:
    """All proxied remotes, from near to far. Ways that lead back, or through a repository twice, are left out."""
    waiting: deque[tuple[Route, frozenset[UUID]]] = deque(
        (Route(neighbour.name, neighbour, neighbour.uuid), frozenset((topology.uuid, neighbour.uuid)))
        for neighbour in topology.neighbours
    )
    while waiting:
        gateway, passed = waiting.popleft()
        for proxied in sorted(topology.proxies.get(gateway.uuid, ())):
            if proxied.uuid in passed:
                continue
            hops = gateway.hops + _relays(proxied)
            route = Route(f"{gateway.name}-{proxied.name}", gateway.via, proxied.uuid, hops)
            yield route
            if proxied.uuid in topology.proxies and route.hops < _MOST_HOPS and not is_cluster(proxied.uuid):
                waiting.append((route, passed | {proxied.uuid}))


def proxied_route(topology: Topology, uuid: UUID) -> Route | None:
    """The way on to *uuid* for a client that asks this repository for it; None when it is not proxied for.

    Both must agree: proxy.log, which others can write to, and the git configuration, which they cannot. Behind a
    repository that is proxied for, whatever that one proxies for can be had as well.
    """
    own = {proxied.uuid for proxied in topology.proxies.get(topology.uuid, ())}
    ways: list[Route] = []
    for near in topology.neighbours:
        if near.uuid in own and _may_be_proxied(topology, near):
            ways.append(Route(near.name, near, near.uuid))
            if near.proxied:
                ways += _behind(Topology(topology.uuid, (near,), topology.proxies, {}, {}))
        if uuid in own and _gateways_of(topology, near):
            ways += [
                Route(f"{near.name}-{proxied.name}", near, proxied.uuid, _relays(proxied))
                for proxied in topology.proxies.get(near.uuid, ())
                if not is_cluster(uuid)
            ]
    return min((way for way in ways if way.uuid == uuid), key=lambda way: way.order, default=None)


def _may_be_proxied(topology: Topology, near: Neighbour) -> bool:
    return near.proxied or any(name in topology.names for name in near.node_of)


def _gateways_of(topology: Topology, near: Neighbour) -> frozenset[UUID]:
    """The clusters that it and this repository are gateways of."""
    return near.gateway_of & frozenset(topology.names.values())


def _relays(proxied: Proxied) -> int:
    """How many repositories relay to it, by its name: ``B-C-node`` lies two further than ``node``."""
    return 1 + proxied.name.count("-")


# -- clusters -------------------------------------------------------------------------------------


def cluster_routes(topology: Topology, uuid: UUID, bypass: frozenset[UUID] = frozenset()) -> ClusterRoutes | None:
    """The way to each node of a cluster that this repository is a gateway of, each node in one way only.

    A node is used when cluster.log and the git configuration name it. Where there are other gateways, each of
    them is told whom to leave out: us, the others that we ask, and the nodes that are reached in another way. So
    each node is asked once, whatever the gateways know of each other. (git-annex leaves out gateways only, and
    sends twice to a node that two of them lead to.)

    Args:
        topology: What is known here.
        uuid: Of the cluster.
        bypass: Whom to leave out: what a gateway was told, or single nodes.
    """
    names = [name for name, cluster in sorted(topology.names.items()) if cluster == uuid]
    if not names:
        return None
    members = topology.clusters.get(uuid, frozenset()) - bypass - {topology.uuid}
    nodes: dict[UUID, Route] = {}
    peers: dict[UUID, Route] = {}
    for near in topology.neighbours:
        route, known = Route(near.name, near, near.uuid), nodes.get(near.uuid)
        if near.uuid in members and not near.node_of.isdisjoint(names):
            nodes[near.uuid] = route if known is None or route.order < known.order else known
        if uuid in near.gateway_of and near.uuid not in bypass | {topology.uuid}:
            peers.setdefault(near.uuid, Route(f"{near.name}-{names[0]}", near, uuid, 1))
    return ClusterRoutes(uuid, names[0], tuple(nodes.values()), _relayed(topology, uuid, members, nodes, peers, bypass))


def _relayed(
    topology: Topology,
    cluster: UUID,
    members: frozenset[UUID],
    nodes: Mapping[UUID, Route],
    peers: Mapping[UUID, Route],
    bypass: frozenset[UUID],
) -> tuple[Relay, ...]:
    """What each of *peers* is to be asked for.

    The way to a node through a gateway has fewer dashes in its name at that gateway than at any before it, so the
    peer that has the fewest does not need another one. That holds however the remotes are called.
    """
    listed = {peer: _distances(topology, peer, topology.clusters.get(cluster, frozenset())) for peer in peers}
    by: dict[UUID, UUID] = {}
    for node in members - nodes.keys():
        ways = [(listed[peer][node], peers[peer].cost, peer) for peer in peers if node in listed[peer]]
        if ways:
            by[node] = min(ways)[2]
    relays = []
    for peer, route in sorted(peers.items(), key=lambda item: item[1].order):
        reached = frozenset(node for node, asked in by.items() if asked == peer)
        if listed[peer] and not reached:
            continue  # whatever is behind it is reached in other ways, or not to be reached
        told = {topology.uuid, *bypass, *peers, *listed[peer]} - reached - {peer}
        depth = 1 + max((listed[peer][node] - _nearest(topology, node) for node in reached), default=0)
        relays.append(Relay(route, tuple(sorted(told)), reached, depth))
    return tuple(relays)


def _nearest(topology: Topology, node: UUID) -> int:
    """The fewest dashes that any gateway has in its name for *node*."""
    return min(one.name.count("-") for proxied in topology.proxies.values() for one in proxied if one.uuid == node)


def _distances(topology: Topology, gateway: UUID, members: frozenset[UUID]) -> dict[UUID, int]:
    """How many repositories lie between *gateway* and each of *members* that it proxies for."""
    found: dict[UUID, int] = {}
    for proxied in topology.proxies.get(gateway, ()):
        if proxied.uuid in members:
            distance = proxied.name.count("-")
            found[proxied.uuid] = min(distance, found.get(proxied.uuid, distance))
    return found


# -- what is to be recorded -----------------------------------------------------------------------


def cluster_log(topology: Topology, cluster: UUID) -> frozenset[UUID]:
    """Who is to stand in cluster.log for *cluster*, as the git configuration of this repository has it.

    Its own nodes come and go with the configuration; those of other gateways stay.
    """
    names = {name for name, uuid in topology.names.items() if uuid == cluster}
    own = {near.uuid for near in topology.neighbours if not near.node_of.isdisjoint(names)}
    proxied = {one.uuid: one.name for one in topology.proxies.get(topology.uuid, ())}
    theirs = {
        one.uuid
        for gateway, listed in topology.proxies.items()
        if gateway != topology.uuid and any(one.uuid == cluster for one in listed)
        for one in listed
    }
    ours = {uuid for uuid in proxied if uuid not in theirs}
    known = topology.clusters.get(cluster, frozenset())
    return frozenset(own | {uuid for uuid in known if uuid in own or uuid not in ours})


def proxy_log(topology: Topology) -> frozenset[Proxied]:
    """Whom this repository is to stand for in proxy.log, as its git configuration has it.

    Of the nodes behind another gateway each is named once, in the shortest way. (git-annex records every way
    that it sees, and so a longer one each time where three gateways know each other.)
    """
    found = {Proxied(uuid, name) for name, uuid in topology.names.items()}
    own = {Proxied(near.uuid, near.name) for near in topology.neighbours if near.proxied or near.node_of}
    nearer = {one.uuid for one in own} | {topology.uuid}
    found |= own
    for near in topology.neighbours:
        members: set[UUID] = set()
        for cluster in _gateways_of(topology, near):
            members |= topology.clusters.get(cluster, frozenset())
        names: dict[UUID, str] = {}
        for one in topology.proxies.get(near.uuid, ()):
            if one.uuid in members and one.uuid not in nearer:
                names[one.uuid] = min(names.get(one.uuid, one.name), one.name, key=lambda name: (len(name), name))
        found |= {Proxied(uuid, f"{near.name}-{name}") for uuid, name in names.items()}
    return frozenset(found)
