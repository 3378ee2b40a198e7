from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidInput
from annexpy.logs.line import (
    SECOND,
    VectorClock,
    check_one_line,
    format_clock,
    log_lines,
    merge_lines,
    parse_clock,
    tick,
    union_merge,
    whole_seconds,
)


@pytest.mark.parametrize(
    ("raw", "rewritten"),
    [
        (b"100", b"100s"),
        (b"100s", b"100s"),
        (b"+100s", b"100s"),
        (b"-100s", b"-100s"),
        (b"0100s", b"100s"),
        (b"-0s", b"0s"),
        (b"100.10s", b"100.1s"),
        (b"100.1234567890129s", b"100.123456789012s"),
        (b"-5.25s", b"-5.25s"),
        (b"-5.9999999999999s", b"-5.999999999999s"),
        (b"-0.5s", b"0.5s"),
        (b"000.500", b"0.5s"),
        (b"0.0000000000001s", b"0s"),
        (b"99999999999999999999999.5s", b"99999999999999999999999.5s"),
    ],
)
def test_a_clock_is_rewritten_as_git_annex_does(raw: bytes, rewritten: bytes) -> None:
    clock = parse_clock(raw)

    assert clock is not None
    assert format_clock(clock) == rewritten


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"s", b"100ss", b"100 s", b"--5s", b"+-5s", b"1e2s", b".5s", b"100.", b"100.s", b"1.5.5s", b"0x10"),
        *(b"1_0s", b"\xd9\xa3s", b"100.-5s", b"100.+5s", b"100S", b"100s\n", b" 100s", b"9" * 5000),
    ],
)
def test_what_is_no_clock(raw: bytes) -> None:
    assert parse_clock(raw) is None


def test_clocks_compare_exactly() -> None:
    raws = [
        b"-6",
        b"-5.5",
        b"-5.25",
        b"0",
        b"0.000000000001",
        b"99.999999999999",
        b"100",
        b"100.1",
        b"100.12",
        b"100.2",
    ]
    clocks = [parse_clock(raw) for raw in raws]

    assert None not in clocks
    assert clocks == sorted(clocks)  # type: ignore[type-var]
    assert len(set(clocks)) == len(clocks)
    assert parse_clock(b"100.10s") == parse_clock(b"100.1")


def test_git_annex_takes_whole_seconds() -> None:
    assert whole_seconds(1795219726.9) == 1795219726 * SECOND
    assert whole_seconds(-0.5) == -SECOND


@given(st.integers(-(10**25), 10**25).filter(lambda c: not -SECOND < c < 0))
def test_every_clock_comes_back_from_its_text(clock: int) -> None:
    assert parse_clock(format_clock(VectorClock(clock))) == clock


@given(st.none() | st.integers(-(10**20), 10**20), st.integers(-(10**20), 10**20))
def test_a_tick_is_later_than_the_old_line_and_not_before_now(old: VectorClock | None, now: VectorClock) -> None:
    clock = tick(old, now)

    assert clock >= now
    assert old is None or old < clock
    assert clock == now or clock == (old or 0) + SECOND


def test_any_run_of_cr_and_lf_ends_a_line() -> None:
    assert log_lines(b"a\r\nb\r\r\n\rc\n\nd") == [b"a", b"b", b"c", b"d"]
    assert log_lines(b"") == []
    assert merge_lines(b"a\r\n\nb") == [b"a\r", b"", b"b"]


@pytest.mark.parametrize(
    ("ours", "theirs", "merged"),
    [
        (b"200s 1 b\n", b"A\n\x80\n", b"200s 1 b\nA\n\x80\n"),
        (b"\t\n100s 1 a\r\n100s 1 a\r\n", b"", b"\t\n100s 1 a\r\n100s 1 a\r\n"),
        (b"garbage\n\n\x00z\n100s 1 a\r", b"\x00z\n", b"garbage\n\n\x00z\n100s 1 a\r"),
        (b"", b" x\n100s 1 a\n100s 1 a\n", b" x\n100s 1 a\n100s 1 a\n"),
        (b"b\na\n", b"a\nb", b"b\na\n"),
        (b"a", b"a\n", b"a"),
        (b"", b"\n", b"\n"),
        (b"", b"", b""),
    ],
)
def test_union_merge_as_measured(ours: bytes, theirs: bytes, merged: bytes) -> None:
    assert union_merge(ours, theirs) == merged


soups = st.lists(st.sampled_from([b"a\n", b"b\n", b"\n", b"a\r\n", b"c", b"\xff\n", b"b "]), max_size=8).map(b"".join)
canonical = st.sets(st.binary(max_size=3).filter(lambda line: b"\n" not in line), max_size=6).map(
    lambda lines: b"".join([line + b"\n" for line in sorted(lines)])
)


@given(canonical, canonical, canonical)
def test_on_sorted_logs_the_merge_is_commutative_associative_and_idempotent(a: bytes, b: bytes, c: bytes) -> None:
    assert union_merge(a, b) == union_merge(b, a)
    assert union_merge(union_merge(a, b), c) == union_merge(a, union_merge(b, c))
    assert union_merge(a, a) == a
    assert union_merge(a, union_merge(a, b)) == union_merge(a, b)


@given(soups, soups, soups)
def test_on_any_bytes_the_merge_is_so_as_a_set_of_lines(a: bytes, b: bytes, c: bytes) -> None:
    def lines(content: bytes) -> set[bytes]:
        return set(merge_lines(content))

    assert lines(union_merge(a, b)) == lines(union_merge(b, a)) == lines(a) | lines(b)
    assert lines(union_merge(union_merge(a, b), c)) == lines(union_merge(a, union_merge(b, c)))
    assert union_merge(a, a) is a


@pytest.mark.parametrize("value", [b"a\nb", b"a\r", b"\n"])
def test_a_value_with_a_line_end_is_refused_by_name(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="group name"):
        check_one_line(value, "group name")


def test_a_value_without_line_end_passes() -> None:
    assert check_one_line(b"a b\t\x00", "group name") == b"a b\t\x00"
