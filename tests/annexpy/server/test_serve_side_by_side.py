"""Recordings of several sessions at once, some of whose servers are killed, said again to ``annexpy-shell``.

Each session is a process, as it was with git-annex-shell. The answers are the same, except where
``DEVIATIONS`` has another one and says why (docs/deviations.md has the same table).
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from recordings import INVOKED, SIDE_BY_SIDE, TRANSCRIPTS, deviation, direct, lay, said

from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.transcripts

CUT = "direct-get-truncated-while-sending"
EOF = b"<EOF>"


class Session:
    """A server of its own, to which bytes are said by hand."""

    def __init__(self, repository: Path, client: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "annexpy.server.shell", "p2pstdio", str(repository), client],
            stdin=-1,
            stdout=-1,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def say(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def read(self, size: int) -> bytes:
        """At most *size* bytes; none at the end."""
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], 30)[0], "no answer for half a minute"
        return self.process.stdout.read(size) or b""

    def hear(self, expected: bytes) -> bytes:
        """The answer: what is *expected*, or as much of another one as tells that it is another."""
        heard = b""
        while heard != expected and not (heard.endswith(b"\n") and not expected.startswith(heard)):
            piece = self.read(1 << 16)
            if not piece:
                return heard + EOF
            heard += piece
            if same(heard, expected):
                break
        return heard

    def settle(self) -> None:
        """Wait until all that was said is done: that the server fell silent cannot be seen from here."""
        self.say(b"GETTIMESTAMP\n")
        assert re.fullmatch(rb"TIMESTAMP \d+\n", self.hear(b"TIMESTAMP 0\n"))

    def leave(self) -> bytes:
        """Hang up; what was still said."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        left = b""
        while piece := self.read(1 << 16):
            left += piece
        self.process.wait(30)
        return left

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            self.process.kill()


def same(heard: bytes, expected: bytes) -> bool:
    """Two answers are the same, whatever the time is."""
    timestamp = rb"TIMESTAMP \d+\n"
    return heard == expected or bool(re.fullmatch(timestamp, heard) and re.fullmatch(timestamp, expected))


Act = Callable[[list[Session], Path], None]


def kill(session: int, with_: signal.Signals) -> Act:
    """What the recorder did to the server of a *session*."""

    def act(sessions: list[Session], _: Path) -> None:
        sessions[session].process.send_signal(with_)
        sessions[session].process.wait(30)

    return act


def expire(_: list[Session], repository: Path) -> None:
    """The retention is over: its file was edited to the past. So is that by the clock that nobody can set."""
    [retention] = repository.glob("annex/objects/*/*/*/*.rtm")
    os.chmod(retention.parent, 0o755)
    retention.chmod(0o644)
    retention.write_text("1.5s")
    retention.with_suffix(".rtl").write_text("")


@dataclass(frozen=True)
class Played:
    """What a recording does not say of itself.

    Attributes:
        said_by: Line of the file → whose it is, counted from 0, where it is not that of the session that began last.
        before: Line → what happened before it.
        left: Lines that tell of an end because the client had left.
    """

    said_by: Mapping[int, int] = field(default_factory=dict)
    before: Mapping[int, Act] = field(default_factory=dict)
    left: frozenset[int] = frozenset()


PLAYED = {
    "direct-lock-break-sighup": Played(before={13: kill(0, signal.SIGHUP)}),
    "direct-lock-break-sigkill": Played(before={13: kill(0, signal.SIGKILL)}),
    "direct-lock-break-sigterm": Played(before={13: kill(0, signal.SIGTERM)}),
    "direct-lock-misuse": Played(said_by={42: 0}),
    "direct-lock-retention-expired": Played(before={13: kill(0, signal.SIGKILL), 21: expire}),
    "direct-lock-two": Played(said_by={19: 0, 29: 1, 37: 0, 38: 1}),
    "direct-put-concurrent-sameclient": Played(
        said_by={10: 0, 11: 0, 12: 0, 18: 0, 19: 0, 21: 0}, left=frozenset({20})
    ),
}


@dataclass
class Turn:
    """Something that is said, and the answer.

    Attributes:
        at: Line of the recording.
        session: Who says it.
        kind: ``exec``, ``C>S`` or ``exit``.
        settled: Nothing was to come any more, and the recorder made sure of it or went to another session.
    """

    at: int
    session: int
    kind: str
    sent: bytes = b""
    heard: bytes = b""
    settled: bool = False


