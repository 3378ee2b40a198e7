"""Recordings of several sessions at once, some of whose servers are killed, said again to ``annexpy-shell``.

Each session is a process, as it was with git-annex-shell. The answers are the same, except where
``DEVIATIONS`` has another one and says why (docs/deviations.md has the same table).
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
from recordings import Lockers, deviation, lay, meanwhile, rows, said, side_by_side

from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths
from annexpy.p2p.states import Role, State
from annexpy.p2p.transcript import Observer
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.transcripts

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


PLAYED = {"direct-lock-retention-expired": {13: kill(0, signal.SIGKILL), 21: expire}}
"""Recording → line → what happened before it, where the recording itself does not say that."""


def played(path: Path) -> dict[int, Act]:
    """What happened besides what was said: the comment of some recordings tells that the first server was killed."""
    lines = rows(path)
    signalled = re.search(r"broken by (sig\w+)", lines[0].get("comment", ""))
    if signalled is None:
        return dict(PLAYED.get(path.stem, {}))
    second = [at for at, row in enumerate(lines, 1) if row["dir"] == "exec"][1]
    return {second: kill(0, signal.Signals[signalled[1].upper()])}


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


def turns(path: Path) -> list[Turn]:
    """The turns of a recording, in their order."""
    found: list[Turn] = []
    lines = rows(path)
    who = _Speakers()
    for at, row in enumerate(lines, 1):
        kind = row["dir"]
        match kind:
            case "exec":
                found.append(Turn(at, who.begins(), kind))
            case "exit":
                following = next((row for row in lines[at:] if row["dir"] in ("C>S", "exec")), {"dir": ""})
                found.append(Turn(at, who.ends(said(following) or b"" if following["dir"] == "C>S" else b""), kind))
            case "C>S":
                sent = said(row)
                assert sent is not None
                found.append(Turn(at, who.says(sent), kind, sent))
            case "S>C":
                heard = said(row)
                assert heard is not None
                found[-1].heard += heard
                who.hears(found[-1].session, heard)
            case "EOF" if not found[-1].heard.endswith(b"SUCCESS\n"):  # else it is the client who has left
                found[-1].heard += EOF
            case "note":
                found[-1].settled = found[-1].sent == b"UNLOCKCONTENT\n"
    return found


class _Speakers:
    """Whose a line is: that of the session that began last, of those of which it is legal."""

    def __init__(self) -> None:
        self._open: dict[int, Observer] = {}
        self._begun = 0

    def begins(self) -> int:
        self._open[self._begun] = Observer()
        self._begun += 1
        return self._begun - 1

    def ends(self, following: bytes) -> int:
        """One of which what comes next would not be legal."""
        fits = {number for number in self._open if self._legal(number, following)}
        number = max({*self._open} - fits if fits else self._open, default=max(self._open))
        self._open.pop(number)
        return number

    def says(self, sent: bytes) -> int:
        legal = [number for number in self._open if self._legal(number, sent)]
        number = max(legal or self._open)
        list(self._open[number].see(Role.CLIENT, sent))
        return number

    def hears(self, number: int, heard: bytes) -> None:
        list(self._open[number].see(Role.SERVER, heard))

    def _legal(self, number: int, sent: bytes) -> bool:
        observer = deepcopy(self._open[number])
        if observer.state is State.PUT_DATA and re.match(rb"[A-Z]+(-[A-Z]+)?( .*)?\n", sent):
            return False  # it could be content, but is not
        return not any(step.problem for step in observer.see(Role.CLIENT, sent))


@pytest.mark.parametrize("recording", side_by_side(), ids=lambda path: path.stem)
def test_sessions_side_by_side_are_answered_as_git_annex_answers_them(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "solo"
    before = played(recording)
    uuid = ""
    sessions: list[Session] = []
    over: set[int] = set()
    lockers = Lockers()
    with ExitStack() as stack:
        for turn in turns(recording):
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
                    known = deviation(turn.sent, turn.heard, heard, so=lockers.so(turn.session, turn.sent))
                    assert known, (turn, heard)
                    over |= {turn.session} if known.over else set()
            elif turn.settled:
                session.settle()
            lockers.see(turn.session, turn.sent, turn.heard)
        assert not before


@pytest.mark.parametrize("recording", meanwhile(), ids=lambda path: path.stem)
def test_an_object_that_changes_while_it_is_sent_is_sent_in_full_length_and_called_invalid(
    recording: Path, tmp_path: Path
) -> None:
    """Where it is cut, git-annex sends what there is and then nothing: whoever waits for the rest waits for ever."""
    lines = rows(recording)
    [ask] = [row["text"].encode() for row in lines if row["dir"] == "C>S" and row.get("text", "").startswith("GET ")]
    answer = next(row for row in lines if row["dir"] == "S>C" and row.get("text", "").startswith("DATA "))
    pieces = [row["len"] for row in lines if row["dir"] == "S>C" and "len" in row]
    key = Key.parse(ask.split()[-1])
    assert key.size is not None
    kept = sum(pieces) if sum(pieces) < key.size else None
    uuid = next(row["text"].split()[1] for row in lines if row.get("text", "").startswith("AUTH-SUCCESS "))
    with Repository.init(tmp_path / "solo", bare=True, uuid=UUID(uuid)) as made:
        path = b"annex/objects/" + object_paths(key)[0]
        content = os.urandom(1 << 20) * (key.size // (1 << 20) + 1)
        lay(made, path, content[: key.size])
    file = tmp_path / "solo" / os.fsdecode(path)
    with Session(tmp_path / "solo", "11111111-2222-4333-8444-555555555555") as session:
        session.hear(f"AUTH-SUCCESS {uuid}\n".encode())
        session.say(b"VERSION 4\n")
        assert session.hear(b"VERSION 4\n") == b"VERSION 4\n"
        session.say(ask)
        heard = bytearray()
        while len(heard) < len(answer["text"]) + 65536:
            heard += session.read(4096)
        if kept is None:
            file.chmod(0o644)
            file.write_bytes(bytes(key.size))
        else:
            os.truncate(file, kept)
        whole = len(answer["text"]) + key.size + len(b"INVALID\n")
        while len(heard) < whole:
            heard += session.read(1 << 20)
        session.say(b"FAILURE\n")
        assert session.leave() == b""

    line, _, data = bytes(heard).partition(b"\n")
    assert line + b"\n" == answer["text"].encode()
    assert data.endswith(b"INVALID\n")
    assert data[:65000] == content[:65000]
    assert kept is None or data[:kept] == content[:kept]
    assert not any(data[-len(b"INVALID\n") - 65536 : -len(b"INVALID\n")])
