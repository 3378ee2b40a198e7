"""The ledger: states are folds, leases have one holder, and nothing that a crash leaves is in the way."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy import UUID
from glimmer_store.jobs.event import Event, Task, fold_shard, read_events
from glimmer_store.jobs.lease import claim, holdings
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.shards import into_shards, rank
from glimmer_store.jobs.spec import JobError, JobSpec, Place, Retry, Select, seconds
from glimmer_store.jobs.states import FailureKind, State

TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs", "Cc")), max_size=12)
WORDS = st.text("abcdef0123456789-", min_size=1, max_size=8)
KEY = "SHA256E-s3--aa.bin"
TASK = Task(KEY, 3, "generated", ("node",), ("a", "b"), "dest")
SPEC = JobSpec("job", "backfill", "/nowhere", (Place("new", UUID("dest"), "/new"),), (Place("a", UUID("a"), "/a"),))

events = st.builds(
    Event,
    time=st.floats(0, 2e9),
    job=st.just("job"),
    key=st.sampled_from((KEY, "SHA256E-s4--bb.bin")),
    dest=st.just("dest"),
    was=st.sampled_from(State),
    state=st.sampled_from(State),
    attempt=st.integers(1, 5),
    worker=WORDS,
    source=st.sampled_from(("", "a", "b")),
    size=st.integers(0, 10),
    wait=st.floats(0, 100),
    kind=st.none() | st.sampled_from(FailureKind),
    text=TEXT,
)


@given(
    st.builds(Task, TEXT.filter(bool), st.none() | st.integers(0), WORDS, st.just(("n-1", "n.2")), st.just(()), WORDS)
)
def test_a_task_is_read_as_it_was_written(task: Task) -> None:
    line = task.to_line()
    assert "\n" not in line
    assert Task.from_line(line, task.dest) == task


@given(events)
def test_an_event_is_read_as_it_was_written(event: Event) -> None:
    read = Event.from_line(event.to_line())
    assert read is not None
    rounded = replace(event, time=round(event.time, 3), wait=round(event.wait, 3))
    assert replace(read, text="") == replace(rounded, text="")
    assert read.text == event.text


@given(st.lists(events, max_size=12), st.data())
def test_a_fold_depends_on_neither_order_nor_repetition(some: list[Event], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(some + some[: len(some) // 2]))

    one, other = fold_shard([TASK], some)[KEY], fold_shard([TASK], shuffled)[KEY]

    assert (one.last, one.step, one.tries, one.bad_sources, one.spoiled) == (
        other.last, other.step, other.tries, other.bad_sources, other.spoiled,
    )  # fmt: skip


def test_of_two_events_that_differ_in_the_kind_of_failure_alone_all_readers_choose_the_same() -> None:
    def at(kind: FailureKind | None) -> Event:
        return Event(0.0, "job", KEY, "dest", State.PLANNED, State.PLANNED, 1, "w", kind=kind)

    some = [at(None), at(FailureKind.TRANSIENT)]
    assert fold_shard([TASK], some)[KEY].last == fold_shard([TASK], some[::-1])[KEY].last


@given(st.lists(events, max_size=8), st.binary(max_size=40))
def test_what_is_no_event_and_a_torn_last_line_are_skipped(some: list[Event], noise: bytes) -> None:
    whole = [event.to_line() for event in some]
    torn = whole[-1][: len(whole[-1]) // 2] if whole else b"{"

    read = list(read_events([*whole, noise.replace(b"\n", b"") + b"\n", torn]))

    assert len(read) == len(some)


def test_bad_news_of_the_next_try_outranks_good_news_and_a_new_success_outranks_both() -> None:
    def at(state: State, attempt: int, kind: FailureKind | None = None) -> Event:
        return Event(0.0, "job", KEY, "dest", State.VERIFYING, state, attempt, "w", kind=kind)

    verified, bad = at(State.VERIFIED, 1), at(State.RETRY_WAIT, 2, FailureKind.DEST_BAD)
    again, asked = at(State.VERIFIED, 2), at(State.PLANNED, 3)

    assert fold_shard([TASK], [bad, verified])[KEY].state is State.RETRY_WAIT
    assert fold_shard([TASK], [bad, verified])[KEY].step is State.PLANNED, "a bad copy is made again"
    assert fold_shard([TASK], [bad, verified, again])[KEY].state is State.VERIFIED
    folded = fold_shard([TASK], [asked, again, bad])[KEY]
    assert (folded.state, folded.tries, folded.spoiled) == (State.PLANNED, 1, 0), "an operator begins anew"


def test_a_line_that_a_dead_worker_left_torn_costs_only_itself(tmp_path: Path) -> None:
    ledger = Ledger.create(tmp_path / "job", SPEC, [("000-000-000001", [TASK])])
    event = Event(1.0, "job", KEY, "dest", State.PLANNED, State.COPIED, 1, "w")
    with ledger.writer("w") as writer:
        writer.write("000-000-000001", [event])
    with (ledger.folder / "events" / "000-000-000001" / "w.jsonl").open("ab") as file:
        file.write(event.to_line()[:30])
    with ledger.writer("w") as writer:
        writer.write("000-000-000001", [replace(event, state=State.VERIFIED)])

    assert [one.state for one in ledger.events("000-000-000001")] == [State.COPIED, State.VERIFIED]


def test_a_job_is_found_as_it_was_made_and_not_made_twice(tmp_path: Path) -> None:
    spec = replace(
        SPEC,
        select=Select("irreplaceable", ("n1",), max_age=60.0),
        limits={"workers": 3, "bandwidth": "2MB/s", "places": {"dest": {"requests": "5/s"}}},
        retry=Retry(3, 0.5, 9.0),
    )
    Ledger.create(tmp_path / "job", spec, [("000-000-000001", [TASK])])

    assert Ledger.open(tmp_path / "job").spec == spec
    assert list(Ledger.open(tmp_path / "job").tasks("000-000-000001")) == [TASK]
    with pytest.raises(JobError, match="already"):
        Ledger.create(tmp_path / "job", spec, [])
    with pytest.raises(JobError, match="no job"):
        Ledger.open(tmp_path)
    (tmp_path / "job" / "job.toml").write_text("[job]\nid = 1\n")
    with pytest.raises(JobError, match=r"job\.toml"):
        Ledger.open(tmp_path / "job")


# -- leases --


def test_of_many_who_claim_at_once_one_gets_it(tmp_path: Path) -> None:
    got: list[object] = []
    begin = threading.Barrier(8)

    def one(number: int) -> None:
        begin.wait()
        lease = claim(tmp_path, "shard", f"w{number}", 60.0)
        if lease is not None:
            got.append(lease)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(got) == 1
    (holding,) = holdings(tmp_path, 60.0)
    assert (holding.number, holding.expired) == (1, False)
    got[0].release()  # type: ignore[attr-defined]
    assert list(holdings(tmp_path, 60.0)) == []


def test_a_lease_without_a_sign_of_life_is_taken_over_and_its_holder_learns_of_it(tmp_path: Path) -> None:
    lost = claim(tmp_path, "shard", "first", 60.0)
    assert lost is not None
    assert claim(tmp_path, "shard", "second", 60.0) is None
    long_ago = time.time() - 301
    os.utime(tmp_path / "shard.1", (long_ago, long_ago))

    taken = claim(tmp_path, "shard", "second", 60.0)

    assert taken is not None
    assert (taken.number, taken.inherited, taken.held(), lost.held()) == (2, True, True, False)
    lost.release()
    assert taken.held(), "who lost it takes nothing away from who has it"
    taken.release()
    assert list(tmp_path.glob("shard.*")) == []


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
def test_a_worker_whose_clock_is_wrong_neither_loses_nor_steals_a_lease(
    tmp_path: Path, skew: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = claim(tmp_path, "shard", "first", 60.0)
    assert lease is not None
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + skew)

    assert claim(tmp_path, "shard", "wrong", 60.0) is None
    lease.release()


# -- shards --


@given(
    st.lists(st.tuples(st.integers(0, 1), st.integers(0, 12), st.integers(0, 400), st.sampled_from(("", "generated")))),
    st.integers(1, 7),
)
def test_every_task_is_in_one_shard_within_bounds_and_the_urgent_ones_come_first(
    some: list[tuple[int, int, int, str]], keys: int
) -> None:
    tasks = [
        (dest, Task(f"k{number}", size, class_, (), (), f"d{dest}"), copies)
        for number, (dest, copies, size, class_) in enumerate(some)
    ]

    shards = list(into_shards(iter(tasks), keys=keys, size=1000))

    assert sorted(task.key for _, part in shards for task in part) == sorted(task.key for _, task, _ in tasks)
    assert len({name for name, _ in shards}) == len(shards)
    due = {task.key: (dest, rank(copies, task.storage_class, task.size)) for dest, task, copies in tasks}
    order = [due[task.key] for _, part in sorted(shards) for task in part]
    assert order == sorted(order)
    for _, part in shards:
        assert len(part) <= keys
        assert len(part) == 1 or sum(task.size or 0 for task in part) <= 1000


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30.0), ("6h", 21600.0), ("90d", 7776000.0), ("250ms", 0.25), ("5", 5.0), (7, 7.0)]
)
def test_times_are_read_with_their_units(text: object, value: float) -> None:
    assert seconds(text) == value


def test_what_is_no_time_is_refused() -> None:
    for text in ("soon", "5 parsecs", ""):
        with pytest.raises(ValueError, match=r"."):
            seconds(text)
