"""Recorded conversations with git-annex-shell: what was said, and where our server answers something else."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from annexpy.keys.key import Key
from annexpy.keys.layout import object_paths
from annexpy.repo.repository import Repository
from annexpy.server.limits import ServerMode

TRANSCRIPTS = Path(__file__).parents[2] / "transcripts"


@dataclass(frozen=True)
class Deviation:
    """Where git-annex answers *sent* with *theirs*, we answer *ours* (regular expressions), because of *why*."""

    sent: str
    theirs: str
    ours: str
    why: str
    over: bool = False
    """What is said after it no longer fits."""
    when: str = ""
    """What has to be so; nothing when empty."""


VANISHED = "somebody who locked it vanished"

DEVIATIONS = (
    Deviation(
        r"VERSION (?!\d+\n)(.|\n)*", r"VERSION -?\d+\n", r"ERROR unknown command\n",
        "numbers are plain decimal; a negative version is not echoed",
    ),
    Deviation(
        r"GET -\d+ (.|\n)*", r"DATA \d+\n<EOF>", r"ERROR unknown command\n",
        "a negative offset is refused before anything is promised, and the session goes on",
    ),
    Deviation(
        r"REMOVE(-BEFORE)? (.|\n)*", r"<EOF>", r"FAILURE\n",
        "locked content is not removed, and the session goes on",
    ),
    Deviation(
        r"DATA \d+\n(.|\n)*", r"FAILURE\n", r"ERROR length of (.|\n)*<EOF>",
        "DATA longer than the key is refused before it is read; lines could no longer be told from content",
    ),
    Deviation(
        r"CONNECT (.|\n)*|NOTIFYCHANGE\n", r"(ERROR .*\n)?<EOF>", r"ERROR .*\n",
        "services that are not offered are refused, and the session goes on",
    ),
    Deviation(
        r"GETTIMESTAMP\n", r"<EOF>", r"TIMESTAMP \d+\n",
        "so it does after a CONNECT that was refused",
    ),
    Deviation(
        r"PUT (.|\n)*", r"PUT-FROM 0\n", r"ERROR .*: (not enough free|Not a directory|.*already in|.*annex/tmp).*\n",
        "who cannot store says so before the content is sent, and the session goes on",
        over=True,
    ),
    Deviation(
        r"(.|\n)*(VALID\n)?", r"<EOF>", r"(ERROR|FAILURE).*\n",
        "content that cannot be stored is answered, and the session goes on",
    ),
    Deviation(
        r"REMOVE (.|\n)*", r"SUCCESS\n", r"FAILURE\n",
        "whoever locked it and vanished may be dropping another copy in reliance on it",
        when=VANISHED,
    ),
    Deviation(
        r"(CHECKPRESENT|LOCKCONTENT) (.|\n)*", r"FAILURE\n", r"SUCCESS\n",
        "so it is still there",
        when=VANISHED,
    ),
    Deviation(
        r"UNLOCKCONTENT\n", r"ERROR unexpected command\n", r"",
        "so it is still there",
        when=VANISHED,
    ),
)  # fmt: skip


def deviation(
    sent: bytes,
    theirs: bytes,
    ours: bytes,
    known_ones: Iterable[Deviation] = DEVIATIONS,
    *,
    so: Collection[str] = (),
) -> Deviation | None:
    """The known difference that this is, where what is *so* is so."""
    texts = tuple(raw.decode("latin-1") for raw in (sent, theirs, ours))
    for known in known_ones:
        if known.when and known.when not in so:
            continue
        if all(map(re.fullmatch, (known.sent, known.theirs, known.ours), texts)):
            return known
    return None


class Lockers:
    """Who has locked what, and whether he vanished."""

    def __init__(self) -> None:
        self._holds: dict[object, bytes] = {}
        self._left: set[bytes] = set()

    def see(self, who: object, sent: bytes, heard: bytes) -> None:
        """*who* says something: whatever it is that comes after the lock was given, it ends it."""
        held = self._holds.pop(who, None)
        if held is not None and sent != b"UNLOCKCONTENT\n":
            self._left.add(held)
        if sent.startswith(b"LOCKCONTENT ") and heard == b"SUCCESS\n":
            self._holds[who] = sent.split(b" ", 1)[1]

    def so(self, who: object, sent: bytes) -> set[str]:
        """What can be said of the key in a request, or of that which *who* unlocks."""
        key = self._holds.get(who, b"") if sent == b"UNLOCKCONTENT\n" else sent.partition(b" ")[2]
        return {VANISHED} if key in {*self._holds.values(), *self._left} else set()


@dataclass
class Session:
    """One run of the server: what is said and what should come back."""

    uuid: str = ""
    mode: ServerMode = ServerMode.WRITE
    steps: list[Step] = field(default_factory=list)


@dataclass
class Step:
    sent: bytes
    heard: bytes = b""
    leaves: bool = False
    now: float | None = None


def rows(path: Path) -> list[dict]:
    """The lines of a transcript."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def sessions(lines: Iterable[dict]) -> list[Session]:
    """The sessions of a transcript."""
    found: list[Session] = []
    mode = ServerMode.WRITE
    for row in lines:
        comment, direction = row.get("comment", ""), row["dir"]
        match direction:
            case "comment":
                if "GIT_ANNEX_SHELL_READONLY" in comment:
                    mode = ServerMode.READ_ONLY
                if "GIT_ANNEX_SHELL_APPENDONLY" in comment:
                    mode = ServerMode.APPEND_ONLY
            case "exec":
                assert "p2pstdio" in comment
                found.append(Session(mode=mode))
            case "C>S":
                sent = said(row)
                assert sent is not None
                found[-1].steps.append(Step(sent))
            case "S>C":
                heard = said(row)
                assert heard is not None
                if not found[-1].steps:
                    assert heard.startswith(b"AUTH-SUCCESS ")
                    found[-1].uuid = heard.split()[1].decode()
                    continue
                step = found[-1].steps[-1]
                step.heard += heard
                step.leaves |= "after stdin close" in comment
                if heard.startswith(b"TIMESTAMP "):
                    step.now = float(heard.split()[1]) + 0.5
            case "EOF":
                if found[-1].steps and not found[-1].steps[-1].heard.endswith(b"<EOF>"):
                    found[-1].steps[-1].heard += b"<EOF>"
    return found


