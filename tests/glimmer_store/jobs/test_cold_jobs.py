"""Jobs whose sources are cold: brought up in waves, within a price, again when they expired, and only when needed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import pytest
from launching import Scene, make_scene

from glimmer_store.errors import ConfigError
from glimmer_store.jobs.launch.local import LocalLauncher
from glimmer_store.jobs.places import connected
from glimmer_store.jobs.plan import new_job
from glimmer_store.jobs.ran import Ran
from glimmer_store.jobs.run import run_job
from glimmer_store.jobs.spec import Retry, Warm
from glimmer_store.jobs.states import JobState, State
from glimmer_store.jobs.warm import WarmLog
from glimmer_store.jobs.warming import LOG, Warmer
from glimmer_store.jobs.worker import run_worker

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def cold_scene(folder: Path, count: int, *cold: str, words: str) -> Scene:
    """The remotes *cold* are simulated tapes."""
    scene = await make_scene(folder, count)
    for name in cold:
        text = f"simulated folder={folder}/tape-{name} {words}"
        subprocess.run(["git", "config", f"remote.{name}.glimmer-cold", text], cwd=scene.dataset, check=True)
    return scene


async def run(scene: Scene, **warm: object) -> Ran:
    await scene.plan(warm=Warm(**warm), retry=Retry(base=0.2, max=1.0))  # type: ignore[arg-type]
    return await run_job(scene.job, launcher=LocalLauncher(1))


def states(scene: Scene) -> list[tuple[str, State]]:
    ledger = scene.ledger
    return [(event.key, event.state) for shard in ledger.shards() for event in ledger.events(shard)]


async def test_cold_contents_are_brought_up_in_waves_and_copied(tmp_path: Path, git_annex: str) -> None:
    scene = await cold_scene(tmp_path, 6, "a", "b", words="delay=500ms price-request=0.5")

    ran = await run(scene, ahead="1 kB", max_cost=100.0)

    assert ran.state is JobState.SUCCEEDED
    scene.complete(git_annex)
    log = WarmLog(scene.job / LOG)
    assert log.spent == 0.5 * len(scene.keys)  # each once
    for key in map(str, scene.keys):
        seen = {state for one, state in states(scene) if one == key}
        assert State.REGISTERED in seen
        assert seen & {State.WARMING, State.WARM}  # a worker may come by itself when it should be there
    waves = [line for line in (scene.job / LOG).read_text().splitlines() if '"request"' in line]
    assert len(waves) >= 2


async def test_what_is_online_elsewhere_is_not_brought_up(tmp_path: Path) -> None:
    scene = await cold_scene(tmp_path, 9, "a", words="delay=500ms price-request=1")
    ran = await run(scene, max_cost=100.0)

    assert ran.state is JobState.SUCCEEDED
    assert WarmLog(scene.job / LOG).spent == 3  # a third is nowhere else


async def test_no_more_is_spent_than_was_allowed_and_what_is_left_out_says_why(tmp_path: Path) -> None:
    scene = await cold_scene(tmp_path, 6, "a", "b", words="delay=200ms price-request=1")

    ran = await run(scene, max_cost=2.0)

    assert ran.state is JobState.FAILED
    assert dict(ran.failures) == {"cold": 4}
    assert WarmLog(scene.job / LOG).spent == 2.0
    assert len(scene.backfill.holds("new")) == 2
    last = [one.last for shard in scene.ledger.shards() for one in scene.ledger.fold(shard).values()]
    assert {one.text for one in last if one is not None and one.state is State.FAILED} == {
        "2 of max-cost 2 are spent, and it costs more"
    }


async def test_a_warm_copy_that_expires_before_it_is_taken_is_brought_up_again(tmp_path: Path) -> None:
    scene = await cold_scene(tmp_path, 3, "a", "b", words="delay=0s price-request=1")
    spec = await scene.plan(warm=Warm(max_cost=100.0), retry=Retry(base=0.2, max=1.0))
    ledger = scene.ledger
    await run_worker(scene.job, wait=False)  # finds them cold
    async with connected(spec) as places:
        with ledger.writer("warmer") as writer:
            warmer = Warmer.of(ledger, writer, places)
            assert warmer is not None
            await warmer.look()  # asks
            await warmer.look()  # finds them warm
    assert [state for _, state in states(scene)].count(State.WARM) == 3
    for state in tmp_path.glob("tape-*/*"):
        state.write_text("1.0 2.0\n")  # nobody came in time

    ran = await run_job(scene.job, launcher=LocalLauncher(1))

    assert ran.state is JobState.SUCCEEDED
    assert scene.backfill.holds("new") == set(scene.keys)
    assert WarmLog(scene.job / LOG).spent == 6.0


async def test_who_goes_on_after_a_crash_does_not_pay_twice(tmp_path: Path) -> None:
    scene = await cold_scene(tmp_path, 4, "a", "b", words="delay=2s price-request=1")
    await scene.plan(warm=Warm(max_cost=4.0), retry=Retry(base=0.2, max=1.0))

    class Stopped(LocalLauncher):
        async def run(self, job: Path, shards: object) -> list[dict[str, object]]:
            with anyio.move_on_after(60):
                async with anyio.create_task_group() as group:
                    group.start_soon(super().run, job, shards)
                    while WarmLog(scene.job / LOG).spent < 4.0:
                        await anyio.sleep(0.05)
                    group.cancel_scope.cancel()
            raise ConfigError("stopped here")

    with pytest.raises(ConfigError, match="stopped here"):
        await run_job(scene.job, launcher=Stopped(1))
    ran = await run_job(scene.job, launcher=LocalLauncher(1))

    assert ran.state is JobState.SUCCEEDED
    assert WarmLog(scene.job / LOG).spent == 4.0


@pytest.mark.parametrize("text", ["tape", "simulated", "simulated folder=x delay=soon", "s3 price=1", "s3 price-gb=-1"])
async def test_a_cold_tier_that_is_malformed_is_refused_when_the_job_is_planned(tmp_path: Path, text: str) -> None:
    scene = await make_scene(tmp_path, 1)
    subprocess.run(["git", "config", "remote.a.glimmer-cold", text], cwd=scene.dataset, check=True)

    with pytest.raises(ConfigError, match=r"remote\.a\.glimmer-cold"):
        new_job(scene.dataset, "backfill", ["new"])
