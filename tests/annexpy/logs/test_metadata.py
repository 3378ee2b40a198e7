"""Rules found by giving git-annex 10.20261026 random logs and changing another field of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidInput
from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.metadata import compact_metadata, current_metadata, last_changed, remote_metadata, set_metadata

NOW = VectorClock(150 * SECOND)


@pytest.mark.parametrize(
    ("content", "changes", "after"),
    [
        (b"", {"F": {"a b": True, "x": True}, "g": {"!y": True}}, b"150s F +!YSBi +x g +!IXk=\n"),
        (b"100s f +a\n", {"f": {"a": False, "b": True}}, b"150s f -a +b\n"),
        (b"100s f +a\n", {"f": {"a": True}}, b"150s f +a\n"),
        (b"200s f +a\n", {"f": {"a": False, "b": True}}, b"201s f -a +b\n"),
        (b"100s f +a +b\n110s f -a\n", {"g": {"1": True}}, b"100s f +a +b\n110s f -a\n150s g +1\n"),
        (b"100s f +a +b\n110s f -a\n", {"f": {"b": False}}, b"110s f -a\n150s f -b\n"),
        (b"100s a +1\n110s a -1 +2\n120s a -2 +3\n", {"b": {"1": True}}, b"110s a -1\n120s a -2 +3\n150s b +1\n"),
        (b"200s f +a\n90s g +q\n", {"g": {"b": True, "q": False}}, b"200s f +a\n201s g +b -q\n"),
        (b"100s f +!YSBi +!bad! +!IXg=\n", {"z": {"1": True}}, b"100s +!bad! +!IXg= f +!YSBi\n150s z +1\n"),
        (
            b"100s f\n100s g \n100s h +\n100s i -\n100s +x\n100s j  +a  +b\n100s k a\n100s  l +a\n"
            b"100s m +a junk +b\n100 n +a\n100s \n",
            {"z": {"1": True}},
            b"100s  +a +b\n100s h +\n100s i -\n100s junk +b m +a\n100s l +a\n100s n +a\n150s z +1\n",
        ),
        (
            b"100s f-lastchanged +x\n100s Year +2020 +2020 month +1\n",
            {"z": {"1": True}},
            b"100s f-lastchanged +x\n100s month +1 Year +2020\n150s z +1\n",
        ),
        (
            b"",
            {"f": {"": True}, "g": {"a\tb": True}, "h": {"line\nbreak": True}, "i": {"\u00a0": True}},
            b"150s f + g +a\tb h +!bGluZQpicmVhaw== i +\xc2\xa0\n",
        ),
        (
            b"100s A -1 +2\n110s A +1 +2\n110s a +1 b +2 -2\n",
            {"z": {"1": True}},
            b"110s A +1 +2\n110s b -2\n150s z +1\n",
        ),
        (  # a line that mentions nothing is one that can be saved
            b"100s +1 A\n100s +1 +-d -!< -+c -+c A +1\n100s a +1 -1 z z\n",
            {"zz": {"1": True}},
            b"100s +1 +-d -!< -+c\n100s a -1\n150s zz +1\n",
        ),
        (b"100s --a +1 +!< +b\n", {"zz": {"1": True}}, b"100s +!< +b --a +1\n150s zz +1\n"),
        (  # that line again: the first word is a field, and the next that was one is a value
            b"100s +!< +b --a +1\n150s zz +1\n",
            {"zz": {"1": False, "2": True}},
            b"100s +!< --a +1 +b\n151s zz -1 +2\n",
        ),
        (b"100s a +2\n100s A -2 a +1 +1\n", {"z": {"1": True}}, b"100s a +1 -2\n100s a +2\n150s z +1\n"),
    ],
)
def test_a_change_is_written_as_git_annex_does(
    content: bytes, changes: dict[str, dict[str, bool]], after: bytes
) -> None:
    assert set_metadata(content, changes, NOW) == after


@pytest.mark.parametrize(
    ("content", "values"),
    [
        (b"100s f +a\n100s f -a\n", {}),
        (b"100s f -a\n100s f +a\n", {"f": {"a"}}),
        (b"100s f +a -a\n", {}),
        (b"100s f -a +a\n", {"f": {"a"}}),
        (b"100s f +a +b g +x\n110s f -a h +z\n120s F +q\n", {"F": {"b", "q"}, "g": {"x"}, "h": {"z"}}),
        (b"100s f +a\n90s f -a\n", {"f": {"a"}}),
        (b"100s f +!YSBi\n", {"f": {"a b"}}),
    ],
)
def test_values_add_up_over_the_lines(content: bytes, values: dict[str, set[str]]) -> None:
    assert current_metadata(content) == values


def test_a_field_was_last_changed_when_anything_of_it_was() -> None:
    assert last_changed(b"100s f +a\n110s F -b\n105s g +c\n") == {"f": 110 * SECOND, "g": 105 * SECOND}


def test_metadata_of_a_special_remote_is_found_by_its_uuid() -> None:
    content = set_metadata(b"100s u2:f +x\n", {"v": {"1": True}}, NOW, remote="u1")

    assert content == b"100s u2:f +x\n150s u1:v +1\n"
    assert remote_metadata(content, "u1") == {"v": {"1"}}
    assert remote_metadata(content, "u2") == {"f": {"x"}}


@pytest.mark.parametrize("field", ["", "_a", "-a", ".a", "a b", "a:b", "a/b", "+a", "a\n", "."])
def test_a_field_that_git_annex_would_refuse_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match="metadata field"):
        set_metadata(b"", {field: {"1": True}}, NOW)


@pytest.mark.parametrize("field", ["a", "A1", "a_b", "a.b-c", "é", "1"])
def test_a_field_that_git_annex_takes_is_taken(field: str) -> None:
    assert current_metadata(set_metadata(b"", {field: {"1": True}}, NOW)) == {field: {"1"}}


# a field that starts with a sign, or follows a value that is none, is not read back as it was written: not by
# git-annex either, so there are none here
words = st.sampled_from([b"f", b"F", b"g", b"f +a", b"f -a +b", b"+a", b"-a", b"+b", b"-", b"+!YSBi", b"", b"+\xff"])
lines = st.builds(
    lambda clock, ws: clock + b" f " + b" ".join(ws),
    st.sampled_from([b"100s", b"101", b"99.5s", b"x", b""]),
    st.lists(words, max_size=6),
)
soups = st.lists(lines | st.binary(max_size=9), max_size=6).map(b"\n".join)


@given(soups)
def test_compacting_keeps_what_the_metadata_is(content: bytes) -> None:
    once = compact_metadata(content)

    assert compact_metadata(once) == once
    assert {f.lower(): vs for f, vs in current_metadata(once).items()} == {
        f.lower(): vs for f, vs in current_metadata(content).items()
    }


@given(
    soups,
    st.dictionaries(
        st.sampled_from(["f", "G"]),
        st.dictionaries(st.text(max_size=3).filter(str.isprintable), st.booleans(), min_size=1, max_size=2),
        min_size=1,
    ),
)
def test_what_was_set_is_so_and_the_rest_stays(content: bytes, changes: dict[str, dict[str, bool]]) -> None:
    before = {f.lower(): vs for f, vs in current_metadata(content).items()}
    after = {f.lower(): vs for f, vs in current_metadata(set_metadata(content, changes, NOW)).items()}

    for field in {*before, *after, "f", "g"}:
        expected = set(before.get(field, ()))
        for value, is_set in changes.get(field, changes.get(field.upper(), {})).items():
            (expected.add if is_set else expected.discard)(value)
        assert after.get(field, set()) == expected
