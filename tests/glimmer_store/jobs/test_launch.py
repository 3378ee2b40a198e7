"""Launchers: the same job on processes here, in a real Dask cluster and as an array of a real Slurm."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from distributed import Client, LocalCluster
from killing import family
from launching import SECONDS, Scene, make_scene, until
from slurm_cluster import Slurm, slurm

import annexpy as annex
from glimmer_store.jobs.launch.base import launch, open_shards, worker_argv, written
from glimmer_store.jobs.launch.dask import DaskLauncher, work
from glimmer_store.jobs.launch.slurm import Array, SlurmLauncher, script
from glimmer_store.jobs.run import run_job
from glimmer_store.jobs.spec import JobError
from glimmer_store.jobs.states import JobState

# What Dask says on a machine that is busy
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore:Creating scratch directories")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def backfill(*argv: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "glimmer_store.cli.app", "backfill", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def cluster(own_home: None) -> Iterator[LocalCluster]:
    """Two workers of a real cluster, which are started anew when they die."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=60
    ) as running:
        running.adapt(minimum=2, maximum=2)  # else one that is killed while it starts is given up
        yield running


def on(cluster: LocalCluster) -> DaskLauncher:
    return DaskLauncher(cluster.scheduler_address, settings={"GLIMMER_STORE_HOME": os.environ["GLIMMER_STORE_HOME"]})


async def kill_at(scene: Scene, bytes_written: int) -> int:
    """Kill a worker once that many bytes of events are there (or the job is done); how many were killed."""
    await until(lambda: written(scene.job) >= bytes_written or not open_shards(scene.ledger))
    for pid in scene.workers():
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # of a lease that is not over yet
            continue
        return 1
    return 0


# -- processes here --


async def test_workers_that_die_at_once_again_and_again_end_the_run_with_an_answer(tmp_path: Path) -> None:
    scene = await make_scene(tmp_path, 3)
    await scene.plan()

    class Deadly:
        rounds = 0

        async def run(self, job: Path, shards: object) -> list[dict[str, object]]:
            self.rounds += 1
            return [{"lost": "it died"}]

    deadly = Deadly()
    with anyio.fail_after(SECONDS):
        ran = await run_job(scene.job, launcher=deadly)

    assert ran.state is JobState.PROCESSING
    assert 1 < deadly.rounds < 10


async def test_a_dataset_that_is_gone_ends_the_run_with_the_reason_and_leaves_no_process(tmp_path: Path) -> None:
    scene = await make_scene(tmp_path, 30)
    await scene.plan()
    scene.dataset.rename(tmp_path / "elsewhere")
    others = {*family(os.getpid())}

    with anyio.fail_after(SECONDS), pytest.raises(annex.NotARepository):
        await run_job(scene.job)

    await until(lambda: {*family(os.getpid())} <= others)


# -- Dask --


async def test_a_job_runs_in_a_dask_cluster_of_its_own(tmp_path: Path, git_annex: str) -> None:
    scene = await make_scene(tmp_path, 12)
    await scene.plan()

    said = json.loads(backfill("run", "--job", str(scene.job), "--launch", "dask", "--workers", "1", "--json"))

    assert said["state"] == "succeeded"
    scene.complete(git_annex)


async def test_a_job_ends_complete_in_a_dask_cluster_whose_workers_are_killed(
    tmp_path: Path, git_annex: str, cluster: LocalCluster
) -> None:
    scene = await make_scene(tmp_path, 80)
    await scene.plan(per_shard=5)
    killed = 0

    async with anyio.create_task_group() as group:

        async def kill() -> None:
            nonlocal killed
            for size in (1, 4000, 8000):
                killed += await kill_at(scene, size)

        group.start_soon(kill)
        with anyio.fail_after(SECONDS):
            ran = await run_job(scene.job, launcher=on(cluster))

    assert killed >= 1
    assert ran.state is JobState.SUCCEEDED
    scene.complete(git_annex)


async def test_a_task_of_dask_runs_once_each_time_it_is_handed_in_and_tells_only_a_summary(
    tmp_path: Path, cluster: LocalCluster
) -> None:
    scene = await make_scene(tmp_path, 4)
    await scene.plan()
    shards = scene.ledger.shards()

    first, again = [await on(cluster).run(scene.job, shards) for _ in range(2)]

    assert [sum(one["verified"] for one in said) for said in (first, again)] == [4, 0]
    assert all(isinstance(value, str | int) for one in first for value in one.values())
    with Client(cluster, set_as_default=False) as client:
        assert not client.who_has()  # results are not kept
    second = await anyio.to_thread.run_sync(work, str(scene.job), shards, {})  # as Dask may, when a worker dies
    assert second["copied"] == 0


