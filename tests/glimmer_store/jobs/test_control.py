"""What an operator changes while a job runs, and that a worker obeys from the next chunk on."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_store.errors import ConfigError
from glimmer_store.jobs.control import Control, ControlFile
from glimmer_store.jobs.limits import Limits, Share
from glimmer_store.jobs.throttle import JobHeld, Throttle

pytestmark = pytest.mark.parametrize("anyio_backend", ["asyncio"])
TEXTS = st.text(max_size=40)


class Steps:
    """A clock that moves when somebody sleeps; what happens on the way can be planned."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.plan: list[tuple[float, Callable[[], object]]] = []

    def now(self) -> float:
        return self.seconds

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.seconds + 1_800_000_000

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        while self.plan and self.plan[0][0] <= self.seconds:
            self.plan.pop(0)[1]()
        await anyio.lowlevel.checkpoint()


def throttle(job: Path, clock: Steps, limits: Limits | None = None, *, share: Share | None = None) -> Throttle:
    return Throttle(job, limits or Limits(), clock=clock, share=lambda: share or Share(), sleep=clock.sleep)


@given(
    reason=st.text(st.characters(codec="utf-8"), max_size=40),
    held=st.dictionaries(st.from_regex(r"[0-9a-f-]{1,36}", fullmatch=True), TEXTS, max_size=3),
    bandwidth=st.integers(1, 10**12),
    paused=st.booleans(),
    places=st.booleans(),
)
def test_what_is_written_is_read_again(
    anyio_backend: str, reason: str, held: dict[str, str], bandwidth: int, paused: bool, places: bool
) -> None:
    limits: dict[str, object] = {"bandwidth": f"{bandwidth}B/s", "workers": 3}
    if places:
        limits["places"] = {"u1": {"requests": "5/s"}}
    control = Control(paused=paused, reason=reason, held=held, limits=limits)

    again = Control.parse(control.format())

    assert (again.paused, again.limits, set(again.held)) == (paused, limits, set(held))
    assert Control.parse(again.format()) == again


@pytest.mark.parametrize(
    "text", ["paused = 1", "speed = 3", "paused = [", '[limits]\nspeed = "1MB/s"', '[limits]\nworkers = "many"']
)
def test_a_file_that_is_not_right_is_refused_by_name(anyio_backend: str, text: str) -> None:
    with pytest.raises(ConfigError, match=r"control\.toml|limits"):
        Control.parse(text)


def test_limits_of_several_commands_add_up(anyio_backend: str) -> None:
    control = Control().limited({"bandwidth": "1MB/s"}).limited({"places": {"a": {"bandwidth": "1kB/s"}}})
    control = control.limited({"places": {"a": {"requests": "1/s"}, "b": {"requests": "2/s"}}, "bandwidth": "none"})

    limits = Limits.of({"bandwidth": "9MB/s", "requests": "7/s"}).changed(control.limits)

    assert (limits.bandwidth, limits.requests) == (None, 7.0)
    assert (limits.places["a"].bandwidth, limits.places["a"].requests, limits.places["b"].requests) == (1000, 1, 2)
    with pytest.raises(ConfigError, match="speed"):
        control.limited({"speed": 1})


def test_a_cancelled_job_stays_cancelled(anyio_backend: str) -> None:
    with pytest.raises(ConfigError, match="cancelled"):
        Control(cancelled=True).resumed()


def _hold(job: Path, uuid: str) -> None:
    ControlFile(job).change(lambda control: replace(control, held={**control.held, uuid: "full"}))


