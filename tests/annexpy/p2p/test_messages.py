from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.errors import InvalidKey, LocalProtocolError
from annexpy.keys.key import Key
from annexpy.p2p import messages as m
from annexpy.p2p.associated import escape_associated_file, unescape_associated_file
from annexpy.p2p.extensions import GetRange, Possessed, Possession
from annexpy.p2p.lines import parse
from annexpy.uuids import UUID

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"
KEY = Key.parse(b"SHA256-s3--ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
U1, U2 = UUID("87ab9089-b663-40ac-b7c2-52e054520871"), UUID("acbd")

EXACT = [
    (m.Auth(U1, "abc123"), b"AUTH 87ab9089-b663-40ac-b7c2-52e054520871 abc123"),
    (m.AuthSuccess(U2), b"AUTH-SUCCESS acbd"),
    (m.AuthFailure(), b"AUTH-FAILURE"),
    (m.Version(4), b"VERSION 4"),
    (m.Bypass(), b"BYPASS"),
    (m.Bypass((U2, UUID("x"))), b"BYPASS acbd x"),
    (m.CheckPresent(KEY), b"CHECKPRESENT " + KEY.raw),
    (m.CheckPresent(Key.parse(b"WORM-s3-m1--a b  c ")), b"CHECKPRESENT WORM-s3-m1--a b  c "),
    (m.LockContent(Key.parse(b"WORM-s3-m1--\xff\xe9 x")), b"LOCKCONTENT WORM-s3-m1--\xff\xe9 x"),
    (m.UnlockContent(), b"UNLOCKCONTENT"),
    (m.Remove(KEY), b"REMOVE " + KEY.raw),
    (m.RemoveBefore(KEY, 1387), b"REMOVE-BEFORE 1387 " + KEY.raw),
    (m.RemoveBefore(KEY, -1), b"REMOVE-BEFORE -1 " + KEY.raw),
    (m.GetTimestamp(), b"GETTIMESTAMP"),
    (m.Timestamp(1386), b"TIMESTAMP 1386"),
    (Possession(bytes(range(32)), KEY), b"POSSESSION " + bytes(range(32)).hex().encode() + b" " + KEY.raw),
    (Possessed(b"\xab" * 32), b"POSSESSED " + b"ab" * 32),
    (m.Get(KEY), b"GET 0  " + KEY.raw),
    (m.Get(KEY, 10, b"d/e%f.bin"), b"GET 10 d/e%f.bin " + KEY.raw),
    (GetRange(KEY, 10, 20, b"d/e%f.bin"), b"GET-RANGE 10 20 d/e%f.bin " + KEY.raw),
    (m.Put(KEY), b"PUT  " + KEY.raw),
    (m.Put(Key.parse(b"WORM-s3-m1--x y%z"), b"f"), b"PUT f WORM-s3-m1--x y%z"),
    (m.PutFrom(20000), b"PUT-FROM 20000"),
    (m.AlreadyHave(), b"ALREADY-HAVE"),
    (m.AlreadyHavePlus((U1,)), b"ALREADY-HAVE-PLUS " + U1.encode()),
    (m.DataHeader(0), b"DATA 0"),
    (m.DataPresent(), b"DATA-PRESENT"),
    (m.Valid(), b"VALID"),
    (m.Invalid(), b"INVALID"),
    (m.Success(), b"SUCCESS"),
    (m.SuccessPlus((U1, U2)), b"SUCCESS-PLUS " + U1.encode() + b" acbd"),
    (m.SuccessPlus(), b"SUCCESS-PLUS"),
    (m.Failure(), b"FAILURE"),
    (m.FailurePlus((U2,)), b"FAILURE-PLUS acbd"),
    (m.Error("unknown command"), b"ERROR unknown command"),
    (m.Error(), b"ERROR"),
    (m.Connect(b"git-upload-pack"), b"CONNECT git-upload-pack"),
    (m.ConnectDone(0), b"CONNECTDONE 0"),
    (m.NotifyChange(), b"NOTIFYCHANGE"),
    (m.Changed((b"41efcc", b"93cd")), b"CHANGED 41efcc 93cd"),
]


@pytest.mark.parametrize(
    ("message", "line"), EXACT, ids=lambda value: value.decode("latin-1")[:40] if isinstance(value, bytes) else ""
)
def test_each_message_is_written_and_read_as_documented(message: m.Message, line: bytes) -> None:
    assert m.format(message) == line + b"\n"
    assert parse(line) == message


def test_every_message_is_in_the_list_above() -> None:
    assert {type(message) for message, _ in EXACT} == set(m.Message.__args__) - {m.Unknown}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"FOO",
        b"checkpresent " + KEY.raw,
        b" CHECKPRESENT " + KEY.raw,
        b"CHECKPRESENT",
        b"CHECKPRESENT ",
        b"CHECKPRESENT SHA256E",
        b"CHECKPRESENT -s3--x",
        b"CHECKPRESENT SHA256-s3-s3--x",
        b"CHECKPRESENT WORM-s3-m1--a\0b",
        b"CHECKPRESENT SHA256E-s3--x." + b"e" * 300,
        b"UNLOCKCONTENT " + KEY.raw,
        b"GETTIMESTAMP x",
        b"PUT " + KEY.raw,
        b"POSSESSION " + KEY.raw,
        b"POSSESSION abcd " + KEY.raw,
        b"POSSESSION " + b"AB" * 32 + b" " + KEY.raw,
        b"POSSESSED " + b"ab" * 31,
        b"PUT /etc/passwd " + KEY.raw,
        b"GET 0 " + KEY.raw,
        b"GET -5  " + KEY.raw,
        b"GET  f " + KEY.raw,
        b"GET 0 /abs " + KEY.raw,
        b"REMOVE-BEFORE 1.5 " + KEY.raw,
        b"REMOVE-BEFORE " + KEY.raw,
        b"DATA -5",
        b"DATA",
        b"DATA " + b"9" * 5000,
        b"PUT-FROM -1",
        b"AUTH",
        b"AUTH ../evil abc",
        b"AUTH x y!",
        b"AUTH-SUCCESS ",
        b"BYPASS ../x",
        b"SUCCESS-PLUS " + b"x" * 65,
        b"CONNECT git-shell",
        b"CONNECT",
    ],
)
def test_what_is_malformed_is_unknown_and_never_an_exception(line: bytes) -> None:
    assert isinstance(parse(line), m.Unknown)


