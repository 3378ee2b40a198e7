"""What a registrar enters into the dataset besides the location log: attestations, and the nodes that they change."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from anyio import to_thread

import annexpy as annex
from glimmer_store.attest import Attestation, Attestations, Verdict, log_parts, reader
from glimmer_store.bids import read_node
from glimmer_store.config import CONFIG_NAME
from glimmer_store.enter import Entering
from glimmer_store.entry import Entry, Part, changes
from glimmer_store.errors import StoreError
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.receipts import Receipts, fold, rank
from glimmer_store.record import Location, StorageRecord
from glimmer_store.status import STALE

if TYPE_CHECKING:
    from glimmer_store.graph import GlimmerGraph, GlimmerNode

__all__ = ["Dataset"]

log = logging.getLogger(__name__)


class Dataset:
    """The dataset of a job. Made by ``open``.

    Attributes:
        behind: Durable remote → why it does not have the history.
    """

    def __init__(self, repository: annex.Repository, graph: GlimmerGraph | None) -> None:
        self._repository, self._graph = repository, graph
        self._entering = None
        if graph is None and repository.work_tree is not None:
            self._entering = Entering(repository, "", ())
        self.behind: dict[str, str] = {}

    @classmethod
    async def open(cls, repository: annex.Repository, stack: AsyncExitStack) -> Dataset:
        """That of *repository*, with its graph where it has one."""
        if not (Path(repository.path) / CONFIG_NAME).exists():
            return cls(repository, None)
        from glimmer_store.graph import GlimmerGraph

        return cls(repository, await stack.enter_async_context(GlimmerGraph.open(repository.path)))

    async def enter(self, title: str, receipts: Collection[Receipts], nodes: Collection[str], ledger: Ledger) -> int:
        """Commit attestations that are not there yet, and bring nodes up to date, and the git-annex branch.

        Args:
            title: Of the commit.
            receipts: Lines.
            nodes: Ids of those whose keys they are about.
            ledger: Of the job, for who signed.

        Returns:
            How many nodes changed.
        """
        changed = [] if self._graph is None or not nodes else _node_parts(self._graph, nodes, receipts)
        publics = ledger.public_keys()
        if self._graph is not None:
            parts = [*log_parts(receipts, publics, reader(self._graph.root)), *changed]
            if parts:
                self.behind = dict((await self._graph.enter(title, parts)).behind)
        elif self._entering is not None:
            parts = log_parts(receipts, publics, reader(Path(self._repository.path)))
            if parts:
                await self._entering.enter(Entry(title, tuple(parts)))
        elif receipts:
            await to_thread.run_sync(_enter_beside, self._repository, title, receipts, publics)
        await self._repository.branch.commit()
        return len(changed)


def _enter_beside(
    repository: annex.Repository, title: str, receipts: Iterable[Receipts], publics: Mapping[str, bytes]
) -> None:
    """Enter attestations into a bare repository, from where a sync brings them to its clones.

    One without a history of its own has no log to enter them into: they stay in the ledger.
    """
    branch = annex.SyncedBranch(repository)
    try:
        if branch.branch is not None:
            parts = log_parts(receipts, publics, branch.read)
            branch.commit(changes([Entry(title, tuple(parts))]), title)
    finally:
        branch.close()


def _node_parts(graph: GlimmerGraph, ids: Collection[str], receipts: Iterable[Receipts]) -> list[Part]:
    """The files of the nodes that are to say something else than they do."""
    known = _Known(graph.root, receipts)
    places = [Location(place.name, place.uuid) for place, _ in graph.archive.remotes]
    now = datetime.now(UTC)
    parts = []
    for node in graph.named(ids):
        try:
            record = _record(graph.root, node, places, known, now)
            if record is None:
                continue
            before = read_node(graph.root / node.file)
            after = before.with_fields(record.to_fields())
        except StoreError as error:
            log.warning("%s: not brought up to date: %s", node.file, error)
            continue
        if after.raw != before.raw:
            after = after.with_fields({"modified": now.isoformat(timespec="seconds")})
            path = (graph.root / node.file).relative_to(graph.root)
            parts.append(Part(os.fsencode(path), "whole", after.raw, before.raw))
    return parts


def _record(
    root: Path, node: GlimmerNode, places: Iterable[Location], known: _Known, now: datetime
) -> StorageRecord | None:
    """What the attestations make of a node; None: it was never archived.

    A durable repository is named when all keys were found good there, and is not when one was found otherwise.
    Where nothing was found it stays as it is.
    """
    from glimmer_store.verify import keys_of

    if node.record is None or node.key is None:
        return None
    keys = keys_of(root, node)
    stored = {place.uuid: place for place in node.record.stored_at}
    durable = {place.uuid: place for place in places}
    proven = True
    for place in (stored | durable).values():
        found = [known.newest(key).get(place.uuid) for key in keys]
        if any(one is not None and one.verdict is not Verdict.GOOD for one in found):
            stored.pop(place.uuid, None)
        elif None not in found and place.uuid in durable:
            stored[place.uuid] = place
        if place.uuid in stored and place.uuid in durable:
            proven &= all(one is not None and _is_fresh(one, now) for one in found) or (
                node.record.verified and place.uuid in {before.uuid for before in node.record.stored_at}
            )
    proven &= stored.keys() <= durable.keys() or node.record.verified
    return replace(node.record, stored_at=tuple(sorted(stored.values())), verified=bool(stored) and proven)


def _is_fresh(one: Attestation, now: datetime) -> bool:
    """It proves a copy now, and not only that somebody received it."""
    return one.verdict is Verdict.GOOD and one.method != "stream" and now - datetime.fromisoformat(one.time) <= STALE


class _Known:
    """What the dataset knows of keys, with what is about to be entered."""

    def __init__(self, root: Path, receipts: Iterable[Receipts]) -> None:
        self._log = Attestations(root)
        self._fresh: dict[str, dict[str, Attestation]] = {}
        for (key, uuid), one in fold(one for some in receipts for one in some.attestations).items():
            self._fresh.setdefault(key, {})[uuid] = one

    def newest(self, key: annex.Key) -> dict[str, Attestation]:
        known, fresh = self._log.newest(key), self._fresh.get(str(key), {})
        return {uuid: max((d[uuid] for d in (known, fresh) if uuid in d), key=rank) for uuid in (*known, *fresh)}