def turns(name: str) -> list[Turn]:
    """The turns of a recording, in their order."""
    found: list[Turn] = []
    last = -1
    for at, row in enumerate(map(json.loads, (TRANSCRIPTS / f"{name}.jsonl").read_text().splitlines()), 1):
        kind = row["dir"]
        last += kind == "exec"
        session = PLAYED[name].said_by.get(at, last)
        match kind:
            case "exec" | "exit":
                found.append(Turn(at, session, kind))
            case "C>S":
                sent = said(row)
                assert sent is not None
                found.append(Turn(at, session, kind, sent))
            case "S>C" | "EOF" if at not in PLAYED[name].left:
                of = next(turn for turn in reversed(found) if turn.session == session)
                heard = EOF if kind == "EOF" else said(row)
                assert heard is not None
                of.heard += heard
            case "note":
                found[-1].settled = found[-1].sent == b"UNLOCKCONTENT\n"
    return found


@pytest.mark.parametrize("name", PLAYED)
def test_sessions_side_by_side_are_answered_as_git_annex_answers_them(name: str, tmp_path: Path) -> None:
    path = tmp_path / "solo"
    before = dict(PLAYED[name].before)
    uuid = ""
    sessions: list[Session] = []
    over: set[int] = set()
    with ExitStack() as stack:
        for turn in turns(name):
            for at in [at for at in before if at <= turn.at]:
                before.pop(at)(sessions, path)
            if turn.kind == "exec":
                if not uuid:
                    uuid = turn.heard.split()[1].decode()
                    Repository.init(path, bare=True, uuid=UUID(uuid)).close()
                sessions.append(stack.enter_context(Session(path, "11111111-2222-4333-8444-555555555555")))
            session = sessions[turn.session]
            if turn.kind == "exit":
                assert session.leave() == b"", turn
                continue
            if turn.session in over:
                continue
            session.say(turn.sent)
            if turn.heard:
                heard = session.hear(turn.heard)
                if not same(heard, turn.heard):
                    known = deviation(name, turn.sent, turn.heard, heard)
                    assert known, (turn, heard)
                    over |= {turn.session} if known.over else set()
            elif turn.settled:
                session.settle()
        assert not before


@pytest.mark.parametrize("name", [CUT])
def test_an_object_that_is_cut_while_it_is_sent_is_filled_up_and_called_invalid(name: str, tmp_path: Path) -> None:
    """git-annex sends what there is and then nothing: whoever waits for the rest waits for ever."""
    rows = [json.loads(line) for line in (TRANSCRIPTS / f"{name}.jsonl").read_text().splitlines()]
    [ask] = [row["text"].encode() for row in rows if row["dir"] == "C>S" and row["text"].startswith("GET ")]
    answer, *pieces = [row for row in rows if row["dir"] == "S>C"][2:]
    key = Key.parse(ask.split()[-1])
    assert key.size is not None
    kept = sum(piece["len"] for piece in pieces)
    with Repository.init(tmp_path / "solo", bare=True, uuid=UUID("b8925f49-ca4a-409e-bc04-92ee8277fcbe")) as made:
        path = b"annex/objects/" + object_paths(key)[0]
        content = os.urandom(1 << 20) * (key.size // (1 << 20) + 1)
        lay(made, path, content[: key.size])
    file = tmp_path / "solo" / os.fsdecode(path)
    with Session(tmp_path / "solo", "11111111-2222-4333-8444-555555555555") as session:
        session.hear(b"AUTH-SUCCESS b8925f49-ca4a-409e-bc04-92ee8277fcbe\n")
        session.say(b"VERSION 4\n")
        assert session.hear(b"VERSION 4\n") == b"VERSION 4\n"
        session.say(ask)
        heard = bytearray()
        while len(heard) < len(answer["text"]) + pieces[0]["len"]:
            heard += session.read(4096)
        os.truncate(file, kept)
        whole = len(answer["text"]) + key.size + len(b"INVALID\n")
        while len(heard) < whole:
            heard += session.read(1 << 20)
        session.say(b"FAILURE\n")
        assert session.leave() == b""

    line, _, data = bytes(heard).partition(b"\n")
    assert line + b"\n" == answer["text"].encode()
    assert data.endswith(b"INVALID\n")
    assert data[:kept] == content[:kept]
    assert not any(data[-len(b"INVALID\n") - 65536 : -len(b"INVALID\n")])


def test_no_recording_is_left_out() -> None:
    names = [path.stem for path in direct()]
    assert len(names) == 41
    assert {*SIDE_BY_SIDE} == {*PLAYED, CUT}
    assert {*SIDE_BY_SIDE, *INVOKED} < {*names}
