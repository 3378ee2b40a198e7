"""Drop where everything is on this machine: the steps of every drop, with no waiting in between, for some keys at once.

The locks of all these keys are held while their contents go; each was looked at again right before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from annexpy.actions.gather import Others
from annexpy.actions.results import DropResult
from annexpy.clock import Clock
from annexpy.errors import AnnexError, DropIncomplete
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies, DropProof, HeldCopy, safe_drop
from annexpy.remote.base import BatchRemove, Remote, Removed
from annexpy.remote.local import Local
from annexpy.repo.locks import ContentLock

__all__ = ["drop_here", "result_of"]

_log = logging.getLogger(__name__)

_Held = list[tuple[HeldCopy, Local, ContentLock]]


async def drop_here(from_: Remote, wanted: Mapping[Key, Copies], others: Others, clock: Clock) -> dict[Key, DropResult]:
    """Drop each key of *wanted*, by one request for all of them where *from_* takes that.

    Returns:
        What came of each key. Those are missing that too few copies could be locked of, and nothing was asked then.
    """
    held: dict[Key, _Held] = {}
    proofs: list[DropProof] = []
    try:
        for key, copies in wanted.items():
            _hold(key, copies.needed, others, held.setdefault(key, []))
        for key, copies in wanted.items():
            proof = _proof(key, copies, held[key], others, clock.now())
            if proof is not None:
                proofs.append(proof)
        return await _remove(from_, proofs) if proofs else {}
    finally:
        for key, locks in held.items():
            _give_back(key, locks)


def _hold(key: Key, needed: int, others: Others, held: _Held) -> None:
    """Lock as many copies as are *needed*, or none that a drop by way of ``Gathering`` would not lock again."""
    for uuid, (name, local) in others.here.items():
        try:
            lock = local.hold(key)
        except AnnexError:
            continue  # gathering finds out why
        held.append((HeldCopy(uuid, name, lock.expires), local, lock))
        if len(held) == needed:
            break


def _proof(key: Key, copies: Copies, held: _Held, others: Others, now: float) -> DropProof | None:
    """The proof that *key* may go, if the locks are enough and every one of them still stands."""
    if len(held) < copies.needed:
        return None
    counted = [copy for copy, _, _ in held]
    try:
        if not all(local.holds(lock) for _, local, lock in held):
            return None
        return safe_drop(
            key,
            copies,
            counted,
            dropped_from=others.dropped_from,
            trust=others.trust,
            now=now,
            missing=others.rejected,
        )
    except AnnexError:
        return None  # gathering says why


def _give_back(key: Key, locks: _Held) -> None:
    for copy, _, lock in locks:
        try:
            lock.release()
        except OSError as error:  # the removal is over and its result stands
            _log.warning("%s: the lock on the copy in %s could not be given back: %s", key, copy.name, error)


async def _remove(from_: Remote, proofs: list[DropProof]) -> dict[Key, DropResult]:
    if len(proofs) > 1 and isinstance(from_, BatchRemove):
        ends = [proof.deadline for proof in proofs if proof.deadline is not None]
        try:
            removed = await from_.remove_content_many([proof.key for proof in proofs], deadline=min(ends, default=None))
        except AnnexError as error:
            return {proof.key: DropResult(proof.key, proof=proof, error=error) for proof in proofs}
        return {proof.key: result_of(proof.key, one, proof) for proof, one in zip(proofs, removed, strict=True)}
    results: dict[Key, DropResult] = {}
    for proof in proofs:
        try:
            one = await from_.remove_content(proof.key, deadline=proof.deadline)
        except AnnexError as error:
            results[proof.key] = DropResult(proof.key, proof=proof, error=error)
        else:
            results[proof.key] = result_of(proof.key, one, proof)
    return results


def result_of(key: Key, removed: Removed, proof: DropProof | None) -> DropResult:
    """How a drop ended that was asked for and answered."""
    error: AnnexError | None = None
    if not removed.ok:
        if not removed.uuids and len(removed.failed) == 1:
            error = next(iter(removed.failed.values()))
        else:
            remaining = {str(uuid): str(why) for uuid, why in removed.failed.items()}
            error = DropIncomplete(key, sorted(removed.uuids), remaining)
    return DropResult(key, removed, proof, error)