def test_changes_of_many_processes_are_all_there(anyio_backend: str, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_hold, args=(tmp_path, f"u{n}")) for n in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert set(ControlFile(tmp_path).read().held) == {f"u{n}" for n in range(8)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["control.lock", "control.toml"]


@pytest.mark.anyio
async def test_a_thousand_chunks_take_as_long_as_the_limit_says(tmp_path: Path) -> None:
    clock = Steps()
    slow = throttle(tmp_path, clock, Limits.of({"bandwidth": "1MB/s"}), share=Share(1, 4))

    for _ in range(1000):
        await slow.spend(source="s", dest="d", size=10_000)

    assert clock.seconds == pytest.approx(40, abs=1.5)  # 10 MB at a quarter of the rate, less the first second


@pytest.mark.anyio
async def test_a_limit_that_changes_holds_within_a_second(tmp_path: Path) -> None:
    clock = Steps()
    slow = throttle(tmp_path, clock, Limits.of({"bandwidth": "1kB/s"}))
    operator = ControlFile(tmp_path)
    clock.plan = [(10.0, lambda: operator.change(lambda now: now.limited({"bandwidth": "1MB/s"})))]

    await slow.spend(size=1_000_000)  # would be 1000 seconds

    assert 10 <= clock.seconds <= 13


@pytest.mark.anyio
async def test_a_pause_stops_the_next_chunk_and_the_next_task_waits(tmp_path: Path) -> None:
    clock = Steps()
    operator, worker = ControlFile(tmp_path), throttle(tmp_path, clock)
    await worker.spend(source="s", dest="d", size=1)

    operator.change(lambda now: replace(now, paused=True, reason="backup"))
    clock.seconds += 0.3
    with pytest.raises(JobHeld, match=r"paused \(backup\)") as held:
        await worker.spend(source="s", dest="d", size=1)
    assert held.value.reason == "paused"
    clock.plan = [(clock.seconds + 30, lambda: operator.change(Control.resumed))]
    await worker.ready("s", "d")

    assert 30 <= clock.seconds <= 33
    await worker.spend(source="s", dest="d", size=1)


@pytest.mark.anyio
async def test_a_repository_that_is_full_holds_up_nothing_else(tmp_path: Path) -> None:
    clock = Steps()
    _hold(tmp_path, "full")
    worker = throttle(tmp_path, clock)

    with pytest.raises(JobHeld) as held:
        await worker.spend(source="s", dest="full", size=1)
    await worker.spend(source="s", dest="other", size=1)

    assert held.value.reason == "held"


@pytest.mark.anyio
async def test_a_cancelled_job_is_not_waited_for(tmp_path: Path) -> None:
    ControlFile(tmp_path).change(lambda now: replace(now, cancelled=True))

    with pytest.raises(JobHeld) as held:
        await throttle(tmp_path, Steps()).ready("d")

    assert held.value.reason == "cancelled"


@pytest.mark.anyio
async def test_outside_its_window_a_job_waits(tmp_path: Path) -> None:
    clock = Steps()
    worker = throttle(tmp_path, clock)
    local = worker._local()
    opens = (local.hour + 2) % 24
    worker = throttle(tmp_path, clock, Limits.of({"window": f"{opens:02}:00-{(opens + 1) % 24:02}:00"}))

    with pytest.raises(JobHeld, match="outside"):
        await worker.spend(size=1)
    await worker.ready()

    assert worker._local().hour == opens
    assert clock.seconds <= 2 * 3600 + 1


@pytest.mark.anyio
async def test_a_file_that_somebody_broke_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Steps()
    worker = throttle(tmp_path, clock, Limits.of({"bandwidth": "1kB/s"}))
    await worker.spend(size=1)
    (tmp_path / "control.toml").write_text("paused = maybe\n")
    clock.seconds += 1

    await worker.spend(size=1)

    assert worker.limits.bandwidth == 1000
    assert "control.toml" in caplog.text
    assert len(caplog.records) == 1


@given(of=st.integers(1, 40), most=st.integers(0, 100))
def test_the_transfers_of_all_workers_are_as_many_as_allowed(anyio_backend: str, of: int, most: int) -> None:
    assert sum(Share(rank, of).slots(most) for rank in range(of)) == most
