"""What attestations make of nodes: where their copies are, and whether all of them are proven."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import annexpy as annex
from glimmer_store.attest import Attestation, Attestations, Verdict
from glimmer_store.bids import read_node
from glimmer_store.entry import Part
from glimmer_store.errors import StoreError
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.manifest.standing import AHEAD
from glimmer_store.receipts import Receipts, fold, rank
from glimmer_store.record import Location, StorageRecord
from glimmer_store.status import STALE
from glimmer_store.verify import keys_of

__all__ = ["node_parts"]

log = logging.getLogger(__name__)


def node_parts(graph: GlimmerGraph, ids: Collection[str], receipts: Iterable[Receipts]) -> list[Part]:
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
    age = now - datetime.fromisoformat(one.time)
    return one.verdict is Verdict.GOOD and one.method != "stream" and -AHEAD <= age <= STALE


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
