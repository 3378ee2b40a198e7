"""Node files are edited without touching a foreign byte."""

from __future__ import annotations

import re
import time

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_store.errors import SidecarError
from glimmer_store.sidecar import Sidecar

NODE = b"""---
# written by hand
id: derivative-sub-01-brain   # keep me
type: derivative
stored-at:
- remote: old
  uuid: 11111111-1111-4111-8111-111111111111
# about the copies
copies: 1
verified: false

parameters:
  frac: 0.5
edges: []
provenance-hash: sha256:0123456789abcdef
---

Body with --- inside
---
and trailing blanks  \n"""


def test_an_edit_changes_only_the_lines_of_its_fields() -> None:
    edited = Sidecar.parse(NODE).with_fields({"copies": 3, "stored-at": [{"remote": "a", "uuid": "u"}]})

    assert edited.raw == NODE.replace(b"copies: 1", b"copies: 3").replace(
        b"- remote: old\n  uuid: 11111111-1111-4111-8111-111111111111", b"- remote: a\n  uuid: u"
    )


def test_a_field_that_says_so_already_keeps_its_bytes() -> None:
    assert Sidecar.parse(NODE).with_fields({"copies": 1, "verified": False, "edges": []}).raw == NODE


def test_new_fields_go_to_the_end_of_the_front_matter() -> None:
    edited = Sidecar.parse(NODE).with_fields({"storage-class": "generated"})

    assert edited.raw == NODE.replace(b"abcdef\n---", b"abcdef\nstorage-class: generated\n---")


def test_a_value_of_another_type_is_not_the_same_value() -> None:
    assert Sidecar.parse(b"---\nverified: 1\n---\n").with_fields({"verified": True}).fields["verified"] is True


def test_windows_line_ends_stay() -> None:
    raw = NODE.replace(b"\n", b"\r\n")
    edited = Sidecar.parse(raw).with_fields({"copies": 2, "numcopies-required": 3})

    assert edited.raw.count(b"\n") == edited.raw.count(b"\r\n") == raw.count(b"\n") + 1
    assert edited.body == Sidecar.parse(raw).body


def test_the_body_is_everything_after_the_front_matter() -> None:
    assert Sidecar.parse(NODE).body == NODE.split(b"abcdef\n---\n", 1)[1]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"id: x\n",
        b"---\nid: x\n",
        b"---\n- a\n---\n",
        b"---\na: [\n---\n",
        b"---\na: &x [1]\nb: *x\n---\n",
        b"---\na: \xff\n---\n",
        b"---\n" + b"a" * (1 << 20) + b": 1\n---\n",
        b"---\na: " + b"[" * 5000 + b"\n---\n",
    ],
)
def test_malformed_node_files_are_refused(raw: bytes) -> None:
    with pytest.raises(SidecarError):
        Sidecar.parse(raw)


def test_a_yaml_bomb_is_refused_quickly() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else '1'}]" for n in range(12))

    before = time.process_time()
    with pytest.raises(SidecarError):
        Sidecar.parse(f"---\n{levels}\n---\n".encode())
    assert time.process_time() - before < 0.5


scalars = st.one_of(st.integers(), st.booleans(), st.none(), st.text(max_size=20))
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=6)
fronts = st.dictionaries(names, values, min_size=1, max_size=6)


@given(fronts, fronts, st.binary(max_size=60))
def test_any_edit_keeps_the_other_fields_and_the_body(
    front: dict[str, object], changes: dict[str, object], body: bytes
) -> None:
    raw = b"---\n" + yaml.safe_dump(front, sort_keys=False).encode() + b"---\n" + body
    before = Sidecar.parse(raw)

    after = before.with_fields(changes)

    assert after.body == body
    assert dict(after.fields) == {**front, **changes}
    assert after.with_fields(changes).raw == after.raw


@pytest.mark.parametrize(
    "front",
    [b'text: "\ncopies: 1\n"\ncopies: 2\n', b"? copies\n: 2\n"],
    ids=["in a text", "in another form"],
)
def test_a_field_that_cannot_be_told_from_another_is_not_edited(front: bytes) -> None:
    node = Sidecar.parse(b"---\n" + front + b"---\n")

    with pytest.raises(SidecarError, match="cannot change copies"):
        node.with_fields({"copies": 3})


@pytest.mark.parametrize(
    ("front", "why"),
    [
        (b"copies: 1\ncopies: 2\n", "field 'copies' stands twice, again in line 3"),
        (b"copies: 1\n? copies\n: 2\n", "field 'copies' stands twice"),
        (b"parameters:\n  frac: 1\n  frac: 2\n", "field 'frac' stands twice, again in line 4"),
        (b"a: {1: x, 0x1: y}\n", "field 1 stands twice"),
        (b"a: {<<: {b: 1}}\n", "merge keys"),
        (b"a: &x 1\nb: *x\n", "aliases are not allowed"),
        (b"a: " + b"9" * 401 + b"\n", "a number of 401 digits, at most 400"),
        (b"a: " + b"[" * 65 + b"]" * 65 + b"\n", "more than 64 levels"),
        (b"a: !!python/object/apply:os.getpid []\n", "could not determine a constructor"),
    ],
)
def test_what_is_refused_is_named(front: bytes, why: str) -> None:
    with pytest.raises(SidecarError, match=re.escape(why)):
        Sidecar.parse(b"---\n" + front + b"---\n")


def test_what_was_added_can_be_taken_out_again() -> None:
    bare = re.sub(rb"stored-at:.*?(?=parameters)", b"", NODE, flags=re.DOTALL)
    record = {"stored-at": [{"remote": "a", "uuid": "u"}], "copies": 1, "verified": True}

    added = Sidecar.parse(bare).with_fields(record)

    assert added.raw != bare
    assert added.without_fields(record).raw == bare


@given(fronts, fronts, st.sampled_from([b"\n", b"\r\n"]))
@settings(max_examples=40)
def test_taking_out_what_was_added_gives_every_byte_back(
    front: dict[str, object], added: dict[str, object], newline: bytes
) -> None:
    own = {f"own-{name}": value for name, value in added.items()}
    raw = b"---\n" + yaml.safe_dump(front, sort_keys=False).encode() + b"---\nbody\n"
    raw = raw.replace(b"\n", newline)

    assert Sidecar.parse(raw).with_fields(own).without_fields(own).raw == raw


def test_a_foreign_field_may_be_no_number() -> None:
    assert Sidecar.parse(b"---\nx: .nan\n---\n").with_fields({"copies": 3}).raw == b"---\nx: .nan\ncopies: 3\n---\n"


@pytest.mark.parametrize("value", [b"1" * 5000, b"2001-99-99", b"2001-01-01T99:00:00Z"])
def test_a_number_or_date_that_is_none_is_refused(value: bytes) -> None:
    with pytest.raises(SidecarError, match="does not parse"):
        Sidecar.parse(b"---\na: " + value + b"\n---\n")
