"""The figures of a job are what its events say, however the job was cut into shards and read."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_store.jobs.around import Around, Safety, cold_figures, job_state
from glimmer_store.jobs.eta import estimate
from glimmer_store.jobs.event import Event, Task, fold_shard
from glimmer_store.jobs.figures import Flow, ShardSums, of_shard
from glimmer_store.jobs.lease import Holding
from glimmer_store.jobs.states import PROVEN, FailureKind, JobState, State
from glimmer_store.jobs.summary import Figures
from glimmer_store.jobs.tally import NodeTally

NOW = 1_800_000_000.0
DEST = "d"
S = State


def task(number: int, size: int | None = 1000, *, nodes: tuple[str, ...] = (), class_: str = "generated") -> Task:
    return Task(f"SHA256E-s{size or 0}--{number:064x}", size, class_, nodes, ("a", "b"), DEST)


def event(
    of: Task, to: State, at: float = NOW - 1, was: State = S.PLANNED, attempt: int = 1, **fields: object
) -> Event:
    plain: dict[str, object] = {"worker": "w1", "size": of.size or 0, "seconds": 0.5, "source": "a", **fields}
    return Event(at, "job", of.key, of.dest, was, to, attempt, **plain)  # type: ignore[arg-type]  # by the tests


def done(of: Task, at: float = NOW - 1, **fields: object) -> list[Event]:
    return [
        event(of, S.COPIED, at, **fields),
        event(of, S.VERIFIED, at + 0.25, S.COPIED, method="reread", **fields),
        event(of, S.REGISTERED, at + 0.5, S.VERIFIED, seconds=0.0, size=0),
    ]


def sums(tasks: list[Task], events: list[Event], now: float = NOW) -> ShardSums:
    return of_shard(tasks, fold_shard(tasks, events), events, now)


def figures(of: ShardSums, **around: object) -> Figures:
    plain: dict[str, object] = {"now": NOW, "job": "bf-1", "type": "backfill", "state": JobState.PROCESSING}
    plain["names"] = {"a": "alpha", "b": "beta", DEST: "vault"}
    return Figures(of, Around(**{**plain, **around}))  # type: ignore[arg-type]  # by the tests


def test_every_key_is_counted_once_where_it_is() -> None:
    tasks = [task(n, 100 * n) for n in range(1, 7)]
    events = [
        *done(tasks[0]),
        event(tasks[1], S.COPIED),
        event(tasks[2], S.RETRY_WAIT, attempt=2, kind=FailureKind.TRANSIENT),
        event(tasks[3], S.FAILED, attempt=2, kind=FailureKind.TERMINAL, text="no source is left"),
        event(tasks[4], S.SKIPPED, text="key dead"),
    ]

    found = figures(sums(tasks, [*events, *events]))

    groups = {name: found.group(name) for name in ("registered", "copied", "waiting", "failed", "skipped", "planned")}
    assert groups == {
        "registered": (1, 100),
        "copied": (1, 200),
        "waiting": (1, 300),
        "failed": (1, 400),
        "skipped": (1, 500),
        "planned": (1, 600),
    }
    assert found.total == (6, 2100)
    assert found.percent["bytes"] == pytest.approx(100 * 600 / 2100)
    assert found.retries() == {"transient": 1}
    assert found.failures() == [("terminal", "vault", 1)]
    assert found.flow("copies").keys == 2  # the same line twice is one copy


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Task], list[Event]]:
    tasks, events = [], []
    for number in range(draw(st.integers(1, 25))):
        nodes = tuple({f"n{draw(st.integers(0, 8))}" for _ in range(draw(st.integers(0, 2)))})
        one = task(number, draw(st.sampled_from([None, 0, 1, 5000, 10**9])), nodes=nodes)
        tasks.append(one)
        for _ in range(draw(st.integers(0, 4))):
            kind = draw(st.sampled_from([None, *FailureKind]))
            to = draw(st.sampled_from(list(State)))
            at = NOW - draw(st.integers(-100, 3000))
            who = draw(st.sampled_from(["w1", "w2"]))
            source = draw(st.sampled_from(["a", "b", ""]))
            events.append(event(one, to, at, attempt=draw(st.integers(1, 3)), kind=kind, worker=who, source=source))
    return tasks, events


@settings(max_examples=20, deadline=None)
@given(history=histories(), shards=st.integers(1, 6), shuffled=st.randoms())
def test_shards_and_order_do_not_matter(
    history: tuple[list[Task], list[Event]], shards: int, shuffled: random.Random
) -> None:
    tasks, events = history
    whole = sums(tasks, events)
    parts = []
    for part in range(shards):
        own = tasks[part::shards]
        keys = {one.key for one in own}
        some = [one for one in events if one.key in keys]
        shuffled.shuffle(some)
        parts.append(sums(own, some))
    shuffled.shuffle(parts)
    joined = ShardSums()
    with NodeTally() as tally, NodeTally() as at_once:
        for part in parts:
            joined.add(part)
            tally.add(part.nodes)
        at_once.add(whole.nodes)
        assert tally.counts() == at_once.counts() == nodes_by_hand(tasks, events)

    assert as_told(joined) == as_told(whole)


def as_told(of: ShardSums) -> object:
    told = figures(of).to_json()

    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {name: rounded(one) for name, one in value.items()}
        if isinstance(value, list):
            return [rounded(one) for one in value]
        return round(value, 2) if isinstance(value, float) else value

    return rounded(told)


def nodes_by_hand(tasks: list[Task], events: list[Event]) -> tuple[int, int]:
    folded = fold_shard(tasks, events)
    names = {node for one in tasks for node in one.nodes}
    open_ = {node for one in tasks for node in one.nodes if folded[one.key].state not in PROVEN}
    return len(names - open_), len(names)


def test_many_nodes_are_counted_on_disk() -> None:
    random_ = random.Random(6)
    nodes = {random_.getrandbits(63) << 1: random_.random() < 0.5 for _ in range(150_000)}
    with NodeTally() as tally:
        for node, complete in nodes.items():
            tally.add([node | True])
            tally.add([node | complete])

        assert tally.counts() == (sum(nodes.values()), len(nodes))


def test_speed_is_told_now_for_ten_minutes_and_for_the_time_that_was_worked() -> None:
    flow = Flow()
    quiet = task(0, 1000)
    for minute in range(60):  # an hour's work yesterday
        flow.note(event(quiet, S.COPIED, NOW - 86400 + 60 * minute), NOW)
    for second in range(300):  # and five minutes at twice ten keys a second today
        for _ in range(20):
            flow.note(event(quiet, S.COPIED, NOW - 300 + second), NOW)

    keys, size = flow.speed(NOW, 30)
    assert keys == pytest.approx(20, rel=0.35)
    assert size == pytest.approx(20_000, rel=0.35)
    assert flow.speed(NOW, 600)[0] == pytest.approx(10, rel=0.05)
    assert flow.keys / flow.active == pytest.approx(6060 / (65 * 60), rel=0.05)
    assert len(flow.bins) <= 62


def test_copying_and_verifying_are_told_apart_by_source_destination_and_worker() -> None:
    tasks = [task(n) for n in range(3)]
    events = [*done(tasks[0]), *done(tasks[1], worker="w2", source="b"), event(tasks[2], S.COPIED)]

    told = figures(sums(tasks, events)).to_json()

    speed = told["speed"]
    assert isinstance(speed, dict)
    assert (speed["copying"]["keys"], speed["verifying"]["keys"]) == (3, 2)
    assert {name: flow["keys"] for name, flow in speed["copying"]["by"]["source"].items()} == {"alpha": 2, "beta": 1}
    assert {name: flow["keys"] for name, flow in speed["verifying"]["by"]["worker"].items()} == {"w1": 1, "w2": 1}
    assert list(speed["verifying"]["by"]["dest"]) == ["vault"]
    assert speed["methods"] == {"reread": 2}


def test_the_time_left_follows_the_mix_of_sizes() -> None:
    small = [task(n, 1000) for n in range(200)]
    large = [task(1000 + n, 10**9) for n in range(20)]
    events: list[Event] = []
    at = NOW - 400
    for one in small[:100]:
        events += done(one, at, seconds=0.01)
        at += 0.02
    for one in large[:10]:
        events += done(one, at, seconds=20.0)
        at += 40

    found = estimate((of := sums([*small, *large], events)).sizes, of.proofs["", ""], NOW)

    assert found is not None  # ten large ones of 40 s; all keys weighed alike would say 36 s
    assert found.low <= found.seconds <= found.high
    assert 300 < found.seconds < 600
    assert estimate(sums(small, []).sizes, Flow(), NOW) is None
    finished = sums(small[:1], done(small[0]))
    assert estimate(finished.sizes, finished.proofs["", ""], NOW) is not None


def test_what_says_nothing_for_three_times_as_long_as_expected_is_stalled() -> None:
    tasks = [task(n, 10**9) for n in range(4)]
    events = [*done(tasks[0], NOW - 1000, seconds=50.0)]
    events += [event(tasks[1], S.COPYING, NOW - 250), event(tasks[2], S.COPYING, NOW - 350, worker="w2")]
    events += [event(tasks[3], S.RETRY_WAIT, NOW - 350, attempt=2, wait=3600.0, kind=FailureKind.TRANSIENT)]
    lost = Holding("000-000-000001", 1, "w9", "h", 1, 99.0, True)

    found = figures(sums(tasks, events), holdings=[lost])

    assert [(one.what, one.worker) for one in found.stalled] == [(tasks[2].key, "w2")]
    assert found.oldest is not None
    assert found.oldest.key in (tasks[2].key, tasks[3].key)
    assert found.expired == 1
    assert found.alive == []


def test_bad_copies_are_told_where_they_were() -> None:
    one, two = task(1), task(2)
    events = [
        event(one, S.RETRY_WAIT, attempt=2, kind=FailureKind.SOURCE_BAD, source="b"),
        event(two, S.RETRY_WAIT, attempt=2, kind=FailureKind.DEST_BAD),
        event(two, S.FAILED, attempt=3, kind=FailureKind.DEST_BAD),
    ]

    found = figures(sums([one, two], events))

    assert found.bad_copies() == {"beta": 1, "vault": 2}
    assert found.failures() == [("dest-bad", "vault", 1)]


def test_what_is_irreplaceable_comes_first() -> None:
    tasks = [task(n, class_="irreplaceable") for n in range(3)]
    of = sums(tasks, done(tasks[0]))
    safety = Safety(10, 4, 3, 2, 7, {0: 1, 1: 2, 3: 7}, ("node-1",), NOW)

    assert figures(of).first_line.startswith("2 irreplaceable keys")
    told = figures(of, safety=safety)
    assert told.first_line.startswith("IRREPLACEABLE BELOW REQUIREMENT: 2 of 4")
    assert next(iter(told.to_json().values())) == 1
    assert list(told.to_json())[1] == "first"


def test_warm_copies_are_counted_by_when_they_expire() -> None:
    tasks = [task(n) for n in range(5)]
    waits = (0.0, 3600.0 * 20, 3600.0 * 72, 60.0)  # for good, within a day, later, gone before now
    events = [
        event(one, S.WARM, NOW - 7200, S.WARMING, wait=wait, seconds=0.0)
        for one, wait in zip(tasks, waits, strict=False)
    ]
    events.append(event(tasks[4], S.WARMING, NOW - 7200, S.RETRY_WAIT, wait=9999.0))

    found = cold_figures(sums(tasks, events), 6, 1.5, NOW)

    assert found.to_json() == {
        "requested": 6,
        "warming": 1,
        "online": 3,
        "expiring": 1,
        "expired-unused": 1,
        "cost": 1.5,
    }


@pytest.mark.parametrize(
    ("keys", "around", "state"),
    [
        ({S.PLANNED: 2}, {}, JobState.ACCEPTED),
        ({}, {}, JobState.SUCCEEDED),
        ({S.PLANNED: 2}, {"begun": True}, JobState.PROCESSING),
        ({S.PLANNED: 2}, {"begun": True, "paused": True}, JobState.PAUSED),
        ({S.PLANNED: 1, S.REGISTERED: 9}, {"begun": True, "cancelled": True}, JobState.CANCELLED),
        ({S.VERIFIED: 2}, {"begun": True}, JobState.PROCESSING),
        ({S.FAILED: 1, S.VERIFIED: 2}, {"begun": True}, JobState.PROCESSING),
        ({S.FAILED: 1, S.REGISTERED: 2}, {"begun": True, "at_work": True}, JobState.PROCESSING),
        ({S.FAILED: 1, S.REGISTERED: 2}, {"begun": True}, JobState.FAILED),
        ({S.SKIPPED: 1, S.REGISTERED: 2}, {"begun": True, "cancelled": True}, JobState.SUCCEEDED),
    ],
)
def test_the_state_of_a_job_follows_from_its_tasks(
    keys: dict[State, int], around: dict[str, bool], state: JobState
) -> None:
    facts = {"paused": False, "cancelled": False, "begun": False, "at_work": False} | around

    assert job_state(Counter(keys), **facts) is state


def test_memory_does_not_grow_with_the_number_of_keys() -> None:
    def shards(count: int) -> Iterator[ShardSums]:
        for shard in range(count):
            tasks = [task(500 * shard + n, 1000 + n, nodes=(f"node-{500 * shard + n}",)) for n in range(500)]
            yield sums(tasks, [line for one in tasks for line in done(one, NOW - 3000 + shard)])

    def peak(count: int) -> int:
        tracemalloc.start()
        joined = ShardSums()
        with NodeTally() as tally:
            for one in shards(count):
                joined.add(one)
                tally.add(one.nodes)
            assert tally.counts() == (500 * count, 500 * count)
        assert joined.total == 500 * count
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(6) < 1.2 * peak(2) + 100_000
