"""Recorded conversations, read and judged by the table."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidInput
from annexpy.p2p.messages import Connect
from annexpy.p2p.states import Role, State
from annexpy.p2p.transcript import Observer, format_row, parse_row, replay

TRANSCRIPTS = sorted((Path(__file__).parents[2] / "transcripts").glob("*.jsonl"))
KEY = b"SHA256E-s3--abc"
PUT = [
    (Role.SERVER, b"AUTH-SUCCESS u1\n"),
    (Role.CLIENT, b"VERSION 4\n"),
    (Role.SERVER, b"VERSION 4\n"),
    (Role.CLIENT, b"PUT  " + KEY + b"\n"),
    (Role.SERVER, b"PUT-FROM 0\n"),
    (Role.CLIENT, b"DATA 3\nabcVALID\n"),
    (Role.SERVER, b"SUCCESS\n"),
    (Role.CLIENT, b"GET 1  " + KEY + b"\n"),
    (Role.SERVER, b"DATA 2\nbcVALID\n"),
    (Role.CLIENT, b"SUCCESS\n"),
]


def test_a_conversation_in_order_has_no_problem() -> None:
    observer = Observer()
    steps = [step for sender, data in PUT for step in observer.see(sender, data)]

    assert [step.text for step in steps if step.problem] == []
    assert [step.text for step in steps][-5:] == ["GET 1  SHA256E-s3--abc", "DATA 2", "(2 bytes)", "VALID", "SUCCESS"]
    assert observer.state is State.IDLE


@given(st.lists(st.integers(1, 9), min_size=1))
def test_cuts_of_the_stream_change_nothing(sizes: list[int]) -> None:
    whole, cut = Observer(), Observer()
    expected = [
        (s.sender, s.text, s.state) for sender, data in PUT for s in whole.see(sender, data) if "bytes" not in s.text
    ]

    seen, turn = [], 0
    for sender, data in PUT:
        while data:
            size = sizes[turn % len(sizes)]
            turn += 1
            seen += [s for s in cut.see(sender, data[:size]) if "bytes" not in s.text]
            data = data[size:]

    assert [(s.sender, s.text) for s in seen] == [(sender, text) for sender, text, _ in expected]
    assert not [s for s in seen if s.problem]


def test_a_line_out_of_place_is_named_with_the_answer_it_deserves() -> None:
    observer = Observer(state=State.IDLE)
    list(observer.see(Role.CLIENT, b"LOCKCONTENT " + KEY + b"\n"))
    list(observer.see(Role.SERVER, b"SUCCESS\n"))

    (step,) = observer.see(Role.CLIENT, b"CHECKPRESENT " + KEY + b"\n")

    assert step.problem == "the server owes: ERROR expected UNLOCKCONTENT"
    assert step.state is State.REFUSED


def test_an_answer_to_nothing_is_a_problem_of_the_server() -> None:
    (step,) = Observer(state=State.IDLE).see(Role.SERVER, b"SUCCESS\n")

    assert step.sender is Role.SERVER
    assert "SUCCESS is not legal for the server in state IDLE" in step.problem


def test_a_line_inside_a_relayed_git_service_ends_the_session_with_a_typed_error() -> None:
    observer = Observer(state=State.IDLE)
    (connect,) = observer.see(Role.CLIENT, Connect(b"git-upload-pack").line() + b"\n")
    (step,) = observer.see(Role.CLIENT, b"CHECKPRESENT " + KEY + b"\n")

    assert connect.state is State.RELAY
    assert "came while waiting for" in step.problem


def test_a_request_that_could_not_be_sent_is_shown_too() -> None:
    (step,) = Observer(state=State.IDLE).see(Role.CLIENT, b"PUT a\rb " + KEY + b"\n")

    assert step.text == "PUT a\rb " + KEY.decode()


@given(st.binary(max_size=200), st.sampled_from(Role))
def test_a_row_keeps_what_was_said(data: bytes, sender: Role) -> None:
    row = parse_row(format_row(sender, data, 1.5))

    assert row.sender is sender
    if not (data.startswith(b"AUTH ") and data.endswith(b"\n")):
        assert row.data == data


def test_a_long_body_keeps_its_length_and_a_digest() -> None:
    line = format_row(Role.SERVER, b"x" * 9000, 0.0)

    assert len(line) < 400
    assert len(parse_row(line).data) == 9000
    assert json.loads(line)["sha256"] == hashlib.sha256(b"x" * 9000).hexdigest()


def test_tokens_are_never_written() -> None:
    assert "secret" not in format_row(Role.CLIENT, b"AUTH u1 secret\n", 0.0)
    (step,) = Observer(state=State.AUTH).see(Role.CLIENT, b"AUTH u1 secret\n")
    assert "secret" not in step.text


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"dir": "C>S"}', '{"dir": "C>S", "b64": "!"}', "nothing"])
def test_a_line_that_is_no_row_is_refused_by_name(line: str) -> None:
    with pytest.raises(InvalidInput, match="transcript line"):
        parse_row(line)


@pytest.mark.transcripts
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_every_line_of_every_transcript_can_be_read(path: Path) -> None:
    for line in path.read_bytes().splitlines():
        parse_row(line)


@pytest.mark.transcripts
@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_every_transcript_can_be_followed_to_its_end(path: Path) -> None:
    rows = [parse_row(line) for line in path.read_bytes().splitlines()]

    assert len(list(replay(rows))) >= sum(1 for row in rows if row.sender is None)


@pytest.mark.transcripts
@pytest.mark.parametrize("name", ["direct-put-v0", "direct-put-short", "direct-gettimestamp", "direct-mode-readonly"])
def test_a_well_behaved_conversation_with_git_annex_has_no_problem(name: str) -> None:
    path = TRANSCRIPTS[0].parent / f"{name}.jsonl"

    assert [step for step in replay(map(parse_row, path.read_bytes().splitlines())) if step.problem] == []


@pytest.mark.parametrize("length", ["4294967296", "1e999"])
def test_a_row_that_stands_for_too_much_is_refused(length: str) -> None:
    with pytest.raises(InvalidInput):
        parse_row('{"dir": "C>S", "len": ' + length + "}")
