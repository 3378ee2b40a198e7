"""Bringing cold contents up: waves that fit, money that is not spent, crashes that cost nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import annexpy as annex
from glimmer_store.errors import ConfigError, StoreError
from glimmer_store.jobs.cold_simulated import SimulatedTier, TierSettings
from glimmer_store.jobs.spec import Warm
from glimmer_store.jobs.warm import ColdTask, WarmLog, WarmUp

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]
TAPE = "a0a0a0a0-0000-4000-8000-000000000001"
DAY = 86400.0


class Tape:
    """Contents of given sizes on a simulated tier, and the clock of all."""

    def __init__(self, folder: Path, sizes: Sequence[int], **settings: object) -> None:
        self.folder, self.time = folder, 1_000_000.0
        remote = annex.MemoryRemote(annex.UUID(TAPE), name="tape")
        self.tasks = []
        for number, size in enumerate(sizes):
            content = number.to_bytes(4, "big") + bytes(max(0, size - 4))
            key = annex.Key.parse(f"SHA256E-s{size}--{annex.name_content([content], b'SHA256').raw.decode()[-64:]}")
            remote.objects[key] = content[:size]
            self.tasks.append(ColdTask(TAPE, key))
        self.tier = SimulatedTier(remote, folder / "tier", TierSettings(**settings), now=lambda: self.time)  # type: ignore[arg-type]
        self.asked: list[annex.Key] = []

    def warm_up(self, **settings: object) -> WarmUp:
        log = WarmLog(self.folder / "requests.jsonl")
        return WarmUp({TAPE: self}, log, Warm(**settings), now=lambda: self.time)  # type: ignore[arg-type]

    # a ColdTier that counts

    async def availability(self, key: annex.Key) -> object:
        return await self.tier.availability(key)

    async def warm(self, keys: Sequence[annex.Key], *, tier: str, days: float) -> Mapping[annex.Key, annex.AnnexError]:
        refused = await self.tier.warm(keys, tier=tier, days=days)
        self.asked += [key for key in keys if key not in refused]
        return refused

    def cost(self, keys: Sequence[annex.Key], *, tier: str) -> float:
        return self.tier.cost(keys, tier=tier)


async def test_waves_are_no_larger_than_ahead_and_everything_gets_there(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [400, 400, 400, 400, 400])
    warm_up, left, waves = tape.warm_up(ahead="1 kB"), list(tape.tasks), []

    while left:
        step = await warm_up.step(left)
        assert step.outstanding <= 1000
        waves.append(len(step.requested))
        for task, _ in step.ready:
            left.remove(task)
        assert step.wake is not None
        tape.time = max(step.wake, tape.time)

    assert [count for count in waves if count] == [2, 2, 1]
    assert sorted(tape.asked) == sorted(task.key for task in tape.tasks)  # each once


async def test_what_was_not_taken_in_time_is_asked_for_again(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [10])
    warm_up = tape.warm_up(days=1)
    await warm_up.step(tape.tasks)
    tape.time += 0.5 * DAY
    assert (await warm_up.step(tape.tasks)).ready == ((tape.tasks[0], tape.time + DAY),)

    tape.time += DAY
    step = await warm_up.step(tape.tasks)

    assert not step.ready
    assert step.requested == tuple(tape.tasks)
    assert tape.asked == [tape.tasks[0].key] * 2


async def test_the_earliest_expiry_is_copied_first(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [10, 11, 12])
    late, first, middle = tape.tasks
    warm_up = tape.warm_up(days=1)
    for task in (first, middle, late):
        await tape.tier.warm([task.key], tier="expedited", days=1)
        tape.time += 60
    tape.time += 600

    step = await warm_up.step([late, first, middle])

    assert [task for task, _ in step.ready] == [first, middle, late]
    assert not tape.asked  # all were warm already: nothing was paid for


async def test_money_is_not_spent_beyond_what_was_allowed(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [10, 10, 10, 10], price=(1.0, 0.0))
    warm_up = tape.warm_up(max_cost=2.5)

    step = await warm_up.step(tape.tasks)

    assert len(step.requested) == len(tape.asked) == 2
    assert (step.spent, step.stopped, step.waiting) == (2.0, "max-cost", 2)
    tape.time += DAY
    step = await warm_up.step(tape.tasks)
    assert (len(step.ready), step.spent, step.stopped) == (2, 2.0, "max-cost")


async def test_nothing_that_costs_is_asked_for_when_nothing_was_allowed(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [10], price=(0.001, 0.0))

    step = await tape.warm_up().step(tape.tasks)

    assert (tape.asked, step.stopped, step.wake) == ([], "max-cost", None)


async def test_a_request_that_was_refused_is_not_paid_and_is_made_later(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [10, 10, 10], price=(1.0, 0.0), requests=2)
    warm_up = tape.warm_up(max_cost=3)

    step = await warm_up.step(tape.tasks)

    assert (len(step.requested), list(step.failed), step.spent) == (2, tape.tasks[2:], 2.0)
    tape.time += DAY
    step = await warm_up.step(tape.tasks)
    assert (len(step.ready), step.requested, step.spent) == (2, (tape.tasks[2],), 3.0)


async def test_who_goes_on_after_a_crash_asks_for_nothing_twice_and_knows_what_was_spent(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [10, 10], price=(1.0, 0.0))
    await tape.warm_up(max_cost=10).step(tape.tasks)

    step = await tape.warm_up(max_cost=10).step(tape.tasks)

    assert (step.warming, step.requested, step.spent) == (tuple(tape.tasks), (), 2.0)
    assert len(tape.asked) == 2


async def test_a_crash_between_the_intention_and_the_request_counts_as_spent(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [10], price=(2.0, 0.0))
    tape.warm_up()  # makes nothing
    WarmLog(tmp_path / "requests.jsonl").write("request", tape.tasks, 2.0, tape.time)

    step = await tape.warm_up(max_cost=3).step(tape.tasks)

    assert (tape.asked, step.spent, step.stopped) == ([], 2.0, "max-cost")
    step = await tape.warm_up(max_cost=4).step(tape.tasks)
    assert (tape.asked, step.spent) == ([tape.tasks[0].key], 4.0)


async def test_a_torn_line_is_no_request_and_a_broken_one_is_not_passed_over(tmp_path: Path) -> None:
    tape, path = Tape(tmp_path, [10, 10], price=(1.0, 0.0)), tmp_path / "requests.jsonl"
    log = WarmLog(path)
    for task in tape.tasks:
        log.write("request", [task], 1.0, tape.time)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])

    log = WarmLog(path)

    assert (log.spent, log.asked) == (1.0, {tape.tasks[0]})
    log.write("request", [tape.tasks[1]], 1.0, tape.time)
    assert [json.loads(line)["cost"] for line in path.read_bytes().splitlines()] == [1.0, 1.0]
    path.write_bytes(b"{broken\n" + whole)
    with pytest.raises(StoreError, match=r"requests\.jsonl"):
        WarmLog(path)


async def test_a_content_larger_than_ahead_is_named_and_does_not_hold_the_others_up(tmp_path: Path) -> None:
    tape = Tape(tmp_path, [5000, 10])

    step = await tape.warm_up(ahead="1 kB").step(tape.tasks)

    assert step.requested == (tape.tasks[1],)
    assert isinstance(step.failed[tape.tasks[0]], ConfigError)


async def test_an_ahead_that_is_no_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ahead"):
        Tape(tmp_path, []).warm_up(ahead="plenty")


@given(
    sizes=st.lists(st.integers(5, 1200), max_size=12),
    ahead=st.integers(100, 2000),
    budget=st.integers(0, 12),
    requests=st.integers(1, 5),
    steps=st.lists(st.tuples(st.floats(0, 2 * DAY), st.integers(0, 3), st.booleans()), max_size=15),
)
async def test_no_schedule_breaks_a_limit(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[int],
    ahead: int,
    budget: int,
    requests: int,
    steps: list[tuple[float, int, bool]],
) -> None:
    tape = Tape(tmp_path_factory.mktemp("tape"), sizes, price=(1.0, 0.0), requests=requests)
    settings = {"ahead": f"{ahead} B", "max_cost": float(budget), "days": 1}
    warm_up, left = tape.warm_up(**settings), list(tape.tasks)
    for seconds, copied, crash in steps:
        if crash:
            warm_up = tape.warm_up(**settings)

        step = await warm_up.step(left)

        assert step.outstanding <= ahead
        assert len(tape.asked) <= step.spent <= budget
        assert sum(task.size for task in (*step.warming, *step.requested)) <= ahead
        for task, until in step.ready:
            assert until > tape.time
            async_state = await tape.tier.availability(task.key)
            assert type(async_state).__name__ == "Online"
        for task, _ in step.ready[:copied]:
            left.remove(task)
        tape.time += seconds
