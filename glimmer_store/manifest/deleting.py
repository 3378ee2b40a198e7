"""Delete safely: here, or at one remote, and only while enough *verified* copies stay elsewhere.

What the location log claims is no proof. A copy counts when its newest signed attestation is good and not older than
the policy allows, in a repository that is neither untrusted nor dead. Only such copies take part in the drop, which
then locks them and decides once more (``annex.drop``); before something goes here, they are asked whether they have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

import annexpy as annex
from glimmer_store.attest import Verdict
from glimmer_store.errors import shell_line
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.inspecting import Inspection, Row, place_of
from glimmer_store.sidecar import Sidecar

__all__ = ["Deleted", "delete_at", "delete_here", "remedy_for"]

_NEVER: Final = (annex.TrustLevel.UNTRUSTED, annex.TrustLevel.DEAD)


@dataclass(frozen=True, slots=True)
class Deleted:
    """What was deleted.

    Attributes:
        row: Of what.
        place: Where: a path, or the name of a remote.
        keys: What was dropped there.
        shared: What stays there because something else that is recorded has it too.
    """

    row: Row
    place: str
    keys: tuple[annex.Key, ...] = ()
    shared: tuple[annex.Key, ...] = ()


async def delete_here(inspection: Inspection, row: Row) -> Deleted:
    """Remove the bytes at its own place on this machine, and take it out of the state.

    Raises:
        NotEnoughCopies: Fewer verified copies are elsewhere now than it needs.
        ManifestError: It is not here, or the user's own file, or read from a pool.
    """
    declared = row.declared
    if place_of(declared) is None:
        why = "is the user's own file" if not declared.managed else "is not at its own place here"
        raise ManifestError(f"{declared.name}: {declared.path} {why}", remedy="nothing of it is removed")
    facts = annex.Facts(inspection.graph.archive.repository)
    _check(inspection, row, _counting(inspection, row, facts))
    missing = await _not_there(inspection, row)
    others = [one for one in _counting(inspection, row, facts) if one not in missing]
    _check(inspection, row, others, missing=missing)
    inspection.project.remove(declared)
    inspection.project.forget(declared)
    return Deleted(row, str(declared.target))


async def delete_at(inspection: Inspection, row: Row, name: str) -> Deleted:
    """Drop it from the durable remote *name*, with proof; its node and proofs are brought up to date.

    Raises:
        NotEnoughCopies, RequiredContent: Nothing was asked of the remote.
        DropIncomplete, TransportError: Some of it is gone there; what is gone is recorded.
        ManifestError: There is no such remote, or it was never archived.
    """
    graph, record = inspection.graph, row.record
    remotes = {place.name: (place, remote) for place, remote in graph.archive.remotes}
    if name not in remotes:
        raise ManifestError(f"{name}: no durable remote of the dataset", remedy=f"one of {', '.join(remotes)}")
    facts = annex.Facts(graph.archive.repository)
    others = [one for one in _counting(inspection, row, facts) if one != name]
    _check(inspection, row, others, leaving=name)
    assert record is not None
    place, remote = remotes[name]
    keys = [key for key in inspection.keys(record) if inspection.uses[key] == 1]
    shared = tuple(key for key in inspection.keys(record) if inspection.uses[key] > 1)
    target = annex.Recording(remote, graph.archive.repository.branch)
    keeping = annex.Wanted(facts).keeping(facts.copies, [place.uuid])
    dropped: list[annex.Key] = []
    try:
        for key in keys:
            found = keeping(key)
            copies = annex.Copies(max(found.num, row.required), max(found.min, row.required))
            stay = [remotes[one][1] for one in others]
            await annex.drop(key, from_=target, others=stay, copies=copies, trust=facts.trust)
            dropped.append(key)
    finally:
        if dropped:
            await _record(inspection, row, name, place.uuid, dropped)
    return Deleted(row, name, tuple(dropped), shared)


def _counting(inspection: Inspection, row: Row, facts: annex.Facts) -> list[str]:
    """Names of the verified copies that may count."""
    uuids = {place.name: place.uuid for place, _ in inspection.graph.archive.remotes}
    return [name for name in row.verified if facts.trust_of(uuids[name]) not in _NEVER]


async def _not_there(inspection: Inspection, row: Row) -> dict[str, str]:
    """Verified copies of which something is not there now, or that cannot be asked, and why."""
    assert row.record is not None
    missing = {}
    keys = inspection.keys(row.record)
    for place, remote in inspection.graph.archive.remotes:
        if place.name in row.verified:
            try:
                if not all(await annex.has_many(remote, keys)):
                    missing[place.name] = "it was verified, and is not there any more"
            except annex.AnnexError as error:
                missing[place.name] = str(error)
    return missing


def _check(
    inspection: Inspection,
    row: Row,
    others: Sequence[str],
    *,
    leaving: str = "",
    missing: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Refuse unless as many verified copies stay as it needs."""
    if row.record is None:
        raise ManifestError(
            f"{row.declared.name}: was never archived",
            remedy=shell_line("glimmer-store", "manifest", "archive", "-C", inspection.graph.root),
        )
    if len(others) < row.required:
        unproven = {one: "no good proof that is new enough" for one in row.copies if one not in (*others, leaving)}
        unproven |= dict.fromkeys(set(row.verified) - {*others, leaving}, "it is untrusted or dead") | dict(missing)
        key = annex.Key.parse(row.record.key)
        counted = dict.fromkeys(others, "verified")
        raise annex.NotEnoughCopies(key, len(others), row.required, counted=counted, missing=unproven)


def remedy_for(inspection: Inspection, row: Row) -> str:
    """What to do where too few verified copies keep *row* from being deleted: prove them, and make those that lack."""
    root, node = inspection.graph.root, None if row.record is None else inspection.node(row.record)
    if len(inspection.graph.archive.remotes) <= row.required:
        return shell_line("glimmer-store", "init", root)
    if node is None:
        return shell_line("glimmer-store", "manifest", "archive", "-C", root, row.declared.name)
    return shell_line("glimmer-store", "verify", "--repair", "-C", root, node.id)


async def _record(inspection: Inspection, row: Row, name: str, uuid: annex.UUID, dropped: Sequence[annex.Key]) -> None:
    graph = inspection.graph
    proofs = [graph.archive.signer.attest(key, str(uuid), name, Verdict.MISSING, "reread") for key in dropped]
    await graph.archive.repository.branch.sync()
    assert row.record is not None
    node, files = inspection.node(row.record), {}
    if node is not None and node.record is not None:
        left = tuple(place for place in node.record.stored_at if place.uuid != uuid)
        before = Sidecar.read(graph.root / node.file)
        after = before.with_fields(replace(node.record, stored_at=left).to_fields())
        if after.raw != before.raw:
            now = datetime.now(UTC).isoformat(timespec="seconds")
            files[graph.root / node.file] = before, after.with_fields({"modified": now})
    await graph.rewrite(f"glimmer-store: {row.declared.name} dropped from {name}", files, proofs)
