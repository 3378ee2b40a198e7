"""Set up clusters and proxies: the git configuration, and what proxy.log and cluster.log have to say of it.

What is recorded is what ``git annex updatecluster`` and ``updateproxy`` would record, so that the one finds nothing
to change after the other.

Source: fact sheets p2p-protocol, section 5, and repository-format, section 5; git-annex 10.20261026, by running it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from annexpy.errors import InvalidInput, UnknownUUID
from annexpy.logs.line import whole_seconds
from annexpy.logs.paths import Log
from annexpy.logs.repos import CLUSTERS, DESCRIPTIONS, PROXIES, Proxied
from annexpy.patterns import regex
from annexpy.policy.routes import cluster_log, proxy_log
from annexpy.remote.connect import connect
from annexpy.remote.local_place import LocalPlace
from annexpy.repo.repository import Repository
from annexpy.repo.topology import cluster_names, topology
from annexpy.system import new_uuid
from annexpy.uuids import UUID, is_cluster, new_cluster_uuid

__all__ = ["Changes", "add_nodes", "extend", "init", "remove_nodes", "update"]

_NAME: Final = regex(r"(?:[a-z0-9][a-z0-9-]*\.)*[a-z][a-z0-9-]*")
"""What can be the name of a git remote as well as that of a setting, which git reads in lower case."""


@dataclass(frozen=True, slots=True)
class Changes:
    """What was recorded anew.

    Attributes:
        added, removed: (cluster, UUID) of nodes.
        started, stopped: Whom the repository is, and is no longer, a proxy for.
    """

    added: tuple[tuple[str, UUID], ...] = ()
    removed: tuple[tuple[str, UUID], ...] = ()
    started: tuple[Proxied, ...] = ()
    stopped: tuple[Proxied, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.started or self.stopped)


async def init(repository: Repository, name: str) -> UUID:
    """Make *repository* the gateway of a new cluster, without nodes so far; its UUID. One that is there stays.

    Raises:
        InvalidInput: *name* cannot be one.
    """
    lower = name.lower()
    if not _NAME.fullmatch(lower) or lower in repository.config.remotes():
        raise InvalidInput("cluster", name, "letters, digits and dashes, a letter first, and not that of a git remote")
    uuid = cluster_names(repository.config).get(lower)
    if uuid is None:
        uuid = new_cluster_uuid(new_uuid())
        repository.config.set(f"annex.cluster.{lower}", uuid)
    await _describe(repository, uuid, f"cluster {name}")
    return uuid


async def _describe(repository: Repository, uuid: UUID, description: str) -> None:
    branch = repository.branch
    if DESCRIPTIONS.parse(branch.read(Log.UUID.value)).get(uuid):
        return
    now = whole_seconds(repository.clock.wall())
    branch.change(Log.UUID.value, lambda content: DESCRIPTIONS.set(content, uuid, description, now))
    await branch.commit()


async def add_nodes(repository: Repository, cluster: str, remotes: Iterable[str]) -> Changes:
    """Make git remotes nodes of a cluster.

    Raises:
        InvalidInput: There is no such cluster, or no such remote.
    """
    _own(repository, cluster)
    for remote in remotes:
        _check_remote(repository, remote)
        names = _nodes_of(repository, remote)
        if cluster.lower() not in names:
            repository.config.set(f"remote.{remote}.annex-cluster-node", " ".join([*names, cluster.lower()]))
    return await update(repository)


async def remove_nodes(repository: Repository, cluster: str, remotes: Iterable[str]) -> Changes:
    """Take nodes out of a cluster, also where another gateway still leads to them. Their contents stay.

    Raises:
        InvalidInput: There is no such cluster, or a remote is no node of it.
    """
    uuid, gone = _own(repository, cluster), set[UUID]()
    for remote in remotes:
        names = _nodes_of(repository, remote)
        left = [name for name in names if name != cluster.lower()]
        if len(left) == len(names):
            raise InvalidInput("remote", remote, f"a node of the cluster {cluster}")
        found = _uuid_of(repository, remote)
        if found is not None:
            gone.add(found)
        setting = f"remote.{remote}.annex-cluster-node"
        repository.config.change({setting: " ".join(left) or None})
    return await update(repository, gone={uuid: frozenset(gone)})


async def extend(repository: Repository, gateway: str, cluster: str) -> Changes:
    """Make *repository* one more gateway of a cluster that the git remote *gateway* is a gateway of.

    To reach the nodes of this repository through *gateway* as well, run it there with the name of this one.

    Raises:
        InvalidInput: There is no such remote.
        UnknownUUID: Nothing is known here of such a cluster there; ``sync`` with it first.
    """
    _check_remote(repository, gateway)
    known = topology(repository)
    there = _uuid_of(repository, gateway)
    found = [
        one.uuid
        for one in known.proxies.get(there or UUID(""), ())
        if one.name == cluster.lower() and is_cluster(one.uuid)
    ]
    if not found:
        raise UnknownUUID(f"{gateway}: no cluster {cluster} there, as far as is known here; run annexpy sync {gateway}")
    uuid = found[0]
    if known.names.get(cluster.lower(), uuid) != uuid:
        raise InvalidInput("cluster", cluster, f"another one here: {known.names[cluster.lower()]}")
    gateways = (repository.config.get(f"remote.{gateway}.annex-cluster-gateway") or "").split()
    repository.config.change(
        {
            f"annex.cluster.{cluster.lower()}": uuid,
            f"remote.{gateway}.annex-cluster-gateway": " ".join([*gateways, *({uuid} - {*gateways})]),
        }
    )
    return await update(repository)


async def update(repository: Repository, *, gone: dict[UUID, frozenset[UUID]] | None = None) -> Changes:
    """Record in cluster.log and proxy.log what the git configuration says.

    Args:
        repository: The gateway.
        gone: Cluster → nodes that are out whatever others say.
    """
    _meet_neighbours(repository)
    known, branch = topology(repository), repository.branch
    now = whole_seconds(repository.clock.wall())
    added: list[tuple[str, UUID]] = []
    removed: list[tuple[str, UUID]] = []
    nodes: dict[UUID, frozenset[UUID]] = {}
    for name, uuid in sorted(known.names.items()):
        before = known.clusters.get(uuid, frozenset())
        after = cluster_log(known, uuid) - (gone or {}).get(uuid, frozenset())
        if before != after:
            added += [(name, node) for node in sorted(after - before)]
            removed += [(name, node) for node in sorted(before - after)]
            nodes[uuid] = after
    proxied = proxy_log(replace(known, clusters={**known.clusters, **nodes}))
    until_now = known.proxies.get(known.uuid, frozenset())

    def clusters(content: bytes) -> bytes:
        for uuid, after in nodes.items():
            content = CLUSTERS.set(content, uuid, after, now)
        return content

    if nodes:
        branch.change(Log.CLUSTER.value, clusters)
    if proxied != until_now:
        branch.change(Log.PROXY.value, lambda content: PROXIES.set(content, known.uuid, proxied, now))
    await branch.commit()
    started, stopped = sorted(proxied - until_now), sorted(until_now - proxied)
    return Changes(tuple(added), tuple(removed), tuple(started), tuple(stopped))


# -- remotes --------------------------------------------------------------------------------------


def _own(repository: Repository, cluster: str) -> UUID:
    uuid = cluster_names(repository.config).get(cluster.lower())
    if uuid is None:
        raise InvalidInput(
            "cluster", cluster, "one that this repository is a gateway of; annexpy cluster init makes one"
        )
    return uuid


def _nodes_of(repository: Repository, remote: str) -> list[str]:
    return (repository.config.get(f"remote.{remote}.annex-cluster-node") or "").split()


def _check_remote(repository: Repository, remote: str) -> None:
    if _uuid_of(repository, remote) is None:
        reason = "a git remote that is a git-annex repository, and known: annexpy sync meets it"
        raise InvalidInput("remote", remote, reason)


def _uuid_of(repository: Repository, remote: str) -> UUID | None:
    _meet_neighbours(repository, remote)
    return next((near.uuid for near in topology(repository).neighbours if near.name == remote), None)


def _meet_neighbours(repository: Repository, only: str | None = None) -> None:
    """Write down which repositories the git remotes on this machine are, as git-annex does when it meets one."""
    for remote in repository.config.remotes().values():
        if remote.uuid is None and remote.url is not None and not remote.ignore and only in (None, remote.name):
            try:
                found = connect(remote.name, repository=repository)
                if isinstance(found, LocalPlace):
                    repository.config.set(f"remote.{remote.name}.annex-uuid", found.uuid)
            except (UnknownUUID, InvalidInput):
                continue  # it is away, or of a kind that we do not reach; git-annex would skip it as well
