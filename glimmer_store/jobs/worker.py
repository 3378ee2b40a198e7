"""A worker: claims shards of a job until none is left, copies what is in them and has it read back.

It keeps nothing but what is in the ledger, so it may be killed at any moment, and any number of them work on one job,
on any machines. What a killed one had copied and not yet written down is found at the destination by the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import annexpy as annex
from glimmer_store.attest import Signer
from glimmer_store.jobs.lease import new_worker
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.limits import Share
from glimmer_store.jobs.rereader import rereader

if TYPE_CHECKING:
    from glimmer_store.jobs.hands import WorkerSummary

__all__ = ["run_worker"]


async def run_worker(
    job_dir: str | os.PathLike[str],
    *,
    worker: str | None = None,
    shards: Sequence[str] | None = None,
    wait: bool = True,
    clock: annex.Clock | None = None,
) -> WorkerSummary:
    """Work on a job until nothing is left that a worker can do.

    Args:
        job_dir: The folder of the job.
        worker: A name that no other process uses; by default a new one.
        shards: Only these.
        wait: Stay for tasks that are to be tried again later, and until the shards of others are done.
        clock: For events and limits.

    Raises:
        JobError: There is no such job.
        ConfigError: There is no key to sign with.
    """
    ledger = Ledger.open(job_dir)
    name, signer = worker or new_worker(), Signer.of_user()
    async with rereader(ledger.folder, name) as rereading:
        left = set(ledger.shards() if shards is None else shards) - ledger.settled()
        if left and not ledger.spec.drains and ledger.spec.verify != "stream":
            await rereading.start()  # that process gets ready while this one does
        from glimmer_store.jobs.hands import Hands, WorkerSummary
        from glimmer_store.jobs.places import connected
        from glimmer_store.jobs.throttle import JobHeld, Throttle
        from glimmer_store.jobs.worker_loop import WorkerLoop

        summary, time = WorkerSummary(name), clock or annex.SystemClock()
        throttle = Throttle(ledger.folder, ledger.spec.planned_limits, clock=time, share=_share(ledger, name))
        async with connected(ledger.spec) as places:
            with ledger.writer(name) as writer:
                writer.public_key(signer.name, signer.public)
                hands = Hands(ledger, writer, places, throttle, rereading, signer, time, summary)
                try:
                    await WorkerLoop(hands).run(shards, wait=wait)
                except* JobHeld:
                    summary.left += 1  # it was cancelled
    return summary


def _share(ledger: Ledger, worker: str) -> Callable[[], Share]:
    def share() -> Share:
        names = sorted({holding.worker for holding in ledger.holdings() if not holding.expired} | {worker})
        return Share(names.index(worker), len(names))

    return share