async def test_without_a_scheduler_at_the_address_the_run_says_so(tmp_path: Path) -> None:
    scene = await make_scene(tmp_path, 1)
    await scene.plan()
    import glimmer_store.jobs.launch.dask as module

    before, module._SECONDS = module._SECONDS, 0.5
    try:
        with pytest.raises(JobError, match="no Dask scheduler"):
            await run_job(scene.job, launcher=DaskLauncher("tcp://127.0.0.1:1"))
    finally:
        module._SECONDS = before


async def test_a_job_begun_on_processes_here_is_finished_by_dask(
    tmp_path: Path, git_annex: str, cluster: LocalCluster
) -> None:
    scene = await make_scene(tmp_path, 60)
    await scene.plan()
    process = await anyio.open_process(worker_argv(scene.job), stdout=subprocess.DEVNULL)
    await until(lambda: written(scene.job) > 2000 or process.returncode is not None)
    process.kill()
    await process.aclose()

    ran = await run_job(scene.job, launcher=on(cluster))

    assert ran.state is JobState.SUCCEEDED
    scene.complete(git_annex)
    by_dask = {event.worker.startswith("dask-") for s in scene.ledger.shards() for event in scene.ledger.events(s)}
    assert by_dask == {True, False}


# -- Slurm --


def array(**settings: object) -> Array:
    return Array(**{"job": Path("/jobs/bf 1"), "shards": Path("/jobs/slurm/a.shards"), "count": 5, **settings})  # type: ignore[arg-type]


def test_the_script_counts_in_shards_and_never_names_a_key() -> None:
    text = script(array(count=7, throttle=3, options=("--time=01:00:00",)))

    assert "#SBATCH --array=0-6%3\n" in text
    assert "#SBATCH --requeue\n" in text
    assert "#SBATCH --time=01:00:00\n" in text
    assert "'/jobs/bf 1'" in text
    assert "SHA256" not in text


def test_more_shards_than_tasks_are_spread_over_the_tasks(tmp_path: Path) -> None:
    shards = [f"000-000-{number:06}" for number in range(23)]
    (tmp_path / "a.shards").write_text("".join(f"{shard}\n" for shard in shards))
    text = script(array(job=tmp_path, shards=tmp_path / "a.shards", count=23, most=5))
    assert "#SBATCH --array=0-4\n" in text
    program = text.replace("exec ", "printf '%s\\n' ")
    given = []

    for number in range(5):
        said = subprocess.run(
            ["bash"], input=program, text=True, capture_output=True, check=True,
            env={**os.environ, "SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "1"},
        ).stdout  # fmt: skip
        given.append([line.partition("=")[2] for line in said.splitlines() if line.startswith("--shard=")])

    assert sorted(shard for some in given for shard in some) == shards
    assert {len(some) for some in given} == {4, 5}


@pytest.mark.parametrize("option", ["time=1", "--time=1; rm -rf /", "--x=\n#SBATCH --y", "", "--a b"])
def test_what_is_no_option_of_sbatch_gets_into_no_script(option: str) -> None:
    with pytest.raises(JobError, match="sbatch"):
        script(array(options=(option,)))


def test_an_array_without_shards_is_refused() -> None:
    with pytest.raises(JobError, match="shard"):
        script(array(count=0))


async def test_only_the_script_is_printed_where_nothing_is_handed_in(tmp_path: Path) -> None:
    scene = await make_scene(tmp_path, 20)
    await scene.plan()

    said = backfill("run", "--job", str(scene.job), "--launch", "slurm", "--script-only", "--workers", "2")

    shards = scene.ledger.shards()
    assert f"#SBATCH --array=0-{len(shards) - 1}%2\n" in said
    (frozen,) = (scene.job / "slurm").glob("*.shards")
    assert frozen.read_text().split() == list(shards)
    assert subprocess.run(["bash", "-n"], input=said, text=True, check=False).returncode == 0
    assert written(scene.job) == 0


async def test_without_slurm_the_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await make_scene(tmp_path, 1)
    await scene.plan()
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(JobError, match="sbatch"):
        await launch(scene.job, SlurmLauncher())


@pytest.fixture(scope="module")
def slurm_here(own_home: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm(tmp_path_factory.mktemp("slurm") / "here") as running:
        yield running


@pytest.mark.optional
async def test_an_array_whose_tasks_are_requeued_ends_complete(
    tmp_path: Path, git_annex: str, slurm_here: Slurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in slurm_here.settings.items():
        monkeypatch.setenv(name, value)
    scene = await make_scene(tmp_path, 48)
    await scene.plan()
    launcher, requeued = SlurmLauncher(throttle=2), 0

    async with anyio.create_task_group() as group:

        async def requeue() -> None:
            nonlocal requeued
            await until(lambda: bool(launcher.submitted))
            await until(lambda: written(scene.job) > 0)
            requeued = slurm_here.requeue(launcher.submitted[0], 1)

        group.start_soon(requeue)
        ran = await run_job(scene.job, launcher=launcher)

    assert requeued == 1
    assert ran.state is JobState.SUCCEEDED
    scene.complete(git_annex)
