"""BIDS sidecars are edited without touching a byte outside the fields that are ours."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_store.bids import JsonSidecar, bids_files, read_node
from glimmer_store.errors import SidecarError
from glimmer_store.strict_json import members, parse_json

SCAN = """{
  "RepetitionTime": 2.40,
  "EchoTime": 3e-3,

  "_x-glimmer": {
    "id": "sub-01-T1w",
    "type": "dataset",
    "edges": [ {"type": "conforms-to","target":"standard-bids"} ]
  },
  "Manufacturer": "Größe \\u0041"
}
"""
PLACES = [{"remote": "a", "uuid": "u-1"}, {"remote": "b", "uuid": "u-2"}]


def test_new_fields_stand_at_the_end_of_the_block_laid_out_like_the_others() -> None:
    edited = JsonSidecar.parse(SCAN.encode()).with_fields({"copies": 2, "stored-at": PLACES})

    assert edited.raw.decode() == SCAN.replace(
        '"target":"standard-bids"} ]\n',
        '"target":"standard-bids"} ],\n    "copies": 2,\n    "stored-at": [\n'
        '      {"remote": "a", "uuid": "u-1"},\n      {"remote": "b", "uuid": "u-2"}\n    ]\n',
    )


def test_a_field_that_is_there_keeps_its_place() -> None:
    edited = JsonSidecar.parse(SCAN.encode()).with_fields({"type": "derivative", "id": "sub-01-T1w"})
    assert edited.raw.decode() == SCAN.replace('"dataset"', '"derivative"')


def test_windows_line_ends_stay() -> None:
    raw = SCAN.replace("\n", "\r\n").encode()
    edited = JsonSidecar.parse(raw).with_fields({"stored-at": PLACES})
    assert edited.raw.count(b"\n") == edited.raw.count(b"\r\n") == raw.count(b"\n") + 4


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": 1}', '{"a": 1,"_x-glimmer": {"copies": 2}}'),
        ("{}", '{"_x-glimmer": {"copies": 2}}'),
        ("{\n}\n", '{\n  "_x-glimmer": {\n    "copies": 2\n  }\n}\n'),
        ('{\n\t"a": 1\n}', '{\n\t"a": 1,\n\t"_x-glimmer": {\n\t\t"copies": 2\n\t}\n}'),
    ],
)
def test_a_file_without_block_gets_one(before: str, after: str) -> None:
    assert JsonSidecar.parse(before.encode()).with_fields({"copies": 2}).raw.decode() == after


def test_a_node_that_is_json_throughout_is_edited_as_well(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"id": "x",\n "type": "dataset"}')
    node = read_node(tmp_path / "x.json")
    assert node.fields["id"] == "x"
    assert node.with_fields({"copies": 1}).raw == b'{"id": "x",\n "type": "dataset",\n "copies": 1}'


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b'{"a": 1, "a": 2}', "field 'a' stands twice"),
        (b'{"a": {"b": [{"c": 1, "c": 1}]}}', "field 'c' stands twice"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b'{"a": ' + b"9" * 401 + b"}", "a number of 401 digits, at most 400"),
        (b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", "more than 64 levels"),
        (b'{"a": ' + b"[" * 1_000_000, "does not parse"),
        (b'{"a": "' + b'\\"' * 1_000_000, "does not parse"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"a": "\xff"}', "does not parse"),
        (b" " * (4 << 20) + b"{}", "bytes, at most"),
        (b"[]", "is a list, not an object"),
        (b'{"_x-glimmer": 1}', "_x-glimmer is a int, not an object"),
    ],
)
def test_what_is_refused_is_named(raw: bytes, why: str) -> None:
    with pytest.raises(SidecarError, match=re.escape(why)):
        JsonSidecar.parse(raw)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=5), v, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=6), values, max_size=4)
layouts = st.sampled_from(
    [{"indent": 2}, {"indent": 4}, {"indent": "\t"}, {}, {"separators": (",", ":")}, {"indent": 0}]
)


@given(objects, objects, objects, layouts, st.booleans(), st.booleans())
@settings(max_examples=60)
def test_bytes_outside_our_fields_never_change(
    scan: dict[str, object],
    node: dict[str, object],
    record: dict[str, object],
    layout: dict[str, object],
    ascii_only: bool,
    windows: bool,
) -> None:
    own = {f"own-{name}": value for name, value in record.items()}
    text = json.dumps({**scan, "_x-glimmer": node, "Last": 1}, ensure_ascii=ascii_only, **layout)  # type: ignore[arg-type]
    raw = text.encode("utf-8", "surrogatepass") if ascii_only else text.encode("utf-8", "replace")
    raw = raw.replace(b"\n", b"\r\n") if windows else raw
    before = JsonSidecar.parse(raw)

    after = before.with_fields(own)

    assert dict(after.fields) == {**before.fields, **own}
    assert list(after.fields) == [*before.fields, *own]
    assert after.with_fields(own).raw == after.raw
    assert after.without_fields(own).raw == raw  # every foreign byte is still there, and where it was
    outside = [{k: v for k, v in parse_json(x).items() if k != "_x-glimmer"} for x in (raw, after.raw)]
    assert outside[0] == outside[1]


@given(objects, layouts)
@settings(max_examples=50)
def test_every_member_is_found_where_it_stands(fields: dict[str, object], layout: dict[str, object]) -> None:
    text = json.dumps(fields, **layout)  # type: ignore[arg-type]
    found, close = members(text)
    assert {m.name: json.loads(text[m.value : m.end]) for m in found} == fields
    assert close == len(text) - 1


def test_sidecars_with_a_node_are_found_in_the_dataset(tmp_path: Path) -> None:
    for name in ("sub-01/anat/a.json", "b.json", ".git/c.json", "rokb/d.json", "plain.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}" if name == "plain.json" else SCAN)
    (tmp_path / "gone.json").symlink_to("nowhere")

    found = [path.relative_to(tmp_path).as_posix() for path in bids_files(tmp_path, tmp_path / "rokb")]

    assert found == ["b.json", "sub-01/anat/a.json"]
