"""Workers in a Dask cluster: a task is a worker on a few shards, and tells a summary and nothing else.

Dask keeps its state in memory and runs tasks again when a worker dies, so nothing here relies on it: a task that runs
twice finds its shards settled, or held by another. Dask retries nothing (``retries=0``); that is for the ledger to say.

The workers need this package, the job's folder under the same path, and a home with the key that signs.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio import to_thread

import annexpy as annex
from glimmer_store.jobs.launch.base import Launched
from glimmer_store.jobs.lease import new_worker
from glimmer_store.jobs.spec import JobError
from glimmer_store.jobs.worker import run_worker

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["DaskLauncher", "work"]

_SECONDS = 30.0
"""To reach the scheduler."""
_PER_THREAD = 4
"""Tasks for each thread of the cluster, so that none waits long for the last one."""
_MOST = 20
"""Shards of a task."""


def work(job: str, shards: Sequence[str], settings: Mapping[str, str]) -> Launched:
    """One task: a worker on *shards*, which does what can be done now and does not wait for anything."""
    os.environ.update(settings)
    try:
        return anyio.run(_work, job, shards)
    except annex.AnnexError as error:
        return {"lost": str(error)}


async def _work(job: str, shards: Sequence[str]) -> Launched:
    return (await run_worker(job, worker=f"dask-{new_worker()}", shards=shards, wait=False)).to_json()


class DaskLauncher:
    """``Launcher`` over a Dask scheduler.

    Args:
        scheduler: Its address, as ``tcp://HOST:PORT``, or its file as ``file:PATH``; empty: a cluster of processes on
            this machine, which ends with the run.
        workers: Of that cluster.
        settings: Variables of the environment that the workers get; by default where the signing key is.
    """

    def __init__(self, scheduler: str = "", *, workers: int = 2, settings: Mapping[str, str] | None = None) -> None:
        self._scheduler, self._workers = scheduler, max(1, workers)
        home = os.environ.get("GLIMMER_STORE_HOME")
        self._settings = dict(settings or ({"GLIMMER_STORE_HOME": home} if home and not scheduler else {}))

    async def run(self, job: Path, shards: Sequence[str]) -> list[Launched]:
        return await to_thread.run_sync(self._run, job, shards, abandon_on_cancel=True)

    def _run(self, job: Path, shards: Sequence[str]) -> list[Launched]:
        try:
            import distributed
        except ImportError as error:
            raise JobError(
                f"Dask cannot be used: {error.name} is missing", remedy="pip install 'annexpy[dask]'"
            ) from error
        if not self._scheduler:
            # Any: its options
            quiet: dict[str, Any] = {"dashboard_address": "127.0.0.1:0", "host": "127.0.0.1", "silence_logs": 50}
            try:
                started = distributed.LocalCluster(n_workers=self._workers, threads_per_worker=1, **quiet)
            except RuntimeError as error:
                raise JobError(f"a Dask cluster could not be started: {error}", remedy="run it again") from error
            with started as cluster:
                # Dask gives a worker up that dies while it starts; with this another one takes its place
                cluster.adapt(minimum=self._workers, maximum=self._workers)
                with distributed.Client(cluster, set_as_default=False) as client:
                    return self._gather(client, job, shards)
        where: dict[str, Any] = {"address": self._scheduler}
        if self._scheduler.startswith("file:"):
            where = {"scheduler_file": self._scheduler.removeprefix("file:")}
        try:
            client = distributed.Client(timeout=_SECONDS, set_as_default=False, **where)
        except (OSError, ValueError, RuntimeError) as error:
            raise JobError(f"{self._scheduler}: no Dask scheduler: {error}", remedy="start one: dask scheduler") from (
                error
            )
        with client:
            return self._gather(client, job, shards)

    def _gather(self, client: Client, job: Path, shards: Sequence[str]) -> list[Launched]:
        from distributed import as_completed

        # A worker has to start a process and to connect first, so a task has several shards when there are many
        each = min(_MOST, ceil(len(shards) / (_PER_THREAD * max(1, sum(client.nthreads().values())))))
        some = [list(shards[start : start + each]) for start in range(0, len(shards), each)]
        run = secrets.token_hex(4)  # Dask takes tasks with the same name for the same task
        futures = [
            client.submit(work, str(job), names, self._settings, key=f"{names[0]}-{run}", pure=False, retries=0)
            for names in some
        ]
        said: list[Launched] = []
        for future in as_completed(futures, loop=client.loop):
            said.append(_said(future))
            future.release()  # nobody needs its result again, also when the worker that has it dies
        return said


def _said(future: Future) -> Launched:
    """What the worker said, or why nobody knows."""
    from distributed import CancelledError
    from distributed.scheduler import KilledWorker

    error = future.exception()
    try:
        return {"lost": f"{type(error).__name__}: {error}"} if error is not None else dict(future.result())
    except (KilledWorker, CancelledError, OSError, RuntimeError) as late:  # whoever had the result died since
        return {"lost": f"{type(late).__name__}: {late}"}
