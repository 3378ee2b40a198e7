"""How the nodes of a cluster are: whom we can reach, how busy they are, what they hold and what they lack."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from anyio import create_task_group, move_on_after

from annexpy.actions.facts import Facts
from annexpy.actions.whereis import whereis_all
from annexpy.errors import AnnexError, TimedOut
from annexpy.logs.paths import Log
from annexpy.logs.repos import MAXSIZES
from annexpy.policy.routes import ClusterRoutes, Route, cluster_routes
from annexpy.remote.connect import connect_route
from annexpy.repo.held import HeldSizes
from annexpy.repo.in_use import InUse
from annexpy.repo.repository import Repository
from annexpy.repo.topology import topology
from annexpy.uuids import UUID

__all__ = ["NodeStatus", "cluster_status"]

_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node, or another gateway, of one cluster.

    Attributes:
        cluster: Name of the cluster.
        uuid: Of the node, or of the gateway.
        name: Of the remote that leads there; "" for a node of cluster.log that no remote leads to.
        description: What people call it.
        gateway: The other gateway that leads there; "" for a node that is reached from here.
        error: Why it could not be reached just now; None when it could.
        seconds: What that took; None when it could not, or was not tried because a gateway lies between.
        in_use: Requests that the processes of this gateway have under way there.
        last_error: What a running server met there last, and when (seconds since 1970).
        keys, size: What it holds by the location log, in keys and bytes.
        maxsize: Bytes that it is to hold at most; None when nothing is said.
        lag: Keys that some node of the cluster has and this one has not.
    """

    cluster: str
    uuid: UUID
    name: str
    description: str
    gateway: str = ""
    error: AnnexError | None = None
    seconds: float | None = None
    in_use: int = 0
    last_error: tuple[str, float] | None = None
    keys: int = 0
    size: int = 0
    maxsize: int | None = None
    lag: int = 0

    @property
    def health(self) -> str:
        """In a word: ok, down, or "behind GATEWAY"."""
        if self.error is not None:
            return "down"
        return "ok" if self.seconds is not None else f"behind {self.gateway}" if self.gateway else "unreachable"


async def cluster_status(repository: Repository, clusters: Iterable[str] = ()) -> list[NodeStatus]:
    """Look at *clusters*, or all that *repository* is a gateway of, and ask each node whether it is there."""
    known, facts = topology(repository), Facts(repository)
    wanted = {name.lower() for name in clusters}
    in_use = InUse(repository.files)
    found: list[NodeStatus] = []
    try:
        for name, uuid in sorted(known.names.items()):
            routes = cluster_routes(known, uuid)
            if routes is not None and (not wanted or name in wanted):
                members = known.clusters.get(uuid, frozenset())
                found += await _Look(repository, facts, in_use, name, routes, members).statuses()
    finally:
        in_use.close()
    return found


class _Look:
    """A look at one cluster."""

    def __init__(
        self,
        repository: Repository,
        facts: Facts,
        in_use: InUse,
        name: str,
        routes: ClusterRoutes,
        members: frozenset[UUID],
    ) -> None:
        self._repository, self._facts, self._in_use = repository, facts, in_use
        self._name, self._routes, self._members = name, routes, members
        self._answers: dict[UUID, tuple[float | None, AnnexError | None]] = {}

    async def statuses(self) -> list[NodeStatus]:
        async with create_task_group() as group:
            for route in self._routes.nodes:
                group.start_soon(self._ask, route, route.uuid, ())
            for relay in self._routes.relays:
                group.start_soon(self._ask, relay.route, relay.route.via.uuid, relay.bypass)
        self._count()
        found = [self._status(route.uuid, route.name) for route in self._routes.nodes]
        for relay in self._routes.relays:
            gateway = relay.route.via
            found.append(self._status(gateway.uuid, gateway.name, lag=False))
            found += [self._status(uuid, gateway.name, gateway.name) for uuid in sorted(relay.nodes)]
        rest = self._members - {one.uuid for one in found}
        return found + [self._status(uuid, "") for uuid in sorted(rest)]

    async def _ask(self, route: Route, uuid: UUID, bypass: tuple[UUID, ...]) -> None:
        clock = self._repository.clock
        began = clock.now()
        try:
            remote = connect_route(route, self._repository, bypass=bypass)
            try:
                with move_on_after(_SECONDS) as scope:
                    await remote.connect()
                if scope.cancelled_caught:
                    raise TimedOut(route.name, "answer", _SECONDS)
            finally:
                await remote.aclose()
            self._answers[uuid] = clock.now() - began, None
        except AnnexError as error:
            self._answers[uuid] = None, error

    def _count(self) -> None:
        """What each node holds and lacks, by the location log."""
        self._held = dict.fromkeys(self._members, 0)
        self._sizes = HeldSizes(self._repository, fresh=0).sizes()
        self._keys = 0
        for found in whereis_all(self._facts):
            have = {location.uuid for location in (*found.locations, *found.untrusted)} & self._members
            self._keys += bool(have)
            for uuid in have:
                self._held[uuid] += 1
        self._maxsizes = MAXSIZES.parse(self._repository.branch.read(Log.MAXSIZE.value))

    def _status(self, uuid: UUID, name: str, gateway: str = "", *, lag: bool = True) -> NodeStatus:
        seconds, error = self._answers.get(uuid, (None, None))
        usage = self._in_use.node(uuid)
        keys = self._held.get(uuid, 0)
        return NodeStatus(
            self._name,
            uuid,
            name,
            self._facts.descriptions.get(uuid, ""),
            gateway,
            error,
            seconds,
            usage.others(),
            usage.last_error(),
            keys,
            self._sizes.get(uuid, 0),
            self._maxsizes.get(uuid),
            self._keys - keys if lag else 0,
        )
