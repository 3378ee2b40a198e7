"""What ``git annex`` 10.20261026 made of these logs when another line of them was changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidInput
from annexpy.logs.compact import COMPACT, malformed_lines
from annexpy.logs.line import SECOND, VectorClock, union_merge
from annexpy.logs.paths import Log
from annexpy.logs.preferred import GROUP_PREFERRED_CONTENT
from annexpy.logs.repos import DESCRIPTIONS
from annexpy.logs.settings import CONFIG
from annexpy.logs.uuidbased import Entry, to_uuid
from annexpy.uuids import UUID

NOW = VectorClock(150 * SECOND)
ME = UUID("11111111-0000-4000-8000-00000000000f")


@pytest.mark.parametrize(
    ("line", "rewritten"),
    [
        (b"u desc one timestamp=100s", b"u desc one timestamp=100s"),
        (b"u no timestamp here", b"u no timestamp here"),
        (b"u bad timestamp=abc", b"u bad timestamp=abc"),
        (b"u two timestamp=5s timestamp=6s", b"u two timestamp=5s timestamp=6s"),
        (b"u", b"u "),
        (b"u ", b"u "),
        (b"u timestamp=7s", b"u  timestamp=7s"),
        (b"u  timestamp=8s", b"u  timestamp=8s"),
        (b"u x  y  timestamp=9s", b"u x  y  timestamp=9s"),
        (b" u lead timestamp=1s", None),
        (b"u  lead timestamp=1s", b"u  lead timestamp=1s"),
        (b"u\ttab timestamp=1s", b"u\ttab  timestamp=1s"),
        (b"u trail timestamp=1s ", b"u trail timestamp=1s "),
        (b"u x timestamp=1.50", b"u x timestamp=1.5s"),
        (b"u x timestamp=+1s", b"u x timestamp=1s"),
        (b"u x timestamp=-1s", b"u x timestamp=-1s"),
        (b"u xtimestamp=3s", b"u xtimestamp=3s"),
        (b"u timestamp=3s more", b"u timestamp=3s more"),
        (b"u new timestamp=10s\nu old", b"u new timestamp=10s"),
        (b"u a\nu b", b"u b"),
        (b"u a timestamp=0s\nu b", b"u a timestamp=0s"),
        (b"u b\nu a timestamp=-5s", b"u a timestamp=-5s"),
        (b"u a timestamp=5s\nu b timestamp=5.0s", b"u b timestamp=5s"),
        (b"u \xff\xfe timestamp=1s\r", b"u \xff\xfe timestamp=1s"),
        (b"u x timestamp=", b"u x timestamp="),
        (b"u timestamp=x", b"u timestamp=x"),
        (b"u v timestamp=1s timestamp=x", b"u v timestamp=1s timestamp=x"),
        (b"timestamp=1s", b"timestamp=1s "),
        (b"timestamp=1s timestamp=2s", b"timestamp=1s  timestamp=2s"),
    ],
)
def test_a_line_of_uuid_log_is_rewritten_as_git_annex_does(line: bytes, rewritten: bytes | None) -> None:
    assert DESCRIPTIONS.compact(line + b"\n") == (b"" if rewritten is None else rewritten + b"\n")


def test_a_uuid_log_is_sorted_and_its_clock_moves_on_for_the_same_value() -> None:
    content = b"u2 x\n%b me timestamp=200s\nu1 y timestamp=1s\n" % ME.encode()

    assert DESCRIPTIONS.set(content, ME, "me", NOW) == (
        b"%b me timestamp=201s\nu1 y timestamp=1s\nu2 x\n" % ME.encode()
    )


def test_group_preferred_content_is_rewritten_as_git_annex_does() -> None:
    content = (
        b"100s g1  include=a   or b \n 100s g2 include=a\n100s g3\n100s  g4 include\n100s g5 \n100 z x\n+1s b y\n"
        b"100s\tg6 x\n100s g1 tie\n99s g1 older\ngarbage\n"
    )

    assert GROUP_PREFERRED_CONTENT.set(content, "gx", "include=x", NOW) == (
        b"100s  g4 include\n1s b y\n100s g1 tie\n100s g5 \n150s gx include=x\n100s z x\n"
    )


def test_config_log_is_rewritten_as_git_annex_does_and_only_when_a_value_changes() -> None:
    content = (
        b"100s annex.largefiles  a  b \n100s annex.x\n100s annex.y \n100s annex.largefiles c\n"
        b"100s annex.largefiles d \n50s annex.foo bar\n100s  annex.dbl z\n"
    )

    assert CONFIG.set(content, "annex.securehashesonly", "true", NOW) == (
        b"100s  annex.dbl z\n50s annex.foo bar\n100s annex.largefiles d \n150s annex.securehashesonly true\n"
        b"100s annex.y \n"
    )
    assert CONFIG.set(content, "annex.foo", "bar", NOW) is content


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\n"])
def test_a_value_cannot_forge_a_line(value: str) -> None:
    with pytest.raises(InvalidInput):
        DESCRIPTIONS.set(b"", ME, value, NOW)
    with pytest.raises(InvalidInput):
        CONFIG.set(b"", "a", value, NOW)


@pytest.mark.parametrize("field", ["", "two words", "a\nb"])
def test_a_uuid_that_would_not_be_read_back_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput):
        DESCRIPTIONS.set(b"", UUID(field), "x", NOW)


def test_entries_tell_the_clock() -> None:
    entries = DESCRIPTIONS.entries(b"a x timestamp=1.5s\nb y\n")

    assert entries == {UUID("a"): Entry(VectorClock(3 * SECOND // 2), "x"), UUID("b"): Entry(None, "y")}


clocks = st.sampled_from(["100s", "100", "101.5s", "-5s", "1e2", ""])
fields = st.sampled_from(
    ["a", "b", "u:1", "u:100", "u:20", "u:x", "u:v", str(ME), "", "ac702100-873f-876c-a12c-4026b11e785c"]
)
values = st.sampled_from(
    [
        *("", " ", "1", "0", "X", "?", "01", "a b", " b  a", "k=v &65; z=&x;", "u:n v:m", "n1:a noname", "t1 t2", "3x"),
        *("!YQ==:!b", "+a -b f +!YSBi", "f +a f +b", "fromList [A,B]", "Fsck", "é", "\udcff", "timestamp=1s"),
        "x timestamp=2s ",
    ]
)
lines = st.one_of(
    st.builds("{} {} {}".format, clocks, fields, values),
    st.builds("{} {} timestamp={}".format, fields, values, clocks),
    st.builds("{} {}".format, values, clocks),
    st.text(max_size=12),
).map(lambda line: line.encode("utf-8", "surrogateescape"))
soups = st.lists(lines | st.binary(max_size=12), max_size=8).map(b"\n".join)


@given(soups, st.sampled_from(list(Log)))
def test_no_soup_of_lines_raises_and_compacting_is_idempotent(content: bytes, log: Log) -> None:
    once = COMPACT[log](content)

    assert COMPACT[log](once) == once
    assert malformed_lines(log, once) == []


@given(soups, soups, st.sampled_from(list(Log)))
def test_a_merge_reads_the_same_from_either_side(a: bytes, b: bytes, log: Log) -> None:
    a, b = COMPACT[log](a), COMPACT[log](b)
    merged = COMPACT[log](union_merge(a, b))

    # what is already sorted merges to the same bytes; a compacted log need not be sorted as bytes
    assert sorted(union_merge(a, b).split(b"\n")) == sorted(union_merge(b, a).split(b"\n"))
    assert COMPACT[log](union_merge(merged, merged)) == merged


@given(soups, st.integers(-200, 200))
def test_a_value_that_was_set_is_read_back_and_the_rest_stays(content: bytes, seconds: int) -> None:
    before = DESCRIPTIONS.entries(content)
    after = DESCRIPTIONS.set(content, to_uuid(b"new"), "a value timestamp=1s", VectorClock(seconds * SECOND))
    entries = DESCRIPTIONS.entries(after)

    assert entries.pop(to_uuid(b"new")).value == "a value timestamp=1s"
    assert entries == {uuid: entry for uuid, entry in before.items() if uuid != "new"}
