"""The long forms: fifty workers of Dask killed over a run, an array of Slurm requeued again and again.

What they print are the figures of docs/jobs-launch.md.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from distributed import LocalCluster
from launching import Scene, make_scene, until
from slurm_cluster import slurm

from glimmer_store.jobs.launch.base import Launcher, open_shards, written
from glimmer_store.jobs.launch.dask import DaskLauncher
from glimmer_store.jobs.launch.slurm import SlurmLauncher
from glimmer_store.jobs.ran import Ran
from glimmer_store.jobs.run import run_job
from glimmer_store.jobs.spec import Retry
from glimmer_store.jobs.states import JobState

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.campaign,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Creating scratch directories"),
]
HEARTBEAT = 1.0
BYTES = 450
"""Of events, for one key, about."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Killer:
    """Kills workers that have a shard, each once."""

    def __init__(self, scene: Scene, seed: int) -> None:
        self._scene, self._choose, self.killed = scene, random.Random(seed), set[int]()

    def __call__(self) -> bool:
        workers = [pid for pid in self._scene.workers() if pid not in self.killed]
        self._choose.shuffle(workers)
        for pid in workers:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:  # of a lease that is not over yet
                continue
            self.killed.add(pid)
            return True
        return False


async def disturbed(scene: Scene, launcher: Launcher, times: int, disturb: Callable[[], bool]) -> tuple[Ran, int]:
    """Run the job while *disturb* is done that often, spread over what is left of it; how often it was."""
    done = 0
    begin, whole = written(scene.job), BYTES * len(scene.keys)
    marks = [begin + (whole - begin) * (number + 1) // (times + 2) for number in range(times)]

    async def disturbing() -> None:
        nonlocal done
        for mark in marks:
            await until(lambda at=mark: written(scene.job) >= at or not open_shards(scene.ledger))  # type: ignore[misc]
            while open_shards(scene.ledger) and not await anyio.to_thread.run_sync(disturb):
                await anyio.sleep(0.02)
            done += bool(open_shards(scene.ledger))

    async with anyio.create_task_group() as group:
        group.start_soon(disturbing)
        ran = await run_job(scene.job, launcher=launcher)
        group.cancel_scope.cancel()
    return ran, done


def told(title: str, scene: Scene, disturbed_: int, seconds: float) -> None:
    print(
        f"\n{title}: {len(scene.keys)} keys in {len(scene.ledger.shards())} shards, {disturbed_} times, "
        f"{seconds:.0f} s, {scene.moved_twice()} keys moved twice"
    )


def dask(cluster: LocalCluster) -> DaskLauncher:
    return DaskLauncher(cluster.scheduler_address, settings={"GLIMMER_STORE_HOME": os.environ["GLIMMER_STORE_HOME"]})


@contextmanager
def cluster_of(workers: int) -> Iterator[LocalCluster]:
    """It always has that many, whatever dies."""
    with LocalCluster(
        n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=60
    ) as cluster:
        cluster.adapt(minimum=workers, maximum=workers)
        yield cluster


async def test_fifty_workers_of_dask_are_killed_over_a_run(tmp_path: Path, git_annex: str) -> None:
    await dask_workers_killed(tmp_path, git_annex, 5000, 50)


async def dask_workers_killed(folder: Path, git_annex: str, keys: int, kills: int) -> None:
    scene = await make_scene(folder, keys)
    await scene.plan(per_shard=25, heartbeat=HEARTBEAT, retry=Retry(tries=50, base=0.05))
    killer, begun = Killer(scene, 50), time.monotonic()

    with cluster_of(4) as cluster:
        ran, killed = await disturbed(scene, dask(cluster), kills, killer)

    told("Dask workers killed", scene, killed, time.monotonic() - begun)
    assert killed == kills
    assert ran.state is JobState.SUCCEEDED
    assert scene.moved_twice() <= killed * 25, "at most what was leased when it was killed"
    scene.complete(git_annex)


@pytest.mark.optional
async def test_twenty_tasks_of_a_slurm_array_are_requeued_over_a_run(
    tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slurm_tasks_requeued(tmp_path, git_annex, monkeypatch, 2000, 20)


async def slurm_tasks_requeued(
    folder: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch, keys: int, times: int
) -> None:
    scene = await make_scene(folder, keys)
    await scene.plan(per_shard=10, heartbeat=HEARTBEAT, retry=Retry(tries=50, base=0.05))
    begun = time.monotonic()
    with slurm(folder / "slurm") as running:
        for name, value in running.settings.items():
            monkeypatch.setenv(name, value)
        launcher = SlurmLauncher(throttle=4, most=40)  # five shards for each task

        def requeue() -> bool:
            return bool(launcher.submitted) and bool(running.requeue(launcher.submitted[-1], 1))

        ran, requeued = await disturbed(scene, launcher, times, requeue)

    told("Slurm tasks requeued", scene, requeued, time.monotonic() - begun)
    assert requeued == times
    assert ran.state is JobState.SUCCEEDED
    assert scene.moved_twice() <= requeued * 10
    scene.complete(git_annex)