@pytest.mark.parametrize("number", ["+3", "1.5", "0x2", "abc", "", "4 5", "(3)", "1_0", "\u0663", " 2", "2 ", "-1"])
def test_versions_are_plain_decimal(number: str) -> None:
    assert isinstance(parse(f"VERSION {number}".encode()), m.Unknown)


def test_a_tab_separates_as_well() -> None:
    assert parse(b"CHECKPRESENT\tWORM--a b") == m.CheckPresent(Key.parse(b"WORM--a b"))
    assert parse(b"GET\t0\tf\tWORM--a\tb") == m.Get(Key.parse(b"WORM--a\tb"), 0, b"f")
    assert parse(b"GET 0\t\tWORM--a") == m.Get(Key.parse(b"WORM--a"))
    assert parse(b"PUT\t\tWORM--a") == m.Put(Key.parse(b"WORM--a"))


def test_no_break_space_in_an_associated_file_does_not_reach_the_key() -> None:
    line = "PUT a\u00a0b ".encode() + KEY.raw
    assert parse(line) == m.Put(KEY, "a\u00a0b".encode())


def test_tokens_are_lower_case_and_never_shown() -> None:
    message = parse(b"AUTH u SeCrEt")
    assert message == m.Auth(UUID("u"), "secret")
    assert "secret" not in repr(message).lower()
    assert "secret" not in repr(parse(b"AUTH u SeCrEt!")).lower()
    assert parse(b"AUTH u") == m.Auth(UUID("u"), "")


@pytest.mark.parametrize(
    "message",
    [
        m.CheckPresent(Key.parse(b"WORM--a\nREMOVE WORM--b")),
        m.Put(Key.parse(b"WORM--a\r")),
        m.Put(KEY, b"two words"),
        m.Get(KEY, 0, b"a\nb"),
        m.Remove(Key.parse(b"WORM--" + b"x" * m.MAX_LINE)),
        m.Unknown(b"FOO"),
    ],
)
def test_what_would_not_arrive_as_it_is_is_not_sent(message: m.Message) -> None:
    with pytest.raises(LocalProtocolError):
        m.format(message)


def test_error_texts_stay_on_one_line() -> None:
    assert m.format(m.Error("a\nb\x1b[31m")) == b"ERROR a b [31m\n"
    assert len(m.format(m.Error("x" * 100_000))) < m.MAX_LINE
    assert m.format(m.Error("caf\u00e9 \udcff")).endswith(b"caf\xc3\xa9 \\udcff\n")


@given(st.binary(max_size=80))
def test_any_bytes_parse(raw: bytes) -> None:
    message = parse(raw)
    if not isinstance(message, m.Unknown):
        assert parse(message.line()) == message


