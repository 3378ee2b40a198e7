"""The books of one shard while a worker has it: where its tasks are, what is to be done, and what a failure means."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable

from glimmer_store.attest import Attestation
from glimmer_store.jobs.copying import Failure
from glimmer_store.jobs.event import Event, Folded, Task
from glimmer_store.jobs.hands import Hands
from glimmer_store.jobs.states import SETTLED, FailureKind, State

__all__ = ["Books"]

_SOONEST = 0.2
"""Seconds until a shard in which something is left is looked at again, at least."""
_SPOILED = 2
"""How often what was read back may be wrong before a person is needed."""


class Books:
    """One shard.

    Attributes:
        shard: Its name.
        spec: The job.
        folded: Key → where its task is; kept up to date by ``record``.
    """

    def __init__(self, hands: Hands, shard: str) -> None:
        self._hands, self.shard, self.spec = hands, shard, hands.ledger.spec
        self._tasks = {task.key: task for task in hands.ledger.tasks(shard)}
        self.folded = hands.ledger.fold(shard)

    # -- what is to be done --

    def to_do(self) -> tuple[list[Task], list[Task]]:
        """What is to be copied now, and what only to be read back."""
        to_copy: list[Task] = []
        to_verify: list[Task] = []
        for key, task in self._tasks.items():
            one = self.folded[key]
            if one.state in SETTLED or self._due(one) > 0:
                continue
            copied = one.step in (State.COPIED, State.VERIFYING)
            only_looks = not self.spec.copies or (self.spec.type == "repair" and one.spoiled == 0)
            (to_verify if copied or only_looks else to_copy).append(task)
        to_copy.sort(key=lambda task: _expiry(self.folded[task.key]))
        return to_copy, to_verify

    def _due(self, one: Folded) -> float:
        """Seconds to wait before its next try.

        A worker whose clock was wrong makes nobody wait for longer than it meant to.
        """
        last = one.last
        if last is None or last.state not in (State.RETRY_WAIT, State.WARMING):
            return 0.0
        return min(last.wait, max(0.0, last.time + last.wait - self._hands.clock.wall()))

    def rest(self) -> float | None:
        """Seconds until something can be done again; None: nothing is left, and the shard is settled."""
        open_ = [one for one in self.folded.values() if one.state not in SETTLED]
        if not open_:
            self._hands.ledger.settle(self.shard)
            return None
        due = min(map(self._due, open_))
        if any(one.found_cold for one in open_):  # whoever brings up may say at any moment that something is warm
            due = min(due, 5 * self.spec.heartbeat)
        # Those that are due soon after each other are tried together.
        return max(_SOONEST, due, self.spec.retry.base / 4)

    def take_over(self) -> None:
        """Somebody died while it had this shard: what it was at counts as a try."""
        lost = (State.COPYING, State.VERIFYING)
        self.record(
            [
                self.failure(task, Failure(FailureKind.LOST_WORKER, "its worker is gone"), one.state)
                for key, task in self._tasks.items()
                if (one := self.folded[key]).state in lost
            ]
        )

    # -- writing down --

    def event(
        self,
        task: Task,
        state: State,
        *,
        source: str = "",
        size: int = 0,
        seconds: float = 0.0,
        method: str = "",
        text: str = "",
    ) -> Event:
        """That *task* comes to *state* now."""
        one = self.folded[task.key]
        return Event(
            self._hands.clock.wall(), self.spec.id, task.key, task.dest, one.state, state, one.attempt,
            self._hands.writer.worker, source, size, seconds, method=method, text=text,
        )  # fmt: skip

    def failure(self, task: Task, failure: Failure, step: State, *, source: str = "") -> Event:
        """The event that a failure is: it opens the next try, or ends the task."""
        one, retry = self.folded[task.key], self.spec.retry
        again = self._again(task, one, failure, source)
        at_once = failure.kind in (FailureKind.SOURCE_BAD, FailureKind.DEST_BAD, FailureKind.LOST_WORKER)
        before = one.found_cold + 1 if failure.kind is FailureKind.COLD else one.tries
        wait = 0.0 if at_once or not again else retry.wait(before, secrets.randbelow(1 << 20) / (1 << 20))
        if again:
            self._hands.summary.retried += 1
        else:
            self._hands.summary.failed += 1
        return Event(
            self._hands.clock.wall(), self.spec.id, task.key, task.dest, step,
            State.RETRY_WAIT if again else State.FAILED, one.attempt + 1, self._hands.writer.worker,
            source, wait=wait, kind=failure.kind, text=failure.text,
        )  # fmt: skip

    def _again(self, task: Task, one: Folded, failure: Failure, source: str) -> bool:
        match failure.kind:
            case FailureKind.TERMINAL | FailureKind.TOO_FEW | FailureKind.REQUIRED:
                return False
            case FailureKind.SOURCE_BAD:
                return self.spec.drains or bool(set(task.sources) - one.bad_sources - {source})
            case FailureKind.DEST_BAD:
                return self.spec.copies and one.spoiled + 1 < _SPOILED
            case FailureKind.DEST_FULL | FailureKind.COLD:
                return True
            case FailureKind.TRANSIENT | FailureKind.LOST_WORKER:
                return one.tries < self.spec.retry.tries

    def record(self, events: list[Event]) -> None:
        """Write down what happened; it is on disk when this returns."""
        if not events:
            return
        self._hands.writer.write(self.shard, events)
        for event in events:
            self.folded[event.key].add(event)

    def attest(self, proofs: Iterable[Attestation]) -> None:
        """Sign *proofs* and write them down."""
        self._hands.writer.attest(self.shard, self._hands.signer.sign(list(proofs)))

    def close(self) -> None:
        """Close its files."""
        self._hands.writer.close(self.shard)


def _expiry(one: Folded) -> float:
    """When what was brought up goes away again, in seconds since 1970; what is not cold comes last."""
    last = one.last
    return math.inf if last is None or last.state is not State.WARM or not last.wait else last.time + last.wait
