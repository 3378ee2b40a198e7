"""What was said to git-annex-shell is said to our server, on a repository in the same state.

The answers are the same, byte for byte, except where ``DEVIATIONS`` has another one and says why. The
same table stands in docs/deviations.md.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.keys.layout import key_file, object_paths
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.server.limits import ServerMode
from annexpy.uuids import UUID

pytestmark = pytest.mark.transcripts

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
        r"PUT (.|\n)*", r"PUT-FROM 0\n", r"ERROR .*: (not enough free disk space|Not a directory|.*annex/tmp).*\n",
        "a repository that cannot store says so before the content is sent, and the session goes on",
        over=True,
    ),
    Deviation(
        r"(.|\n)*(VALID\n)?", r"<EOF>", r"(ERROR|FAILURE).*\n",
        "content that cannot be stored is answered, and the session goes on",
    ),
)  # fmt: skip

NOT_REPLAYED = {
    "direct-get-truncated-while-sending": "needs somebody who cuts the object meanwhile: test_local, test_serve",
    "direct-lock-retention-expired": "needs a server that is killed: test_shell",
}


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


def sessions(path: Path) -> list[Session] | None:
    """The sessions of a transcript; None if several ran side by side, or if some of what was sent is not known."""
    found: list[Session] = []
    mode = ServerMode.WRITE
    for row in map(json.loads, path.read_text().splitlines()):
        comment, direction = row.get("comment", ""), row["dir"]
        match direction:
            case "comment":
                if "GIT_ANNEX_SHELL_READONLY" in comment:
                    mode = ServerMode.READ_ONLY
                if "GIT_ANNEX_SHELL_APPENDONLY" in comment:
                    mode = ServerMode.APPEND_ONLY
            case "exec":
                if comment.startswith("[") or "p2pstdio" not in comment:
                    return None
                found.append(Session(mode=mode))
            case "C>S":
                sent = _bytes(row)
                if sent is None:
                    return None
                found[-1].steps.append(Step(sent))
            case "S>C":
                heard = _bytes(row)
                if heard is None:
                    return None
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


def _bytes(row: dict) -> bytes | None:
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
            missing = length - len(start) - len(tail)
            unit = rest[:period]
            whole = start + (unit * (missing // len(unit) + 1))[:missing] + tail
            if hashlib.sha256(whole).hexdigest() == sha256:
                return whole
    return None


@cache
def contents() -> dict[bytes, bytes]:
    """Digest → content of everything that some transcript puts."""
    known = {}
    for path in sorted(TRANSCRIPTS.glob("direct-*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            if row["dir"] == "C>S" and (sent := _bytes(row)) and sent.startswith(b"DATA "):
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


def prepare(repository: Repository, found: list[Session]) -> None:
    """Put the repository in the state that the first answer about each key tells of."""
    seen: set[Key] = set()
    for step in (step for session in found for step in session.steps):
        key, heard = _subject(step), step.heard
        if key is None or key in seen or heard.startswith(b"ERROR"):
            continue
        seen.add(key)
        if heard.startswith((b"SUCCESS", b"ALREADY-HAVE", b"DATA ")) and not heard.startswith(b"DATA 0\n"):
            lay_object(repository, key)
        elif heard.startswith(b"PUT-FROM ") and (size := int(heard.split()[1])):
            _lay(repository, b"annex/tmp/" + key_file(key), content_of(key)[:size].ljust(size, b"#"))


def _subject(step: Step) -> Key | None:
    """The key that is asked about."""
    match = re.match(rb"(CHECKPRESENT |LOCKCONTENT |PUT \S* |GET \d+ \S* )(.*)\n", step.sent)
    return Key.parse(match[2]) if match else None


def lay_object(repository: Repository, key: Key) -> None:
    _lay(repository, b"annex/objects/" + object_paths(key)[0], content_of(key))


def _lay(repository: Repository, path: bytes, content: bytes) -> None:
    repository.files.make_folders(path.rpartition(b"/")[0])
    repository.files.replace(path, content, mode=0o444 if b"objects" in path else 0o644)


def special_state(repository: Repository, comment: str) -> None:
    """What the first line of some transcripts says of the repository."""
    if "diskreserve" in comment:
        with open(repository.git_dir + b"/config", "ab") as file:
            file.write(b"[annex]\n\tdiskreserve = 100 petabytes\n")
    if "annex/tmp replaced by a file" in comment:
        repository.files.replace(b"annex/tmp", b"")


# Recordings of sessions side by side, and those whose sent bytes were not kept, cannot be said again one
# after the other. What they show has tests of its own: test_locks, test_local, test_serve, test_shell.
DIRECT = sorted(
    path
    for path in TRANSCRIPTS.glob("direct-*.jsonl")
    if "invoke" not in path.name and path.stem not in NOT_REPLAYED and sessions(path) is not None
)


@pytest.mark.anyio
@pytest.mark.parametrize("path", DIRECT, ids=lambda path: path.stem)
async def test_the_server_answers_as_git_annex_does(serving, clock_of, tmp_path, path: Path) -> None:
    found = sessions(path)
    assert found is not None
    clock = clock_of(0)
    with Repository.init(tmp_path / "solo", bare=True, uuid=UUID(found[0].uuid), clock=clock) as made:
        prepare(made, found)
        special_state(made, json.loads(path.read_text().splitlines()[0]).get("comment", ""))
    for session in found:
        with Repository.open(tmp_path / "solo", clock=clock) as repository:
            remote = Local(repository, durability="fast")
            async with serving(remote, hello=b"", mode=session.mode, clock=clock) as peer:
                await replay(session, peer, repository, clock)


async def replay(session: Session, peer, repository: Repository, clock) -> None:
    subject: Key | None = None
    for step in session.steps:
        if step.now is not None:
            clock.time = step.now
        subject = _subject(step) or subject
        if step.sent == b"DATA-PRESENT\n" and step.heard.startswith(b"SUCCESS") and subject:
            lay_object(repository, subject)  # by whoever said that it is there
        heard = await peer.say(step.sent)
        if step.leaves and not heard.endswith(b"<EOF>"):
            heard += (await peer.leave()).removesuffix(b"<EOF>")
        known = None
        if heard != step.heard:
            known = deviation(step, heard)
            assert known, (step.sent[:200], step.heard, heard)
        if (known and known.over) or heard.endswith(b"<EOF>") or step.heard.endswith(b"<EOF>"):
            break


def deviation(step: Step, heard: bytes) -> Deviation | None:
    sent, theirs, ours = (raw.decode("latin-1") for raw in (step.sent, step.heard, heard))
    for known in DEVIATIONS:
        if all(map(re.fullmatch, (known.sent, known.theirs, known.ours), (sent, theirs, ours))):
            return known
    return None


@pytest.mark.parametrize("known", DEVIATIONS, ids=lambda known: known.why[:40])
def test_every_deviation_is_in_the_manual(known: Deviation) -> None:
    assert known.why in (TRANSCRIPTS.parents[1] / "docs" / "deviations.md").read_text()
