"""A gateway: shows, besides its own repository, the nodes that it is a proxy for and the clusters it is a gateway of.

::

    proxied node   Recording(LocalPlace | Lone(P2PRemote | …))
    cluster        Recording(Cluster([node, node, Relayed(the same cluster at another gateway)]))

Everything is made from proxy.log, cluster.log and the git configuration, when it is first asked for, and made
anew when those change. Nodes are opened lazily and kept.

Where two gateways lead to the same node, the one that is asked decides who is to reach it, and tells the other
one (BYPASS), so that every node is asked once and no request comes back.

Source: fact sheet p2p-protocol, section 5.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeAlias

from anyio import CancelScope

from annexpy.errors import AnnexError, InvalidInput, Refused, UnknownUUID
from annexpy.keys.key import Key
from annexpy.logs.paths import Log
from annexpy.policy.routes import ClusterRoutes, Relay, Route, Topology, cluster_routes, proxied_route
from annexpy.remote.base import Remote, Stored
from annexpy.remote.cluster import Cluster, Place, Select
from annexpy.remote.connect import Connected, connect_route
from annexpy.remote.health import Node, Usage
from annexpy.remote.late_copies import LateCopies
from annexpy.remote.local import Local
from annexpy.remote.local_place import LocalPlace
from annexpy.remote.lone_node import Lone
from annexpy.remote.other_gateway import Relayed, patience
from annexpy.remote.quota import WithinQuota, quota_of
from annexpy.remote.recording import Recording, record
from annexpy.remote.wrappers import ReadOnly
from annexpy.repo.in_use import InUse
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.repo.topology import topology
from annexpy.server.current import Current
from annexpy.server.kept_locks import Keeping, KeptLocks
from annexpy.server.node_choice import Placing
from annexpy.uuids import UUID

if TYPE_CHECKING:
    from annexpy.repo.read_cache import ReadCache
    from annexpy.server.tell_gateways import Teller

__all__ = ["Gateway"]

log = logging.getLogger(__name__)

DEADLINE: Final = 5.0
"""Seconds without progress after which a node counts as dead; ``annexpy.deadline`` sets it."""
_LOOK: Final = 0.25
"""Seconds between two looks at the configuration and the branch."""

_Asked: TypeAlias = tuple[UUID, tuple[UUID, ...]]


class Gateway:
    """What can be asked for at one repository, by UUID.

    Use as a context manager: it owns the nodes, and copies that are finished after their put was answered.

    Attributes:
        repository: The gateway's own. Closing it is its owner's business.
        placing: Where what is put into a cluster goes.
    """

    def __init__(self, repository: Repository, *, durability: Durability = "full", client: UUID | None = None) -> None:
        """Show what *repository* is a gateway for.

        Args:
            repository: Whose configuration and branch say what.
            durability: As for ``Local``, for nodes on this machine.
            client: Who is served, where that is always the same.
        """
        self.repository = repository
        self._durability: Durability = durability
        self._client = client
        self._in_use = InUse(repository.files)
        self._own: Local | None = None
        self._within: WithinQuota | None = None
        self._opened: dict[object, Remote] = {}
        self._clusters: dict[UUID, Cluster] = {}
        self._made: dict[_Asked, Remote] = {}
        self._looked = float("-inf")
        self._stamp: tuple[object, ...] = ()
        self._topology: Topology | None = None
        self._teller: Teller | None = None
        self._late = LateCopies(self._arrived)
        self._kept = KeptLocks(repository.clock)
        self.placing = Placing(repository)
        self._cache: ReadCache | None = None

    @property
    def uuid(self) -> UUID:
        """Of the gateway's own repository."""
        return self.repository.uuid

    # -- what there is ----------------------------------------------------------------------------

    def knows(self, uuid: UUID) -> bool:
        """It can be asked for: the repository itself, a node that it is a proxy for, or a cluster."""
        if uuid == self.uuid:
            return True
        known = self.topology()
        return uuid in known.names.values() or proxied_route(known, uuid) is not None

    def uuids(self) -> tuple[UUID, ...]:
        """Everything that proxy.log says can be asked for, and can; its own first."""
        listed = sorted({one.uuid for one in self.topology().proxies.get(self.uuid, ())})
        clusters = [uuid for uuid in self.topology().names.values() if uuid not in listed]
        return (self.uuid, *filter(self.knows, [*listed, *clusters]))

    async def remote(self, uuid: UUID, bypass: tuple[UUID, ...] = ()) -> Remote | None:
        """What has this UUID here, or None. It stays good when the configuration changes, as long as that has it.

        Args:
            uuid: The repository itself, a node that it is a proxy for, or a cluster.
            bypass: Whom a cluster is to leave out.
        """
        return self.shown(uuid, bypass) if self.knows(uuid) else None

    def shown(self, uuid: UUID, bypass: tuple[UUID, ...] = ()) -> Remote:
        """As ``remote``, of something that it *knows*; ``bypassing`` for ``serve``."""
        return self._local() if uuid == self.uuid else Current(self, uuid, bypass)

    def bypassing(self, uuid: UUID) -> Callable[[tuple[UUID, ...]], Remote]:
        """For ``serve``: what to show of *uuid* once a client has said BYPASS."""
        return partial(self.shown, uuid)

    def cluster(self, uuid: UUID) -> Cluster | None:
        """The cluster with this UUID, to look at its nodes."""
        self.now(uuid, ())
        return self._clusters.get(uuid)

    def records(self, uuid: UUID, key: Key) -> bool:
        """Somebody in this cluster is recorded to have *key*; True also of what is no cluster."""
        members = self.topology().clusters.get(uuid)
        return members is None or not members.isdisjoint(self.repository.branch.locations(key).present)

    def cache_of(self, uuid: UUID) -> ReadCache | None:
        """Where what is read from a cluster is kept for the next one: ``annexpy.read-cache``, a size. Never of a node:
        who reads that wants to know what it has (``git annex fsck --from``).
        """
        if uuid not in self.topology().clusters or not self.repository.writable:
            return None
        try:
            limit = self.repository.config.get_size("annexpy.read-cache") or 0
        except InvalidInput:
            limit = 0
        if not limit:
            return None
        if self._cache is None or self._cache.limit != limit:
            from annexpy.repo.read_cache import ReadCache

            self._cache = ReadCache(self.repository, limit)
        return self._cache

    def is_near(self, uuid: UUID) -> bool:
        """A repository on this machine, that is open here."""
        return any(place.uuid == uuid for place in self._places())

    def topology(self) -> Topology:
        """What is known of proxies and clusters, a quarter of a second old at most."""
        now = self.repository.clock.now()
        if self._topology is None or now - self._looked >= _LOOK:
            self._looked = now
            self._look()
        assert self._topology is not None
        return self._topology

    def _look(self) -> None:
        changed = self.repository.config.refresh()
        branch = self.repository.branch
        stamp = (branch.tip, branch.read(Log.PROXY.value), branch.read(Log.CLUSTER.value))
        if self._topology is None or changed or stamp != self._stamp:
            self._stamp = stamp
            found = topology(self.repository)
            if changed or found != self._topology:
                if self._topology is not None:
                    log.info("%s: the configuration of proxies or clusters has changed", self.repository.path)
                self._topology = found
                self._made.clear()

    # -- making it --------------------------------------------------------------------------------

    def now(self, uuid: UUID, bypass: tuple[UUID, ...]) -> Remote:
        """What *uuid* is at this moment; ``shown`` stays good for longer."""
        known = self.topology()
        found = self._made.get((uuid, bypass))
        if found is None:
            found = self._made[uuid, bypass] = Recording(self._make(known, uuid, bypass), self.repository.branch)
        return found

    def _make(self, known: Topology, uuid: UUID, bypass: tuple[UUID, ...]) -> Remote:
        routes = cluster_routes(known, uuid, frozenset(bypass))
        if routes is not None:
            return self._cluster(routes, bypass)
        route = proxied_route(known, uuid)
        if route is None:
            raise UnknownUUID(f"{self.repository.path}: {uuid} is no longer proxied for")
        node = self._open(route)
        if isinstance(node, LocalPlace):
            return node
        return Lone(node, self.repository.clock, self.deadline, self._in_use.node(node.uuid))

    def _cluster(self, routes: ClusterRoutes, bypass: tuple[UUID, ...]) -> Cluster:
        nodes: list[Remote] = []
        ways: tuple[Route | Relay, ...] = (*routes.nodes, *routes.relays)
        for way in ways:
            try:
                nodes.append(self._relay(way) if isinstance(way, Relay) else self._open(way))
            except (InvalidInput, Refused) as error:  # such an address cannot be used; the others can
                log.warning("cluster %s: %s", routes.name, error)
        first = self._clusters.get(routes.uuid)
        if first is None or not bypass:
            cluster = self._new_cluster(routes, nodes) if first is None else first.of(nodes)
            self._clusters[routes.uuid] = cluster
            return cluster
        return first.of(nodes)

    def _new_cluster(self, routes: ClusterRoutes, nodes: list[Remote]) -> Cluster:
        select: Select = self.placing.likely
        place: Place = self.placing.place
        return Cluster(
            nodes,
            uuid=routes.uuid,
            name=routes.name,
            clock=self.repository.clock,
            select=select,
            place=place,
            usage=self._usage,
            deadline=self.deadline,
            transfers=64,
            min_copies=self.repository.config.get_int("annexpy.min-copies"),
            late=self._late,
        )

    @property
    def deadline(self) -> float:
        """Seconds without progress after which a node counts as dead."""
        try:
            return float(self.repository.config.get("annexpy.deadline") or DEADLINE)
        except ValueError:
            return DEADLINE

    def _usage(self, remote: Remote) -> Usage:
        return self._in_use.node(remote.place if isinstance(remote, Relayed) else remote.uuid)

    def _arrived(self, key: Key, stored: Stored) -> None:
        record(self.repository.branch, key, stored.copies, present=True)

    def _open(self, route: Route, bypass: tuple[UUID, ...] = ()) -> Remote:
        """The remote at the end of *route*, kept."""
        settings = self.repository.config.remotes().get(route.via.name)
        at = (route, bypass, None if settings is None else tuple(sorted(settings.fields.items())))
        found = self._opened.get(at)
        if found is None:
            opened: Connected = connect_route(
                route,
                self.repository,
                durability=self._durability,
                clock=self.repository.clock,
                bypass=bypass,
                connections=self._connections(),
            )
            found = opened if isinstance(opened, LocalPlace) else Keeping(opened, self._kept)
            if settings is not None and settings.readonly:
                found = ReadOnly(found)
            self._opened[at] = found
        return found

    def _connections(self) -> int | None:
        """``annex.jobs``, of the transfers to a node."""
        try:
            jobs = self.repository.config.get_int("annex.jobs")
        except InvalidInput:  # "cpus"
            return None
        return None if jobs is None else max(2, min(jobs, 16))

    def _relay(self, relay: Relay) -> Remote:
        at = relay
        found = self._opened.get(at)
        if found is None:
            remote = self._open(relay.route, relay.bypass)
            seconds = patience(self.deadline, relay.depth)
            node = partial(self._behind, relay)
            found = self._opened[at] = Relayed(remote, relay.route.via.uuid, relay.nodes, seconds, node)
        return found

    def _behind(self, relay: Relay, uuid: UUID) -> Remote:
        """One node behind another gateway."""
        gateway = relay.route.via
        return self._open(Route(f"{gateway.name}-{uuid}", gateway, uuid, relay.route.hops))

    def _local(self) -> Remote:
        if self._own is None:
            self._own = Local(self.repository, durability=self._durability, client=self._client, commit=False)
        if self._within is None and self._quota() is not None:
            self._within = WithinQuota(self._own, self._quota)
        return self._own if self._within is None else self._within

    def _quota(self) -> int | None:
        return quota_of(self.repository)

    # -- the end ----------------------------------------------------------------------------------

    async def linger(self) -> None:
        """Wait for copies that are still owed to nodes with a wrong partial, and for locks whose client has vanished.

        Ten minutes at most for each.
        """
        if await self._late.made_up():
            await self.commit()
        await self._kept.linger()

    async def settle(self, keys: Iterable[Key]) -> None:
        """*keys* are about to be removed somewhere: what is still on its way must not come after that."""
        await self._late.settle(keys)

    async def commit(self) -> None:
        """Bring what was recorded into the branches of the gateway and of its nodes on this machine."""
        changed = await self.repository.branch.commit()
        for remote in self._places():
            try:
                await remote.local.repository.branch.commit()
            except AnnexError as error:
                log.warning("%s: %s", remote.name, error)
        if changed:
            self._tell()

    def _tell(self) -> None:
        """Have other gateways of the same clusters hear of what was recorded."""
        if any(near.gateway_of for near in self.topology().neighbours):
            if self._teller is None:
                from annexpy.server.tell_gateways import Teller  # only where there is somebody to tell

                self._teller = Teller(self.repository)
            self._teller.tell(self.topology())

    def _places(self) -> list[LocalPlace]:
        inner = [remote.remote if isinstance(remote, ReadOnly) else remote for remote in self._opened.values()]
        return [remote for remote in inner if isinstance(remote, LocalPlace) and remote.is_open]

    def standing(self, uuid: UUID) -> tuple[Node, ...]:
        """What is known here of each node of a cluster."""
        cluster = self.cluster(uuid)
        return () if cluster is None else cluster.standing

    async def __aenter__(self) -> Self:
        await self._late.__aenter__()
        await self._kept.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            try:
                await self._kept.__aexit__(kind, error, trace)
            finally:  # whatever came of the locks, as a cancellation: both own tasks
                await self._late.__aexit__(kind, error, trace)
        finally:
            with CancelScope(shield=True):
                await self.aclose()

    async def aclose(self) -> None:
        """Close every node, and commit what was recorded."""
        opened, self._opened = [*self._opened.values()], {}
        self._made.clear()
        self._clusters.clear()
        for remote in (*opened, *((self._own,) if self._own is not None else ())):
            try:
                await remote.aclose()
            except AnnexError as failed:
                log.warning("%s: %s", remote.name, failed)
        self._own = self._within = None
        self._in_use.close()
        self.placing.close()
        if await self.repository.branch.commit():
            self._tell()
        if self._teller is not None:
            self._teller.forget()