@given(st.sampled_from([line for _, line in EXACT]), st.data())
def test_a_damaged_line_parses_too(line: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(line)))
    damaged = line[:at] + data.draw(st.binary(max_size=3)) + line[at + data.draw(st.integers(0, 3)) :]
    message = parse(damaged.replace(b"\n", b""))
    if isinstance(message, m.Error):  # control characters of a text are sent as blanks
        assert parse(message.line()).line() == message.line()
    elif not isinstance(message, m.Unknown):
        assert parse(message.line()) == message


# -- associated files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "wire", "seen"),
    [
        ("f 1.dat", b"f%1.dat", "f_1.dat"),
        ("voil\u00e0 %x\ty.txt", b"voil\xc3%%%%x%y.txt", "voil\udcc3%%x_y.txt"),
        ("d/e f.bin", b"d/e%f.bin", "d/e_f.bin"),
        ("", b"", ""),
        ("a\u3000b", b"a%b", "a_b"),
        ("\udcff", b"\xff", "\udcff"),
        ("100%", b"100%%", "100%"),
    ],
)
def test_associated_files_are_escaped_as_git_annex_does(path: str, wire: bytes, seen: str) -> None:
    assert escape_associated_file(path) == wire
    assert unescape_associated_file(wire) == seen


@given(st.text(max_size=30))
def test_an_escaped_associated_file_is_always_one_word(path: str) -> None:
    wire = escape_associated_file(path.replace("\0", ""))
    if not wire.startswith(b"/"):
        assert parse(m.format(m.Put(KEY, wire))[:-1]) == m.Put(KEY, wire)
    assert not any(c.isspace() for c in wire.decode("utf-8", "surrogateescape") if c not in "\x1c\x1d\x1e\x1f\x85")


# -- what git-annex really said ---------------------------------------------------------------------


def _lines() -> list[tuple[str, str, bytes]]:
    """File, direction and line of every whole line in the line-protocol transcripts; bodies of DATA left out."""
    found = []
    for path in sorted(TRANSCRIPTS.glob("*.jsonl")):
        if path.name.split("-")[0] not in {"direct", "proxy", "cluster", "multigw", "client", "ssh", "gw"}:
            continue
        body: dict[str, int] = {}
        for row in map(json.loads, path.read_text().splitlines()):
            direction = row["dir"]
            if not direction.endswith(("C>S", "S>C")) or "len" in row or row.get("text") == "EOF":
                body.pop(direction, None)
                continue
            raw = base64.b64decode(row["b64"]) if "b64" in row else row["text"].encode("utf-8", "surrogateescape")
            raw = raw[body.pop(direction, 0) :]
            while b"\n" in raw:
                line, _, raw = raw.partition(b"\n")
                found.append((path.name, direction, line.removesuffix(b"\r")))
                if line.startswith(b"DATA ") and line[5:].strip().isdigit():
                    body[direction] = max(0, int(line[5:]) - len(raw))
                    raw = raw[int(line[5:]) :]
    return found


VERBS = {message.verb for message in m.Message.__args__} - {b""}


@pytest.mark.transcripts
def test_every_recorded_line_of_git_annex_is_read_and_written_back() -> None:
    typed_by_hand = ("direct", "proxy", "cluster", "multigw", "gw")  # their C>S tries out nonsense
    lines = {
        line
        for name, direction, line in _lines()
        if line.split(b" ")[0] in VERBS and (direction != "C>S" or not name.startswith(typed_by_hand))
    }
    assert len(lines) > 200

    for line in lines - {b"VERSION -1"}:  # an echo that we do not copy
        message = parse(line)
        assert not isinstance(message, m.Unknown), line
        assert message.line() == line


@pytest.mark.transcripts
def test_lines_typed_by_hand_are_unknown_only_where_the_number_or_the_parameters_are_odd() -> None:
    for _, direction, line in _lines():
        verb = line.split(b" ")[0]
        if direction == "C>S" and verb in VERBS and isinstance(parse(line), m.Unknown):
            if verb in {b"CHECKPRESENT", b"LOCKCONTENT", b"REMOVE"}:
                with pytest.raises(InvalidKey):
                    Key.parse(line.partition(b" ")[2])
            else:
                numbered = {b"VERSION", b"GET", b"DATA", b"PUT-FROM", b"TIMESTAMP", b"REMOVE-BEFORE"}
                assert verb in numbered | {b"UNLOCKCONTENT", b"PUT", b"AUTH"}, line
