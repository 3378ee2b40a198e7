"""What servers said to the stock client, said to ours: the same requests, and safer conclusions.

Each recorded connection becomes a peer that answers as the recorded server did. What the stock client
asked is asked through ``P2PRemote``. Where ours concludes something else on purpose:

* A bare ALREADY-HAVE, or one that names others, is not believed: our client asks CHECKPRESENT, and
  where that says FAILURE the put fails (the stock client recorded a copy).
* A -PLUS answer never makes a cluster a copy.
* After ERROR or FAILURE in answer to PUT nothing is said; the stock client sends an ERROR of its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from remote_contract import HandClock

from annexpy.clock import Deadline
from annexpy.errors import (
    ConnectionLost,
    ContentError,
    KeyNotPresent,
    NotLocked,
    PeerError,
    RemoteProtocolError,
    UnknownUUID,
    VerificationFailed,
)
from annexpy.keys.key import Key
from annexpy.remote.p2p import P2PRemote
from annexpy.transport.base import Transport
from annexpy.transport.memory import MemoryTransport, memory_pair
from annexpy.uuids import UUID, is_cluster

pytestmark = [pytest.mark.anyio, pytest.mark.transcripts]

FOLDER = Path(__file__).parents[2] / "transcripts"
FILES = sorted([*FOLDER.glob("client-vs-*.jsonl"), *FOLDER.glob("ssh-*.jsonl")])
ERRORS = {"ERROR": PeerError, "EOF": ConnectionLost, "": ConnectionLost}
"""What an answer means that is none; any other one has no place there."""
REQUESTS = ("CHECKPRESENT", "PUT", "GET", "LOCKCONTENT", "REMOVE", "REMOVE-BEFORE", "GETTIMESTAMP", "DATA", "VERSION")


@dataclass
class Exchange:
    """A request of the stock client and what it was answered."""

    verb: str
    line: str
    answer: str = ""
    valid: str = "VALID"
    end: str = "\n"

    @property
    def key(self) -> Key:
        fields = {"PUT": 2, "GET": 3, "REMOVE-BEFORE": 2}.get(self.verb, 1)
        return Key.parse(self.line.split(" ", fields)[-1])


@dataclass
class Session:
    """One recorded connection."""

    expected: UUID | None = None
    answered: str = ""
    exchanges: list[Exchange] = field(default_factory=list)

    def asked(self) -> Iterator[Exchange]:
        return (exchange for exchange in self.exchanges if exchange.verb not in ("DATA", "VERSION", "GETTIMESTAMP"))


def sessions(path: Path) -> list[Session]:
    found: list[Session] = []
    open_ones: dict[str, Session] = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        wire = row.get("conn", "")
        kind, text = row["dir"], row.get("text", "")
        if kind == "argv":
            uuid = re.search(r"--uuid (\S+)", " ".join(text))
            open_ones[wire] = Session(UUID(uuid[1]) if uuid else None)
            found.append(open_ones[wire])
        session = open_ones.get(wire)
        if session is None or kind not in ("C>S", "S>C"):
            continue
        if kind == "C>S":
            verb = text.split(" ", 1)[0].rstrip("\n")
            if verb in REQUESTS:
                session.exchanges.append(Exchange(verb, text.split("\n", 1)[0]))
        elif text.startswith("AUTH-SUCCESS"):
            session.answered = text.split()[1]
        elif session.exchanges:
            last = session.exchanges[-1]
            if not last.answer:
                last.answer = text.split("\n", 1)[0].rstrip("\r")
                last.end = "\r\n" if text.endswith("\r\n") else "\n"
            if text.endswith("INVALID\n"):
                last.valid = "INVALID"
    return [session for session in found if session.answered]


class Replay:
    """The recorded server, as far as answers go."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.left = list(session.exchanges)
        self.version = 0
        self.said: list[str] = []
        self._kept = b""

    async def run(self, transport: MemoryTransport) -> None:
        try:
            await transport.send(f"AUTH-SUCCESS {self.session.answered}\n".encode())
            while line := await self._line(transport):
                self.said.append(line)
                if not await self._answer(transport, line):
                    return
        except ConnectionLost:
            pass
        finally:
            await transport.aclose()

    async def _answer(self, transport: MemoryTransport, line: str) -> bool:
        verb = line.split(" ", 1)[0]
        if verb not in REQUESTS:
            return True
        if verb == "DATA":
            await self._take(transport, int(line.split()[1]))
            if self.version and await self._line(transport) != "VALID":
                return False
        found = next((e for e in self.left if e.verb == verb), None) or next(
            (e for e in reversed(self.session.exchanges) if e.verb == verb), Exchange(verb, line, "FAILURE")
        )
        if found in self.left:
            self.left.remove(found)
        if found.answer == "EOF" or not found.answer:
            return False
        if found.answer.startswith("VERSION "):
            self.version = int(found.answer.split()[1])
        answer = (found.answer + found.end).encode()
        if verb == "GET" and found.answer.startswith("DATA"):
            answer += b"q" * int(found.answer.split()[1])
            if self.version:
                answer += (found.valid + found.end).encode()
        await transport.send(answer)
        return True

    async def _line(self, transport: Transport) -> str:
        while b"\n" not in self._kept:
            data = await transport.receive()
            if not data:
                return ""
            self._kept += data
        line, _, self._kept = self._kept.partition(b"\n")
        return line.decode("utf-8", "surrogateescape")

    async def _take(self, transport: Transport, size: int) -> None:
        while len(self._kept) < size:
            data = await transport.receive()
            assert data
            self._kept += data
        self._kept = self._kept[size:]


