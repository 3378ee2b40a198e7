from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidInput
from annexpy.logs.line import SECOND, VectorClock, complete_lines, union_merge
from annexpy.logs.presence import (
    DEAD,
    MISSING,
    PRESENT,
    compact_presence,
    dead,
    format_presence,
    parse_presence,
    present,
    set_dead,
    set_presence,
)

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "location_log.json").read_text("utf-8"))
A = VECTORS["A"].encode()
AT_150 = VectorClock(150 * SECOND)

infos = st.sampled_from([b"a", b"b", b"a ", b" a", b"", b"\xff\xfe", b"caf\xc3\xa9", b"a b", A]) | st.binary(max_size=8)
clocks = st.sampled_from(
    [b"100s", b"100", b"+100s", b"100.5s", b"100.10s", b"-7s", b"0100s", b"1e2s", b"100.s", b".5s", b""]
)
statuses = st.sampled_from([b"1", b"0", b"X", b"2", b""])
lines = st.builds(lambda c, s, i: c + b" " + s + b" " + i, clocks, statuses, infos) | st.binary(max_size=12)
soups = st.builds(
    lambda ls, end, last: end.join(ls) + last,
    st.lists(lines, max_size=7),
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\n\n"]),
    st.sampled_from([b"", b"\n", b"\r\n"]),
)


@pytest.mark.vectors
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_location_log_vectors(case: dict[str, object]) -> None:
    content = str(case["input"]).encode()

    assert present(content) == sorted(str(info).encode() for info in case["present"])  # type: ignore[attr-defined]
    assert set_presence(content, A, PRESENT, AT_150).decode() == case["after_set_A_1_at_clock_150"]
    assert set_presence(content, A, MISSING, AT_150).decode() == case["after_set_A_0_at_clock_150"]


def test_the_same_status_returns_the_same_object() -> None:
    content = b"100s 1 a\r\n\nno line\n50s 0 a"

    assert set_presence(content, b"a", PRESENT, AT_150) is content


def test_a_rewrite_drops_what_does_not_parse_and_normalises_clocks() -> None:
    content = b"+100.50s 1 z\n\xff\n007 0 b\n100s 2 c\n100s  1 d\n"

    assert set_presence(content, b"a", PRESENT, AT_150) == b"150s 1 a\n7s 0 b\n100.5s 1 z\n"


def test_a_new_line_is_a_second_later_than_a_clock_that_is_not_past() -> None:
    assert set_presence(b"150s 0 a\n", b"a", PRESENT, AT_150) == b"151s 1 a\n"
    assert set_presence(b"149.9s 0 a\n", b"a", PRESENT, AT_150) == b"150s 1 a\n"
    assert set_presence(b"200.5s 0 a\n100s 1 a\n", b"a", DEAD, AT_150) == b"201.5s X a\n"


def test_an_unknown_repository_is_recorded_as_missing_too() -> None:
    assert set_presence(b"", b"a", MISSING, AT_150) == b"150s 0 a\n"


@pytest.mark.parametrize("info", [b"a\n200s 1 b", b"a\r200s 1 b", b"\n"])
def test_an_info_cannot_forge_a_line(info: bytes) -> None:
    with pytest.raises(InvalidInput):
        set_presence(b"", info, PRESENT, AT_150)


@pytest.mark.parametrize("status", [b"", b"2", b"x", b"11", b"1 b\n1s 1"])
def test_a_status_is_one_of_three(status: bytes) -> None:
    with pytest.raises(InvalidInput):
        set_presence(b"", b"a", status, AT_150)


def test_a_last_line_without_newline_counts_in_the_branch_and_not_in_the_journal() -> None:
    content = b"100s 1 a\n100s 1 b"

    assert present(content) == [b"a", b"b"]
    assert present(complete_lines(content)) == [b"a"]
    assert complete_lines(b"100s 1 a") == b""
    assert complete_lines(b"100s 1 a\n") == b"100s 1 a\n"


def test_giving_up_a_key_marks_missing_lines_dead_a_picosecond_later() -> None:
    # measured: git annex dead --key
    content = b"100s X a\n100s 0 b\n"

    assert set_dead(content) == b"100s X a\n100.000000000001s X b\n"
    assert set_dead(b"100s 1 a\n") == b"100s 1 a\n"
    assert dead(set_dead(content)) == [b"a", b"b"]


@given(soups)
def test_no_soup_of_lines_raises_and_a_rewrite_is_idempotent(content: bytes) -> None:
    once = compact_presence(content)

    assert compact_presence(once) == once
    assert parse_presence(once) == parse_presence(content)
    assert present(once) == present(content)


@given(soups, st.sampled_from([A, b"a", b"zz"]), st.sampled_from([PRESENT, MISSING, DEAD]), st.integers(-200, 200))
def test_after_set_presence_the_log_says_so_and_says_the_rest_as_before(
    content: bytes, info: bytes, status: bytes, seconds: int
) -> None:
    before = parse_presence(content)
    after = set_presence(content, info, status, VectorClock(seconds * SECOND))
    log = parse_presence(after)

    assert log[info][1] == status
    assert set_presence(after, info, status, VectorClock(seconds * SECOND)) is after
    assert {i: line for i, line in log.items() if i != info} == {i: line for i, line in before.items() if i != info}
    if info in before and after is not content:
        assert log[info][0] > before[info][0]


@given(soups, soups)
def test_a_merge_never_loses_the_newer_line(a: bytes, b: bytes) -> None:
    merged = parse_presence(union_merge(a, b))

    for side in (parse_presence(a), parse_presence(b)):
        for info, (clock, _) in side.items():
            assert merged[info][0] >= clock


@given(
    st.dictionaries(
        st.binary(max_size=6).filter(lambda i: not {10, 13} & set(i)),
        st.tuples(st.integers(-(10**26), 10**26), st.sampled_from([b"1", b"0", b"X"])),
    )
)
def test_format_and_parse_are_inverse(log: dict[bytes, tuple[VectorClock, bytes]]) -> None:
    # git-annex itself drops the sign of a time within the last second before 1970
    kept = {i: (c if not -SECOND < c < 0 else VectorClock(-c), s) for i, (c, s) in log.items()}

    assert parse_presence(format_presence(log)) == kept
