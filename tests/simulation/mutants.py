# ruff: noqa: E501 (a line of code, and what stands in its place)
"""Mistakes planted in our own code, one line each, and who has to catch them.

A mutant is text of a function and what to put in its place. It is compiled in the module where it belongs and put
wherever the right one was; ``planted`` takes it out again.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from annexpy.actions import gather, prove
from annexpy.keys import backend
from annexpy.policy import numcopies
from annexpy.remote import (
    ask_nodes,
    late_copies,
    local,
    local_removal,
    memory,
    p2p_lock,
    p2p_removal,
    p2p_upload,
    put_lane,
    recording,
)
from annexpy.repo import durability, locks, retention
from annexpy.server import batches
from glimmer_store import archive, proving

__all__ = ["EXHAUSTIVE", "MUTANTS", "Change", "Mutant", "planted"]

EXHAUSTIVE = "exhaustive run"


@dataclass(frozen=True)
class Change:
    """In *owner* (a module or a class), *wrong* in the place of *right* in the source of *function*."""

    owner: Any
    function: str
    right: str
    wrong: str


@dataclass(frozen=True)
class Mutant:
    """A mistake.

    Attributes:
        name: What the code does wrong.
        changes: How.
        where: The scene of the simulation, or ``EXHAUSTIVE``, that catches it soonest.
    """

    name: str
    where: str
    changes: tuple[Change, ...]
    setting: int = 0
    """Of the exhaustive run."""
    first: int = 0
    """The seed to begin with, where few schedules show it."""


def _mutant(name: str, where: str, *changes: tuple[Any, str, str, str], setting: int = 0, first: int = 0) -> Mutant:
    return Mutant(name, where, tuple(Change(*change) for change in changes), setting, first)


MUTANTS = (
    # -- proofs
    _mutant(
        "an expired lock counts",
        EXHAUSTIVE,
        (numcopies, "_over", 'return None if now < expires else "its', 'return None if True else "its'),
    ),
    _mutant(
        "the deadline is that of the last lock",
        EXHAUSTIVE,
        (numcopies, "safe_drop", "Deadline(min(ends))", "Deadline(max(ends))"),
        setting=4,
    ),
    _mutant(
        "a removal that relies on a lock has no deadline",
        EXHAUSTIVE,
        (numcopies, "safe_drop", "Deadline(min(ends)) if ends else None", "None"),
    ),
    _mutant(
        "a repository counts once for each path",
        EXHAUSTIVE,
        (numcopies, "safe_drop", "counted = tuple(best.values())", "counted = tuple(verified)"),
        setting=4,
    ),
    _mutant(
        "a copy that was only looked at counts as locked",
        EXHAUSTIVE,
        (numcopies, "safe_drop", "if not isinstance(copy, CheckedCopy)]", "]"),
        setting=6,
    ),
    _mutant(
        "one copy too few is enough",
        "looked at",
        (numcopies, "safe_drop", "if len(counted) < copies.needed:", "if len(counted) < copies.needed - 1:"),
    ),
    _mutant(
        "an untrusted repository counts",
        "looked at",
        (numcopies, "not_a_copy", 'return "the repository is untrusted"', "return None"),
    ),
    _mutant(
        "the UUID of a cluster counts", "looked at", (numcopies, "not_a_copy", "if is_cluster(uuid):", "if False:")
    ),
    _mutant(
        "the repository that is dropped from counts",
        "looked at",
        (numcopies, "not_a_copy", "if uuid in dropped_from:", "if False:"),
    ),
    # -- locks
    _mutant(
        "locks are not looked at again before the removal",
        "stock locks",
        (gather.Gathering, "look_again", "if not await lock.held():", "if False:"),
    ),
    _mutant(
        "a lock is promised from when its answer came",
        EXHAUSTIVE,
        (
            p2p_lock.P2PLock,
            "__aenter__",
            "self._wire, self.uuid = wire, wire.uuid",
            "self._wire, self.uuid, self.expires = wire, wire.uuid, self._clock.now() + LOCK_RETENTION",
        ),
    ),
    _mutant(
        "locks are given back while the removal may still come",
        "late removals",
        (gather.Gathering, "_leave", "if self.under_way:", "if False:"),
    ),
    _mutant(
        "the lock of a client that vanished is not kept",
        "late removals",
        (local.Local, "lock_content", "if stopped or is_open_end(error) else", "if False else"),
    ),
    _mutant(
        "a removal does not look at the retention",
        "late removals",
        (locks.Removal, "_lock", "if left >= 0:", "if False:"),
    ),
    _mutant(
        "a retention ends by the time of day alone",
        "late removals and clocks that are set",
        (retention.Moments, "left", "zip(self, now, strict=True)", "zip(self[:1], now[:1], strict=True)"),
        first=10105,
    ),
    _mutant(
        "a removal does not mind that others hold a lock",
        "stock locks",
        (
            locks.Removal,
            "_lock",
            'lock = folder.take(b".lck", exclusive=True)',
            'lock = folder.take(b".lck", exclusive=True) or folder.take(b".lck", exclusive=False)',
        ),
    ),
    # -- removals
    _mutant(
        "plain REMOVE is sent in place of REMOVE-BEFORE",
        EXHAUSTIVE,
        (p2p_removal, "_removal", "if before is None", "if True"),
    ),
    _mutant(
        "the deadline is not translated to the clock of the peer",
        "late removals",
        (p2p_removal.Remover, "_in_its_clock", "floor(deadline.at + offset - slack)", "floor(deadline.at)"),
    ),
    _mutant(
        "a server removes after the deadline",
        EXHAUSTIVE,
        (memory.MemoryRemote, "_keeps", "if now >= deadline.at:", "if False:"),
    ),
    _mutant(
        "a removal that is far ahead is believed",
        EXHAUSTIVE,
        (memory.MemoryRemote, "_keeps", "if deadline.at > now + MAX_REMOVAL_AHEAD:", "if False:"),
        setting=2,
    ),
    _mutant(
        "the end of the stream means removed",
        "late removals",
        (
            p2p_removal.Remover,
            "remove_many",
            "done.append(Removed(ok=False, failed={wire.uuid: failure}))",
            "done.append(Removed(ok=True, uuids=frozenset((wire.uuid,))))",
        ),
    ),
    _mutant(
        "a cluster is said to have removed what a node kept",
        "half removed",
        (ask_nodes, "_removed", "ok = False\n            if isinstance", "ok = True\n            if isinstance"),
    ),
    _mutant(
        "the repositories of FAILURE-PLUS are lost",
        "half removed",
        (
            p2p_removal,
            "_removed",
            "named = frozenset(uuid for uuid in uuids if not is_cluster(uuid))",
            "named = frozenset()",
        ),
    ),
    _mutant("FAILURE-PLUS is not said", "half removed", (batches, "_tell_removed", "if named:", "if False:")),
    # -- puts
    _mutant(
        "late copies go on while their key is removed",
        "late copies",
        (late_copies.LateCopies, "settle", "if not self._puts:", "if True:"),
    ),
    _mutant(
        "a bare ALREADY-HAVE is believed",
        "bad wires",
        (p2p_upload.P2PUpload, "_check", "match await wire.ask(CheckPresent(self._key)):", "match Success():"),
    ),
    _mutant("content is not verified", "bad wires", (backend.Verifier, "matches", "return ", "return True or ")),
    _mutant(
        "stored is said before it is on the disk",
        "power cuts",
        (durability.GroupCommit, "_timed", "_attempt(job)", "pass"),
    ),
    _mutant(
        "a node that failed is said to have stored it",
        "half removed",
        (put_lane.Lane, "_leave", "self.error = error", "self.stored = Stored(frozenset((self.node.uuid,)))"),
    ),
    # -- proofs of glimmer_store
    _mutant(
        "a content that is wrong is attested as good",
        "archives and proofs",
        (proving, "_judged", "return Verdict.BAD, str(one.error)", 'return Verdict.GOOD, ""'),
    ),
    _mutant(
        "whatever a holder has read is taken for the content",
        "archives and proofs",
        (prove, "prove", "if same else wrong", "if True else wrong"),
    ),
    _mutant(
        "a record names places that were not proven",
        "archives and proofs",
        (archive.Archive, "store", "in good for key, _ in items", "in good or True for key, _ in items"),
    ),
    # -- records
    _mutant(
        "a put is recorded before it is answered",
        "half removed",
        (
            recording._RecordingUpload,
            "finish",
            "return self._stored(await self._upload.finish(valid))",
            "return self._stored(Stored(frozenset((self._recording.uuid,)))) and self._stored(await self._upload.finish(valid))",
        ),
    ),
    _mutant(
        "a removal is recorded before it is answered",
        "late removals",
        (
            recording.Recording,
            "remove_content_many",
            "self.keep()",
            "[record(self.branch, key, (self.uuid,), present=False) for key in keys]",
        ),
    ),
    _mutant(
        "a cluster is recorded as a place", "late copies", (recording, "record", "if not is_cluster(uuid):", "if True:")
    ),
    _mutant(
        "what a repository removes is not recorded",
        "power cuts",
        (local_removal.LocalRemoval, "_record", "self._local.record_many(gone, present=False)", "pass"),
        (local_removal.LocalRemoval, "_some", "self._note(removed, present=False)", "pass"),
    ),
)


def _compiled(change: Change) -> tuple[Any, Any]:
    """The right function and the wrong one."""
    owner = change.owner
    right = vars(owner)[change.function]
    plain = inspect.unwrap(right.fget if isinstance(right, property) else right)
    source = textwrap.dedent(inspect.getsource(plain))
    count = source.count(change.right)
    if not count:
        raise LookupError(f"{change.function} has no {change.right!r} any more")
    module = owner if isinstance(owner, types.ModuleType) else sys.modules[owner.__module__]
    names: dict[str, Any] = {}
    code = "from __future__ import annotations\n" + source.replace(change.right, change.wrong, 1)
    exec(compile(code, f"mutant of {change.function}", "exec"), _Globals(module.__dict__), names)
    wrong = names[change.function]
    return right, wrong


class _Globals(dict[str, Any]):
    """A copy: the names of a module as they are now, and the function is none of them."""


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The mistake is in our code, everywhere."""
    with ExitStack() as stack:
        for change in mutant.changes:
            right, wrong = _compiled(change)
            if isinstance(change.owner, types.ModuleType):
                for module in list(sys.modules.values()):
                    if (
                        getattr(module, "__name__", "").startswith(("annexpy", "glimmer_store"))
                        and vars(module).get(change.function) is right
                    ):
                        _set(stack, module, change.function, wrong)
            else:
                _set(stack, change.owner, change.function, wrong)
        yield


def _set(stack: ExitStack, where: Any, name: str, wrong: Callable[..., Any]) -> None:
    right = vars(where)[name]
    setattr(where, name, wrong)
    stack.callback(setattr, where, name, right)
