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

__all__ = ["prove", "reread"]


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
    try:
        verified = await annex.verify(remote, key, cached=cached)
    except annex.KeyNotPresent as error:
        return Verdict.MISSING, str(error)
    except (annex.VerificationFailed, annex.NotRegularFile) as error:
        return Verdict.BAD, str(error)
    except annex.AnnexError as error:
        return None, str(error)
    if verified is not annex.Verified.HASH:
        return None, "its key has no hash that could be compared"
    return Verdict.GOOD, ""
