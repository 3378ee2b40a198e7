"""Read recorded copies again, sign what is found, bring the nodes up to date, and replace what went bad.

A copy that was read and is right is attested as good; one that is wrong or gone is attested as such, which voids
its older proofs, and the location log learns that it is no copy. A remote that cannot be asked proves nothing:
its recorded copies stay in the node, which is no longer ``verified`` then.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import annexpy as annex
from glimmer_store.archive import is_here
from glimmer_store.attest import Attestation, Verdict
from glimmer_store.bids import read_node
from glimmer_store.config import Durable
from glimmer_store.errors import SidecarError
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.nodes import NodeFile
from glimmer_store.record import Location
from glimmer_store.tree import Tree, list_path

__all__ = ["Verified", "keys_of", "verify"]

_RIGHT = ("good", "repaired")
_TOGETHER = 64
"""Nodes that share a commit."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found of one node.

    Attributes:
        node: As it is now.
        found: Durable remote → ``good``, ``bad``, ``missing``, ``unreachable``, or ``repaired``: it was bad or
            missing, and was proven good after that.
        reasons: Durable remote, or adjunct → why it is not good.
        adjuncts: The same as *found*, of stores that do not count.
    """

    node: GlimmerNode
    found: dict[str, str]
    reasons: dict[str, str]
    adjuncts: dict[str, str] = field(default_factory=dict)

    @property
    def enough(self) -> bool:
        """As many copies as the class needs were proven now."""
        good = sum(said in _RIGHT for said in self.found.values())
        return good >= self.node.numcopies_required

    def to_json(self) -> dict[str, object]:
        """The node's fields, and what was found."""
        fields = {} if self.node.record is None else self.node.record.to_fields()
        key = None if self.node.key is None else str(self.node.key)
        return {
            "id": self.node.id,
            "key": key,
            **fields,
            "found": self.found,
            "adjuncts": self.adjuncts,
            "reasons": self.reasons,
        }


async def verify(graph: GlimmerGraph, nodes: Iterable[GlimmerNode], *, repair: bool = False) -> AsyncIterator[Verified]:
    """Verify the copies of nodes, whether they are recorded or not; those without a key are left out.

    Args:
        graph: Of the nodes.
        nodes: Which; a commit is made for many together.
        repair: Replace copies that are bad or missing from one that is good.

    Raises:
        SidecarError: A node file, or the list of a folder, is malformed.
        AnnexError: The findings could not be committed.
    """
    stored = (node for node in nodes if node.key is not None and node.record is not None)
    while some := list(islice(stored, _TOGETHER)):
        for one in await _Round(graph, some).run(repair=repair):
            yield one


