"""Have copies read again, where they are or by us, and sign what is found.

A remote that can prove that it has a content (``annex.prove``: our own servers, and no cluster) reads it itself, and
nothing is transferred; the attestation's method is ``peer`` then. That needs a copy here to compare with. Every other
remote is read by us (``reread``), and so is what somebody failed to prove: only a content that was read and is wrong is
attested as bad.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import anyio

import annexpy as annex
from glimmer_store.attest import Attestation, Method, Signer, Verdict
from glimmer_store.config import Durable

__all__ = ["prove", "reread", "reread_many"]


async def prove(
    remotes: Mapping[Durable, annex.Remote],
    wanted: Mapping[Durable, Sequence[annex.Key]],
    repository: annex.Repository,
    signer: Signer,
    why: dict[str, str],
    sources: Mapping[annex.Key, str | bytes] | None = None,
) -> list[Attestation]:
    """Prove the copies of *wanted*, every remote by itself; see ``Archive.prove``.

    Args:
        remotes: Of the places in *wanted*.
        wanted: Place → keys.
        repository: The dataset, which may have copies to compare with.
        signer: Signs.
        why: Gets why a remote has no good copy.
        sources: Key → a file, or the content, to compare with.
    """
    proofs: list[Attestation] = []
    shown = await _shown(remotes, wanted, repository, sources or {})

    async def one(place: Durable, keys: Sequence[annex.Key]) -> None:
        for key in keys:
            method: Method = "peer" if (place, key) in shown else "reread"
            verdict, reason = shown.get((place, key)) or await reread(remotes[place], key)
            if verdict is not None:
                proofs.append(signer.attest(key, str(place.uuid), place.name, verdict, method))
            if reason:
                why.setdefault(place.name, reason)

    async with anyio.create_task_group() as group:
        for place, keys in wanted.items():
            group.start_soon(one, place, keys)
    return proofs


async def _shown(
    remotes: Mapping[Durable, annex.Remote],
    wanted: Mapping[Durable, Sequence[annex.Key]],
    repository: annex.Repository,
    sources: Mapping[annex.Key, str | bytes],
) -> dict[tuple[Durable, annex.Key], tuple[Verdict, str]]:
    """What remotes have shown without being read."""
    asked: dict[annex.Key, list[Durable]] = {}
    for place, keys in wanted.items():
        for key in keys:
            asked.setdefault(key, []).append(place)
    shown: dict[tuple[Durable, annex.Key], tuple[Verdict, str]] = {}
    here = annex.Local(repository, commit=False)
    try:
        for key, places in asked.items():
            copy = sources.get(key)
            try:
                if copy is None and not await here.check_present(key):
                    continue
                found = await annex.prove([remotes[place] for place in places], key, here if copy is None else copy)
            except annex.AnnexError:
                continue  # nothing here to compare with: they are read
            for place, proof in zip(places, found, strict=True):
                if proof is annex.Verified.HASH:
                    shown[place, key] = Verdict.GOOD, ""
                elif isinstance(proof, annex.KeyNotPresent):
                    shown[place, key] = Verdict.MISSING, str(proof)
    finally:
        await here.aclose()
    return shown


async def reread(remote: annex.Remote, key: annex.Key, *, cached: bool = True) -> tuple[Verdict | None, str]:
    """What is found at a remote, and why it is not good."""
    return (await reread_many(remote, [key], cached=cached))[key]


async def reread_many(
    remote: annex.Remote, keys: Sequence[annex.Key], *, cached: bool = True
) -> dict[annex.Key, tuple[Verdict | None, str]]:
    """As ``reread`` for each."""
    found: dict[annex.Key, tuple[Verdict | None, str]] = {}

    def note(one: annex.Checked) -> None:
        found[one.key] = _judged(one)

    await annex.verify_many(remote, keys, cached=cached).tell(note)
    return found


def _judged(one: annex.Checked) -> tuple[Verdict | None, str]:
    match one.error:
        case None if one.verified is annex.Verified.HASH:
            return Verdict.GOOD, ""
        case None:
            return None, "its key has no hash that could be compared"
        case annex.KeyNotPresent():
            return Verdict.MISSING, str(one.error)
        case annex.VerificationFailed() | annex.NotRegularFile():
            return Verdict.BAD, str(one.error)
        case error:
            return None, str(error)
