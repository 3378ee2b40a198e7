"""What a log becomes when records arrive late, twice, or out of order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.presence import parse_presence, set_presence
from annexpy.repo.records import (
    Clockwork,
    Queued,
    apply_records,
    is_private,
    is_record,
    lines_record,
    presence_record,
    record_path,
)

PATH = b"abc/def/key.log"
UUIDS = st.sampled_from([b"u1", b"u2"])
STATUSES = st.sampled_from([b"0", b"1"])
NASTY = st.binary(max_size=30)


def record(second: float, status: bytes, info: bytes = b"u1", base: bytes = b"") -> Queued:
    return Queued(presence_record(PATH, int(second * 1_000_000), status, info), base)


def nothing(_: bytes) -> None:
    return None


@given(NASTY, st.integers(0, 2**53), STATUSES, NASTY, st.booleans())
def test_any_path_and_info_survive_the_text_form(
    path: bytes, time: int, status: bytes, info: bytes, private: bool
) -> None:
    line = presence_record(path, time, status, info, private=private)

    assert b"\n" not in line
    assert is_record(line)
    assert record_path(line) == path
    assert is_private(line) == private
    if not (b"\n" in info or b"\r" in info):
        after = apply_records(b"", [Queued(line, b"")], nothing)
        assert after == b"%ds %b %b\n" % (time // 1_000_000, status, info)


@given(st.lists(st.binary(max_size=20), max_size=5), st.booleans())
def test_lines_survive_the_text_form_and_are_merged_in(lines: list[bytes], private: bool) -> None:
    content = b"".join(sorted(line.replace(b"\n", b"") + b"x\n" for line in set(lines)))
    line = lines_record(PATH, 1, content, private=private)

    assert is_record(line)
    assert apply_records(b"", [Queued(line, b"")], nothing) == content
    assert apply_records(content, [Queued(line, b"")], nothing) is content
    both = apply_records(b"a\nb\n", [Queued(line, b"")], nothing)
    assert set(both.split(b"\n")) == {b"a", b"b", *content.split(b"\n")}


def test_records_sort_by_path_then_time() -> None:
    lines = [
        presence_record(b"a/b", 5, b"1", b"u"),
        presence_record(b"a/b", 40, b"1", b"u"),
        presence_record(b"a/b.web", 1, b"1", b"u"),
    ]

    assert sorted(lines) == lines


@given(st.lists(st.tuples(st.integers(0, 3), UUIDS, STATUSES), max_size=8))
def test_records_in_order_do_what_git_annex_would(steps: list[tuple[int, bytes, bytes]]) -> None:
    now, queued, content = 100.0, [], b""
    for number, (gap, info, status) in enumerate(steps):
        now += gap
        queued.append(record(now + number / 1000, status, info))
        content = set_presence(content, info, status, VectorClock(int(now) * SECOND))

    assert apply_records(b"", queued, nothing) == content


@given(st.lists(st.tuples(st.integers(0, 2), UUIDS, STATUSES), min_size=1, max_size=8), st.data())
def test_absorbing_again_changes_nothing_whatever_came_later(
    steps: list[tuple[int, bytes, bytes]], data: st.DataObject
) -> None:
    first = data.draw(st.integers(0, len(steps)), label="absorbed before the crash")
    now, queued = 100.0, []
    for number, (gap, info, status) in enumerate(steps[:first]):
        now += gap
        queued.append(record(now + number / 1000, status, info))
    before = set_presence(b"", b"u1", b"1", VectorClock(data.draw(st.sampled_from([90, 100, 500])) * SECOND))
    committed = apply_records(before, queued, lambda _: before)
    later = committed
    for gap, info, status in steps[first:]:
        now += gap
        later = set_presence(later, info, status, VectorClock(int(now) * SECOND))

    again = apply_records(later, queued, lambda _: before)

    assert parse_presence(again) == parse_presence(later)


def test_an_old_present_does_not_override_a_later_missing() -> None:
    assert apply_records(b"105s 0 u1\n", [record(100, b"1")], nothing) == b"105s 0 u1\n"


def test_a_record_that_says_what_is_there_leaves_the_very_content() -> None:
    content = b"90s 1 u1\n"

    assert apply_records(content, [record(100, b"1")], nothing) is content
    assert apply_records(content, [record(80, b"1")], nothing) is content


def test_a_line_from_a_fast_clock_that_was_known_is_overridden() -> None:
    ahead = b"500s 0 u1\n"

    assert apply_records(ahead, [record(100, b"1")], lambda base: ahead) == b"501s 1 u1\n"
    # … but not one that came after the record was queued
    assert apply_records(ahead, [record(100, b"1")], lambda base: b"") == ahead
    assert apply_records(ahead, [record(100, b"1")], nothing) == ahead


def test_of_one_round_the_later_record_of_a_second_wins() -> None:
    assert apply_records(b"", [record(100.2, b"1"), record(100.7, b"0")], nothing) == b"101s 0 u1\n"


def test_a_tie_with_somebody_else_is_not_ours_to_break() -> None:
    assert apply_records(b"100s 0 u1\n", [record(100.7, b"1")], nothing) == b"100s 0 u1\n"


@given(st.lists(st.tuples(st.floats(0, 0.9), UUIDS, STATUSES), max_size=10))
def test_one_process_keeps_its_order_however_its_records_are_absorbed(steps: list[tuple[float, bytes, bytes]]) -> None:
    times, now, together, one_by_one, said = Clockwork(), 100.0, [], b"", {}
    for gap, info, status in steps:
        now += gap
        said[info] = status
        queued = Queued(presence_record(PATH, times.time(now, PATH, info, status), status, info), b"")
        together.append(queued)
        one_by_one = apply_records(one_by_one, [queued], nothing)

    for content in (one_by_one, apply_records(b"", sorted(together), nothing)):
        assert {info: status for info, (_, status) in parse_presence(content).items()} == said


def test_times_go_on_when_the_clock_steps_back() -> None:
    times = Clockwork()

    assert times.tick(100) < times.tick(90) < times.tick(90)


def test_a_presence_record_and_lines_mix() -> None:
    queued = [record(100, b"1"), Queued(lines_record(PATH, 101_000_000, b"99s 1 u2\n"), b""), record(102, b"0", b"u2")]

    assert apply_records(b"", queued, nothing) == b"100s 1 u1\n102s 0 u2\n"
