"""Limits of a job: what is read, what is refused, and that buckets hold them for every sequence of takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_store.errors import ConfigError
from glimmer_store.jobs.limits import Bucket, Limiter, Limits, Window, parse_bandwidth, parse_requests

MONDAY = datetime(2026, 11, 23, tzinfo=UTC)


def at(day: int, hour: int, minute: int = 0) -> datetime:
    return MONDAY + timedelta(days=day, hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("text", "rate"), [("200MB/s", 200e6), ("1 GB/min", 1e9 / 60), ("512KiB/s", 524288.0), ("36kB/h", 10.0)]
)
def test_a_bandwidth_is_bytes_in_a_second(text: str, rate: float) -> None:
    assert parse_bandwidth(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["", "200MB", "0B/s", "-5MB/s", "fast/s", "1MB/week", "5/s/s"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_bandwidth(text)


@pytest.mark.parametrize(("text", "rate"), [("50/s", 50.0), ("30/min", 0.5), ("7.2/h", 0.002)])
def test_requests_are_so_many_in_a_second(text: str, rate: float) -> None:
    assert parse_requests(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["50", "0/s", "-1/s", "nan/s", "1e9/s", "9/fortnight"])
def test_what_is_no_number_of_requests_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_requests(text)


def test_a_window_goes_on_after_midnight() -> None:
    window = Window.parse("20:00-06:00")

    assert window.open(at(0, 20))
    assert window.open(at(1, 5, 59))
    assert not window.open(at(1, 6))
    assert window.opens(at(1, 6)) == 14 * 3600
    assert window.opens(at(0, 23)) == 0


def test_the_night_after_the_last_day_of_a_window_belongs_to_it() -> None:
    window = Window.parse("mon-fri 20:00-06:00, sat 00:00-24:00")

    assert window.open(at(5, 12))  # Saturday
    assert not window.open(at(6, 1))  # Sunday: Saturday's part is over
    assert window.opens(at(6, 1)) == (19 + 24) * 3600
    assert not window.open(at(0, 3))  # Monday before dawn would be Sunday's night
    assert Window.parse("fri-mon 10:00-11:00").open(at(6, 10, 30))


@pytest.mark.parametrize("text", ["", "20:00", "25:00-06:00", "08:00-08:00", "08:60-09:00", "foo 08:00-09:00", "8-9"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        Window.parse(text)


def test_limits_are_read_changed_and_taken_away() -> None:
    limits = Limits.of({"workers": 8, "per-source": 4, "bandwidth": "200MB/s", "requests": "50/s"})

    changed = limits.changed({"bandwidth": "none", "per-source": "2", "window": "20:00-06:00"})
    changed = changed.changed({"places": {"u1": {"bandwidth": "1MB/s"}}}).changed(
        {"places": {"u1": {"requests": "5/s"}}}
    )

    assert (limits.bandwidth, changed.bandwidth) == (200e6, None)
    assert (changed.workers, changed.per_source, changed.requests) == (8, 2, 50.0)
    assert (changed.places["u1"].bandwidth, changed.places["u1"].requests) == (1e6, 5.0)
    assert changed.to_json()["window"] == "20:00-06:00"


@pytest.mark.parametrize(
    "table", [{"speed": "1MB/s"}, {"workers": 0}, {"workers": True}, {"bandwidth": 5}, {"places": {"u": {"x": 1}}}]
)
def test_a_limit_that_is_not_known_or_malformed_is_named(table: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(table))):
        Limits.of(table)


@given(
    rate=st.floats(1, 1e9),
    takes=st.lists(st.tuples(st.integers(1, 10_000_000), st.floats(0, 5)), min_size=1, max_size=50),
)
def test_whoever_waits_never_gets_more_than_the_rate_and_a_second(rate: float, takes: list[tuple[int, float]]) -> None:
    now, used = 100.0, 0
    bucket = Bucket(rate, now)
    for amount, idle in takes:
        now += idle + bucket.wait(now + idle)
        # everything before this moment was allowed: it fits in what flowed, the first second and nothing else
        assert used <= (rate * (now - 100.0) + rate) * (1 + 1e-9) + 1e-3
        bucket.take(amount, now)
        used += amount


@given(changes=st.lists(st.floats(1, 1e6), min_size=1, max_size=20))
def test_changing_the_rate_forgives_nothing(changes: list[float]) -> None:
    bucket = Bucket(1000.0, 0.0)
    bucket.take(1_001_000, 0.0)  # a million owed

    for rate in changes:
        bucket.change(rate, 0.0)

    assert bucket.wait(0.0) >= 1e6 / changes[-1] * (1 - 1e-9)


def test_the_slowest_of_job_source_and_destination_decides() -> None:
    limits = Limits.of(
        {"bandwidth": "1000B/s", "source-bandwidth": "100B/s", "places": {"slow": {"bandwidth": "10B/s"}}}
    )
    limiter = Limiter(limits)

    limiter.take(0.0, source="a", dest="d", size=300)
    limiter.take(0.0, source="slow", dest="d", size=110)

    assert limiter.wait(0.0, source="a", dest="d") == pytest.approx(2.0)
    assert limiter.wait(0.0, source="slow", dest="d") == pytest.approx(10.0)
    assert limiter.wait(0.0, source="b", dest="d") == 0


def test_the_shares_of_all_workers_are_the_limit() -> None:
    limits = Limits.of({"bandwidth": "1000B/s"})
    workers = [Limiter(limits, share=0.25) for _ in range(4)]

    for worker in workers:
        worker.take(0.0, size=250)  # a second's worth of a quarter
        worker.take(0.0, size=250)

    assert [worker.wait(0.0) for worker in workers] == [pytest.approx(1.0)] * 4


def test_a_limit_that_changes_holds_at_once() -> None:
    limiter = Limiter(Limits.of({"bandwidth": "10B/s", "requests": "1/min"}))
    limiter.take(0.0, size=110, requests=1)
    assert limiter.wait(0.0) == pytest.approx(10.0)

    limiter.change(Limits.of({"bandwidth": "100B/s"}), 1.0, 0.0)
    assert limiter.wait(0.0) == pytest.approx(1.0)
    limiter.change(Limits(), 1.0, 0.0)
    assert limiter.wait(0.0) == 0
    limiter.change(Limits.of({"requests": "2/s"}), 0.5, 0.0)
    limiter.take(0.0, requests=3)
    assert limiter.wait(0.0) == pytest.approx(2.0)