class _Round:
    """Some nodes that are verified together."""

    def __init__(self, graph: GlimmerGraph, nodes: Sequence[GlimmerNode]) -> None:
        self._graph, self._archive = graph, graph.archive
        self._nodes = nodes
        self._keys = {node.file: keys_of(graph.root, node) for node in nodes}
        self._every = list(dict.fromkeys(key for keys in self._keys.values() for key in keys))
        self._durable = dict(graph.archive.remotes)
        self._remotes = self._durable | graph.archive.adjuncts
        self._proofs: dict[tuple[str, str], Attestation] = {}  # (key, UUID) → the newest
        self._repaired: set[tuple[str, str]] = set()
        self._signed: list[Attestation] = []
        self._reasons: dict[str, str] = {}

    async def run(self, *, repair: bool) -> list[Verified]:
        await self._prove(dict.fromkeys(self._remotes, self._every))
        if repair:
            for key in self._every:
                await self._repair(key)
        self._log()
        await self._archive.repository.branch.sync()
        files: dict[Path, tuple[NodeFile, NodeFile]] = {}
        results = []
        for node in self._nodes:
            verified = self._result(node)
            results.append(verified)
            assert verified.node.record is not None
            before = read_node(self._graph.root / node.file)
            after = before.with_fields(verified.node.record.to_fields())
            if after.raw != before.raw:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                files[self._graph.root / node.file] = before, after.with_fields({"modified": now})
        await self._graph.rewrite(f"glimmer-store: {len(self._nodes)} nodes verified", files, self._signed)
        return results

    async def _prove(self, places: dict[Durable, list[annex.Key]]) -> None:
        for proof in await self._archive.prove(places, self._reasons):
            self._proofs[proof.key, proof.uuid] = proof
            self._signed.append(proof)

    def _verdict(self, key: annex.Key, place: Durable) -> Verdict | None:
        proof = self._proofs.get((str(key), str(place.uuid)))
        return None if proof is None else proof.verdict

    # -- repair --

    async def _repair(self, key: annex.Key) -> None:
        good = [place for place in self._remotes if self._verdict(key, place) is Verdict.GOOD]
        wrong = [p for p in self._remotes if self._verdict(key, p) in (Verdict.BAD, Verdict.MISSING)]
        if not good:
            return
        source = annex.Cluster([self._remotes[place] for place in good], name="good copies")
        for place in wrong:
            try:
                if self._verdict(key, place) is Verdict.BAD:
                    await self._clear(key, place, [self._remotes[one] for one in good])
                target = annex.Recording(self._remotes[place], self._archive.repository.branch)
                async for copied in annex.copy(source, target, [key]):
                    if copied.error is not None:
                        raise copied.error
            except annex.AnnexError as error:
                self._reasons[place.name] = f"not repaired: {error}"
                continue
            await self._prove({place: [key]})
            if self._verdict(key, place) is Verdict.GOOD:
                self._repaired.add((str(key), str(place.uuid)))

    async def _clear(self, key: annex.Key, place: Durable, good: Sequence[annex.Remote]) -> None:
        """Take a bad content out of the way: aside, where it is on this machine, else by a drop with proof."""
        remote = self._remotes[place]
        if is_here(place):
            async for _ in annex.fsck(remote, [key]):
                pass
            if not await remote.check_present(key):
                return
        copies = annex.Copies(1, min=1)
        target = annex.Recording(remote, self._archive.repository.branch)
        await annex.drop(key, from_=target, others=good, copies=copies)

    # -- what is found --

    def _log(self) -> None:
        for proof in self._proofs.values():
            if proof.verdict is not Verdict.GOOD:
                key = annex.Key.parse(proof.key)
                self._archive.repository.branch.set_present(key, annex.UUID(proof.uuid), False)

    def _result(self, node: GlimmerNode) -> Verified:
        said_of = {place.name: self._found(node, place) for place in self._remotes}
        found = {place.name: said_of[place.name] for place in self._durable}
        assert node.record is not None
        recorded = {place.uuid for place in node.record.stored_at}
        kept = [
            Location(place.name, place.uuid)
            for place in self._durable
            if found[place.name] in _RIGHT or (found[place.name] == "unreachable" and place.uuid in recorded)
        ]
        fresh = all(found[place.remote] != "unreachable" for place in kept)
        record = replace(node.record, stored_at=tuple(sorted(kept)), verified=bool(kept) and fresh)
        reasons = {
            name: self._reasons.get(name, "") for name, said in said_of.items() if said not in ("good", "repaired")
        }
        adjuncts = {name: said for name, said in said_of.items() if name not in found}
        return Verified(replace(node, record=record), found, reasons, adjuncts)

    def _found(self, node: GlimmerNode, place: Durable) -> str:
        keys = self._keys[node.file]
        verdicts = [self._verdict(key, place) for key in keys]
        if None in verdicts:
            return "unreachable"
        for verdict in (Verdict.BAD, Verdict.MISSING):
            if verdict in verdicts:
                return str(verdict.value)
        return "repaired" if any((str(key), str(place.uuid)) in self._repaired for key in keys) else "good"


def keys_of(root: Path, node: GlimmerNode) -> list[annex.Key]:
    """Every key that a copy of the node's output has to have."""
    assert node.key is not None
    digest = read_node(root / node.file).fields.get("output-hash")
    if digest is None and node.key.backend in (b"SHA256", b"SHA256E"):  # a dataset: the key of a list holds its digest
        digest = "sha256:" + node.key.name.split(b".")[0].decode()
    if not isinstance(digest, str) or not digest.startswith("sha256:"):
        return [node.key]
    path = root / os.fsdecode(list_path(digest))
    try:
        tree = Tree.from_bytes(path.read_bytes())
    except FileNotFoundError:
        return [node.key]
    if tree.digest != digest:
        raise SidecarError(f"{path}: is not the list that the node {node.id} names", remedy="emit the folder again")
    return [*tree.keys, node.key]
