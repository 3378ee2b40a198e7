"""What a repository knows of proxies and clusters: its git configuration, and proxy.log and cluster.log."""

from __future__ import annotations

from annexpy.errors import InvalidInput, InvalidUUID
from annexpy.logs.paths import Log
from annexpy.logs.repos import PROXIES, clusters
from annexpy.policy.routes import Neighbour, Topology
from annexpy.repo.config import GitConfig
from annexpy.repo.gitremote import RemoteConfig
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, is_cluster, parse_uuid

__all__ = ["cluster_names", "neighbour", "topology"]

_CLUSTER: str = "annex.cluster."


def topology(repository: Repository) -> Topology:
    """What *repository* knows now. Settings that do not parse count as not there, as do remotes of unknown UUID."""
    config, branch = repository.config, repository.branch
    found = [neighbour(remote) for remote in config.remotes().values() if not remote.ignore]
    return Topology(
        repository.uuid,
        tuple(one for one in found if one.uuid),
        PROXIES.parse(branch.read(Log.PROXY.value)),
        clusters(branch.read(Log.CLUSTER.value)),
        cluster_names(config),
    )


def cluster_names(config: GitConfig) -> dict[str, UUID]:
    """``annex.cluster.NAME``: the clusters that the repository is a gateway of."""
    named = {name.removeprefix(_CLUSTER): uuid for name, uuid in config.items(_CLUSTER)}
    return {name: UUID(uuid) for name, uuid in named.items() if is_cluster(uuid)}


def neighbour(remote: RemoteConfig) -> Neighbour:
    """*remote* as routes are worked out from it; with an empty UUID where that is not known."""
    try:
        cost = remote.cost
    except InvalidInput:
        cost = None
    gateways = (remote.get("annex-cluster-gateway") or "").split()
    return Neighbour(
        remote.name,
        _uuid(remote),
        _usual_cost(remote) if cost is None else cost,
        remote.proxy,
        frozenset(remote.cluster_node),
        frozenset(UUID(uuid) for uuid in gateways if is_cluster(uuid)),
    )


def _uuid(remote: RemoteConfig) -> UUID:
    try:
        return parse_uuid(remote.uuid or "")
    except InvalidUUID:
        return UUID("")


def _usual_cost(remote: RemoteConfig) -> int:
    url = remote.url or ""
    return 100 if url.startswith(("/", ".", "~", "file:")) else 200