def looked_for(session: Session) -> str:
    """What the recorded server says when it is asked about presence once more."""
    answers = [e.answer for e in session.exchanges if e.verb == "CHECKPRESENT"]
    return answers[-1] if answers else "FAILURE"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_our_client_asks_the_same_and_believes_no_more_than_it_may(path: Path) -> None:
    found = sessions(path)
    assert found or "AUTH-SUCCESS" not in path.read_text()
    for session in found:
        await follow(session)


async def follow(session: Session) -> None:
    clock = HandClock()
    replays: list[Replay] = []
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair()
            replay = Replay(session)
            replays.append(replay)
            tasks.start_soon(replay.run, server)
            return client

        remote = P2PRemote(dial, uuid=session.expected, name="recorded", clock=clock, connections=1)
        if session.expected is not None and session.expected != session.answered:
            with pytest.raises(UnknownUUID, match=session.answered):
                await remote.connect()
        elif any(e.verb == "VERSION" and not re.match(r"VERSION \d|ERROR", e.answer) for e in session.exchanges):
            with pytest.raises(RemoteProtocolError):
                await remote.connect()
        else:
            assert await remote.connect() == session.answered
            asked = list(session.asked())
            for number, exchange in enumerate(asked):
                with anyio.fail_after(10):
                    await one(remote, session, exchange, clock)
                if exchange.answer == "EOF" or (not exchange.answer and number < len(asked) - 1):
                    break
            clean = [line for replay in replays for line in replay.said]
            assert not any(line.startswith("ERROR") for line in clean)
        await remote.aclose()
        tasks.cancel_scope.cancel()


async def one(remote: P2PRemote, session: Session, exchange: Exchange, clock: HandClock) -> None:
    """Ask what *exchange* asked, and conclude no more than its answer says."""
    key, answer = exchange.key, exchange.answer
    word, _, rest = answer.partition(" ")
    named = (
        frozenset(UUID(uuid) for uuid in rest.split() if not is_cluster(uuid))
        if word.endswith("-PLUS")
        else frozenset()
    )
    match exchange.verb:
        case "CHECKPRESENT":
            if word in ("SUCCESS", "FAILURE"):
                assert await remote.check_present(key) == (word == "SUCCESS")
            else:
                with pytest.raises(ERRORS.get(word, RemoteProtocolError)) as caught:
                    await remote.check_present(key)
                assert word != "ERROR" or rest in str(caught.value)
        case "PUT":
            await put(remote, session, exchange)
        case "GET":
            if word == "DATA" and int(rest) == key.size:
                async with remote.get(key) as download:
                    assert download.length == int(rest)
                    assert b"".join([chunk async for chunk in download]) == b"q" * int(rest)
                    assert download.valid == (exchange.valid == "VALID")
            else:
                too_long = word == "DATA" and key.size is not None and int(rest) > key.size
                absent = rest == "0" and exchange.valid == "INVALID"
                errors = ERRORS if too_long else ERRORS | {"DATA": KeyNotPresent if absent else VerificationFailed}
                with pytest.raises(errors.get(word, RemoteProtocolError)):
                    async with remote.get(key):
                        pass
        case "LOCKCONTENT":
            if word == "SUCCESS":
                async with remote.lock_content(key) as lock:
                    assert await lock.held()
            else:
                errors = ERRORS | {"FAILURE": NotLocked}
                with pytest.raises(errors.get(word, RemoteProtocolError)):
                    async with remote.lock_content(key):
                        pass
        case _:
            deadline = Deadline(clock.now() + 300) if exchange.verb == "REMOVE-BEFORE" else None
            if word.removesuffix("-PLUS") not in ("SUCCESS", "FAILURE", "ERROR"):
                with pytest.raises(ERRORS.get(word, RemoteProtocolError)):
                    await remote.remove_content(key, deadline=deadline)
                return
            removed = await remote.remove_content(key, deadline=deadline)
            assert removed.ok == word.startswith("SUCCESS")
            assert named <= removed.uuids
            assert not any(map(is_cluster, removed.uuids - {remote.uuid}))
            assert removed.ok or word == "FAILURE-PLUS" or not removed.uuids


async def put(remote: P2PRemote, session: Session, exchange: Exchange) -> None:
    key, (word, _, rest) = exchange.key, exchange.answer.partition(" ")
    if word in ("ALREADY-HAVE", "ALREADY-HAVE-PLUS"):
        if looked_for(session) == "SUCCESS":
            async with remote.put(key) as upload:
                assert upload.already == {remote.uuid}
        else:
            with pytest.raises(ContentError, match="a check did not find it"):
                async with remote.put(key):
                    pass
        return
    if word != "PUT-FROM":
        errors = ERRORS | {"FAILURE": ContentError}
        with pytest.raises(errors.get(word, RemoteProtocolError)):
            async with remote.put(key):
                pass
        return
    number = session.exchanges.index(exchange)
    data = next((e for e in session.exchanges[number:] if e.verb == "DATA"), None)
    if data is None:
        return
    async with remote.put(key) as upload:
        assert upload.offset == int(rest)
        assert key.size is not None
        length = max(0, key.size - upload.offset)
        assert data.line == f"DATA {length}"
        await upload.start(length)
        await upload.write(bytes(length))
        result, _, names = data.answer.partition(" ")
        if result in ("SUCCESS", "SUCCESS-PLUS"):
            stored = await upload.finish()
            assert stored.ok
            assert {UUID(name) for name in names.split() if not is_cluster(name)} <= stored.uuids
            assert not any(map(is_cluster, stored.uuids - {remote.uuid}))
            assert is_cluster(remote.uuid) or remote.uuid in stored.uuids
        else:
            errors = ERRORS | {"FAILURE": ContentError, "FAILURE-PLUS": ContentError}
            with pytest.raises(errors.get(result, RemoteProtocolError)):
                await upload.finish()