def said(row: dict) -> bytes | None:
    """The bytes of a row; None where only a digest of them was kept."""
    if "text" in row:
        return row["text"].encode("utf-8", "surrogateescape")
    if "b64" in row:
        return base64.b64decode(row["b64"])
    return _guess(base64.b64decode(row["head_b64"]), row["len"], row["sha256"])


def _guess(head: bytes, length: int, sha256: str) -> bytes | None:
    """What goes on as it begins: the recorder sent the same few bytes over and over."""
    line, _, body = head.rpartition(b"\n")
    for period in (1, 9):
        for tail in (b"", b"\n", b"VALID\n", b"INVALID\n"):
            start = head[: len(line) + 1] if line else b""
            rest = body if line else head
            if not line:  # a line that is filled up: only its last letter repeats
                start, rest = head[:-1], head[-1:]
            for begin, unit in ((start, rest[:period]), (b"", head[:period])):
                missing = length - len(begin) - len(tail)
                whole = begin + (unit * (missing // len(unit) + 1))[:missing] + tail
                if hashlib.sha256(whole).hexdigest() == sha256:
                    return whole
    return None


@cache
def contents() -> dict[bytes, bytes]:
    """Digest → content of everything that some transcript puts."""
    known = {}
    for path in sorted(TRANSCRIPTS.glob("direct-*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            if row["dir"] == "C>S" and (sent := said(row)) and sent.startswith(b"DATA "):
                head, _, body = sent.partition(b"\n")
                content = body[: int(head[5:])] if head[5:].isdigit() else b""
                known[hashlib.sha256(content).hexdigest().encode()] = content
    return known


def content_of(key: Key) -> bytes:
    """The content of *key* if any transcript knows it, or something of its size."""
    size = key.size or 0
    digest = key.name.partition(b".")[0]
    if digest in contents():
        return contents()[digest]
    for number in range(1000):  # what the recorder made its contents of
        content = (b"%08d-" % number * (size // 9 + 1))[:size]
        if hashlib.sha256(content).hexdigest().encode() == digest:
            return content
    return bytes(size)


def lay_object(repository: Repository, key: Key) -> None:
    lay(repository, b"annex/objects/" + object_paths(key)[0], content_of(key))


def lay(repository: Repository, path: bytes, content: bytes) -> None:
    repository.files.make_folders(path.rpartition(b"/")[0])
    repository.files.replace(path, content, mode=0o444 if b"objects" in path else 0o644)


def direct() -> list[Path]:
    """Conversations with a server that has one repository."""
    return sorted(TRANSCRIPTS.glob("direct-*.jsonl"))


def invoked() -> list[Path]:
    """Recordings of how the server is started: test_shell."""
    return [path for path in direct() if path.stem.startswith("direct-invoke-")]


def meanwhile() -> list[Path]:
    """Recordings in which an object is changed while it is sent: test_serve_side_by_side."""
    return [path for path in direct() if "while-sending" in path.stem]


def side_by_side() -> list[Path]:
    """Recordings of several sessions at once: test_serve_side_by_side."""
    return [path for path in direct() if path not in (*invoked(), *meanwhile()) and _overlaps(rows(path))]


def one_after_another() -> list[Path]:
    """All other recordings of one repository: test_serve_replays."""
    return [path for path in direct() if path not in (*invoked(), *meanwhile(), *side_by_side())]


def _overlaps(lines: Iterable[dict]) -> bool:
    """A session begins before the one before it is seen to end."""
    running = 0
    for row in lines:
        running += {"exec": 1, "exit": -1}.get(row["dir"], 0)
        if running > 1:
            return True
    return False
