"""What breaks while a job runs, and must break nothing: connections, clocks, lines, and a second coordinator.

After each: what is registered is right at the destination, and nothing is missing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest
from launching import Scene, make_scene

import annexpy as annex
from glimmer_store.jobs.event import Event
from glimmer_store.jobs.launch.local import LocalLauncher
from glimmer_store.jobs.registrar import register
from glimmer_store.jobs.run import run_job
from glimmer_store.jobs.spec import Retry
from glimmer_store.jobs.states import FailureKind, JobState, State
from glimmer_store.jobs.worker import run_worker

pytestmark = pytest.mark.anyio
SERVER = Path(__file__).with_name("faulty_server.py")
SOON = Retry(tries=50, base=0.05, max=0.2)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def through(scene: Scene, name: str, how: str, byte: int, times: int) -> Path:
    """Have *name* be reached through a server with a fault; the file that counts how often it had it."""
    words = (sys.executable, SERVER, scene.backfill.bare(name), how, byte, times)
    scene.backfill.address(name, "exec:" + " ".join(map(str, words)))
    return scene.backfill.bare(name) / "faults"


async def finished(scene: Scene, git_annex: str) -> None:
    """Nothing is left for a worker, and every key is registered and right."""
    await register(scene.job)
    states = [one.state for shard in scene.ledger.shards() for one in scene.ledger.fold(shard).values()]
    assert states == [State.REGISTERED] * len(scene.keys)
    scene.complete(git_annex)


@pytest.mark.parametrize(("name", "byte"), [("new", 30), ("new", 2500), ("a", 600)])
async def test_a_connection_that_is_cut_at_a_byte_costs_nothing_but_a_try(
    tmp_path: Path, git_annex: str, name: str, byte: int
) -> None:
    scene = await make_scene(tmp_path, 12)
    faults = through(scene, name, "cut", byte, 2)
    await scene.plan(retry=SOON)

    summary = await run_worker(scene.job)

    assert faults.stat().st_size >= 1
    assert summary.failed == 0
    await finished(scene, git_annex)


async def test_a_source_that_says_nothing_more_is_left_in_time(
    tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from annexpy.remote.p2p import P2PRemote

    monkeypatch.setitem(P2PRemote.__init__.__kwdefaults__, "deadline", 1.0)  # instead of a minute
    scene = await make_scene(tmp_path, 9)
    faults = through(scene, "a", "stall", 400, 1)
    await scene.plan(retry=SOON)

    summary = await run_worker(scene.job)

    assert faults.stat().st_size >= 1
    assert (summary.failed, summary.retried > 0) == (0, True)
    await finished(scene, git_annex)


class Skewed(annex.SystemClock):
    """The clock of a machine whose time of day is wrong."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self._by = by

    def wall(self) -> float:
        return super().wall() + self._by


async def test_workers_whose_clocks_are_an_hour_off_do_one_job(tmp_path: Path, git_annex: str) -> None:
    skews = 3600.0, -3600.0
    scene = await make_scene(tmp_path, 24)
    spec = await scene.plan(retry=SOON, heartbeat=10.0)
    shards = scene.ledger.shards()
    # A failure by a clock that is fast, which the other would have to wait an hour and more for
    (first, *_) = scene.ledger.tasks(shards[0])
    with scene.ledger.writer("fast") as writer:
        now = Skewed(max(skews)).wall()
        failure = Event(now, spec.id, first.key, first.dest, State.COPYING, State.RETRY_WAIT, 2, "fast", wait=0.2,
                        kind=FailureKind.TRANSIENT, text="it broke")  # fmt: skip
        writer.write(shards[0], [failure])

    with anyio.fail_after(1200):
        async with anyio.create_task_group() as group:
            for number, skew in enumerate(skews):
                group.start_soon(_work, scene, f"skewed-{number}", skew)

    assert scene.moved_twice() == 0
    await finished(scene, git_annex)


async def _work(scene: Scene, worker: str, skew: float) -> None:
    await run_worker(scene.job, worker=worker, clock=Skewed(skew))


async def test_a_ledger_that_is_torn_anywhere_is_gone_on_with(tmp_path: Path, git_annex: str) -> None:
    scene = await make_scene(tmp_path, 20)
    await scene.plan(retry=SOON, heartbeat=10.0)
    await run_worker(scene.job)
    files = sorted((scene.job / "events").glob("*/*.jsonl"))
    whole = [file.read_bytes() for file in files]
    size = min(map(len, whole))

    for torn, end in ((1, b""), (size // 3, b""), (size // 2 + 7, b'{"v":1,"to":'), (size - 1, b"\xff\x00garbage\n")):
        for file, content in zip(files, whole, strict=True):
            file.write_bytes(content[:torn] + end)
        for settled in (scene.job / "settled").iterdir():  # which is written after what was torn
            settled.unlink()
        await run_worker(scene.job)
        states = {one.state for shard in scene.ledger.shards() for one in scene.ledger.fold(shard).values()}
        assert states == {State.VERIFIED}

    assert scene.moved_twice() == 0, "what is there is found and read back, not moved again"
    await finished(scene, git_annex)


async def test_two_coordinators_of_one_job_do_it_once(tmp_path: Path, git_annex: str) -> None:
    scene = await make_scene(tmp_path, 40)
    await scene.plan(retry=SOON, heartbeat=10.0)
    states = []

    async def run() -> None:
        states.append((await run_job(scene.job, launcher=LocalLauncher(1))).state)

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        group.start_soon(run)

    assert JobState.SUCCEEDED in states
    assert scene.moved_twice() == 0
    registered = [
        one.key for s in scene.ledger.shards() for one in scene.ledger.events(s) if one.state is State.REGISTERED
    ]
    assert len(registered) == len(set(registered)) == len(scene.keys)
    scene.complete(git_annex)
