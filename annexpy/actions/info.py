"""Info: who a repository or a remote is, what is known of it, and how much it holds by the location log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from annexpy.actions.facts import Facts
from annexpy.actions.whereis import Location, whereis_all
from annexpy.errors import AnnexError
from annexpy.logs.repos import TrustLevel
from annexpy.policy.numcopies import Copies
from annexpy.remote.base import Connects, HasNodes, Remote
from annexpy.repo.repository import Repository
from annexpy.repo.settings import ContentSettings
from annexpy.repo.transfers import InProgress, transfers_in_progress
from annexpy.uuids import UUID, is_cluster

__all__ = ["Held", "Info", "RemoteInfo", "info", "info_of_remote"]


@dataclass(frozen=True, slots=True)
class Held:
    """How much a repository holds according to the location log.

    Attributes:
        keys: How many keys.
        size: Bytes of those that tell their size.
    """

    keys: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True)
class Info:
    """What a repository says about itself and the others.

    Attributes:
        uuid: Its own.
        path: Where it is.
        bare: No work tree.
        version: ``annex.version``.
        copies: How many copies of a key without a file must stay.
        by_trust: Trust level → repositories, sorted by UUID; dead ones are left out.
        free: Bytes that may still be written to its disk.
        reserve: Bytes that are kept free (``annex.diskreserve``).
        here: What it holds itself; None when not counted.
        sizes: What each repository holds, the largest first.
        transfers: What is on its way now, from it or to it.
    """

    uuid: UUID
    path: str
    bare: bool
    version: int
    copies: Copies
    by_trust: Mapping[TrustLevel, tuple[Location, ...]]
    free: int
    reserve: int
    here: Held | None = None
    sizes: tuple[tuple[Location, Held], ...] = field(default=())
    transfers: tuple[InProgress, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class RemoteInfo:
    """What is known of a remote.

    Attributes:
        name: As the user wrote it.
        cost: git-annex's cost.
        location: Which repository; None when it was never met and cannot be asked.
        nodes: Those of a cluster, by their names.
        problem: Why it cannot be reached; None when it answered.
        held: What it holds according to the location log; None when not counted.
    """

    name: str
    cost: int
    location: Location | None
    nodes: tuple[str, ...] = ()
    problem: AnnexError | None = None
    held: Held | None = None


def info(repository: Repository, *, count: bool = True) -> Info:
    """Look at *repository*. Nothing but the branch and the configuration is read.

    Args:
        repository: Open.
        count: Read every location log, which takes 10 µs for each key.
    """
    facts = Facts(repository)
    known = sorted({*facts.descriptions, *facts.trust, repository.uuid})
    places = {uuid: _location(facts, uuid) for uuid in known if not is_cluster(uuid)}
    levels = (TrustLevel.TRUSTED, TrustLevel.SEMITRUSTED, TrustLevel.UNTRUSTED)
    by_trust = {level: tuple(one for one in places.values() if one.trust is level) for level in levels}
    held: dict[UUID, Held] = {}
    if count:
        for found in whereis_all(facts):
            for location in (*found.locations, *found.untrusted):
                before = held.get(location.uuid, Held())
                held[location.uuid] = Held(before.keys + 1, before.size + (found.key.size or 0))
    sizes = [(places.get(uuid) or _location(facts, uuid), held[uuid]) for uuid in held if not is_cluster(uuid)]
    return Info(
        repository.uuid,
        repository.path,
        repository.bare,
        repository.version,
        facts.general_copies,
        by_trust,
        repository.files.free(),
        ContentSettings.of(repository.config, bare=repository.bare).reserve,
        held.get(repository.uuid, Held()) if count else None,
        tuple(sorted(sizes, key=lambda item: (-item[1].size, item[0].uuid))),
        tuple(transfers_in_progress(repository.files)),
    )


async def info_of_remote(remote: Remote, *, facts: Facts | None = None, count: bool = True) -> RemoteInfo:
    """Look at *remote*: it is connected to, or asked for its UUID, and nothing else.

    Args:
        remote: Any. One that is away is described as far as it is known.
        facts: What a repository knows of it.
        count: Read every location log, where there are *facts*.
    """
    problem = None
    try:
        if isinstance(remote, Connects):
            await remote.connect()
    except AnnexError as error:
        problem = error
    nodes = remote.nodes if isinstance(remote, HasNodes) else ()
    uuids = {uuid for one in (remote, *nodes) if (uuid := _uuid_of(one)) is not None}
    uuid = _uuid_of(remote)
    location = None if uuid is None else Location(uuid, "") if facts is None else _location(facts, uuid)
    held = _held_by(facts, uuids) if facts is not None and count and uuids else None
    return RemoteInfo(remote.name, remote.cost, location, tuple(node.name for node in nodes), problem, held)


def _uuid_of(remote: Remote) -> UUID | None:
    try:
        return remote.uuid
    except AnnexError:
        return None


def _held_by(facts: Facts, uuids: Collection[UUID]) -> Held:
    """What at least one of *uuids* holds."""
    keys = size = 0
    for found in whereis_all(facts):
        if any(location.uuid in uuids for location in (*found.locations, *found.untrusted)):
            keys, size = keys + 1, size + (found.key.size or 0)
    return Held(keys, size)


def _location(facts: Facts, uuid: UUID) -> Location:
    return Location(uuid, facts.description(uuid), uuid == facts.repository.uuid, facts.trust_of(uuid))
