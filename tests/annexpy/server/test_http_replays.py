"""What was said over HTTP to servers of git-annex is said to ours, in the same state and with the same faults.

Status, type and body of the answers are the same, to the byte, except where ``DEVIATIONS`` has another one and says
why; so does docs/deviations.md.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import pytest
from recorded_http import (
    LOGINS,
    Answer,
    Recording,
    Turn,
    access_of,
    answer_in,
    content,
    key_in,
    known_there,
    login_of,
    recorded,
)
from recorded_node import RecordedNode
from recordings import TRANSCRIPTS, Deviation, deviation, lay

from annexpy.actions import cluster as clusters
from annexpy.keys.key import Key
from annexpy.keys.layout import key_file, object_paths
from annexpy.p2p import http as h
from annexpy.remote.base import Remote
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.server.gateway import Gateway
from annexpy.server.http import Routes
from annexpy.server.shown import Shown, ShownRepositories
from annexpy.transport.memory import MemoryTransport, memory_pair
from annexpy.transport.sockets import listen_unix
from annexpy.uuids import UUID

pytestmark = pytest.mark.transcripts

FOUND = [
    path for path in sorted(TRANSCRIPTS.glob("*http*-*.jsonl")) if recorded(path).turns
]  # fmt: skip
"""All in which something was said over HTTP."""
SAME_STATUS = "the status is the same"
LOCKED = "somebody who locked it vanished"
FAULTY = "a node does not take it"
PRESENT = "it is there"
BEYOND = "a put went on from beyond what was there"
NOBODY = "these credentials are nobody's"
IN_THE_CLEAR = "without TLS no password is asked for, and none was given"
DEVIATIONS = (
    Deviation(
        r"(.|\n)*", r"[45]\d\d (.|\n)*", r"[45]\d\d (.|\n)*",
        "programs go by the status",
        when=SAME_STATUS,
    ),
    Deviation(
        r"\w+ \S+ HTTP(.|\n)*", r"400 (.|\n)*(bad version|empty UUID)", r"404 (.|\n)*",
        "stock clients fall back on nothing else",
    ),
    Deviation(
        r"(?!GET|POST)\w+ (.|\n)*|GET \S+/(put|remove|lockcontent)\b(.|\n)*", r"400 (.|\n)*", r"405 (.|\n)*",
        "so that one sees what is wrong",
    ),
    Deviation(
        r"\w+ \S*key\S*%[89A-F][0-9A-F](.|\n)*", r'200 (.|\n)*("present":false\}| 0\n)', r'200 (.|\n)*',
        "keys are bytes",
    ),
    Deviation(
        r"(.|\n)*\r\nAccept: (.|\n)*", r"400 (.|\n)*bad version", r"200 (.|\n)*",
        "the answer has one form",
    ),
    Deviation(
        r"(.|\n)*\r\nAuthorization: Bearer (.|\n)*", r"400 (.|\n)*", r"(200|401|403) (.|\n)*",
        "programs have tokens",
    ),
    Deviation(
        r"(.|\n)*\r\nAuthorization: (.|\n)*", r"403 (.|\n)*", r"401 (.|\n)*",
        "clients that have stored a wrong password ask for another one",
        when=NOBODY,
    ),
    Deviation(
        r"(.|\n)*", r"401 (.|\n)*", r"403 (.|\n)*",
        "nobody is asked for a password in the clear",
        when=IN_THE_CLEAR,
    ),
    Deviation(
        r"POST \S+[?&]timestamp=(.|\n)*", r"200 (.|\n)*", r"400 (.|\n)* seconds ahead\n",
        "no lock lasts that long",
    ),
    Deviation(
        r"(GET|HEAD) \S+/checkpresent\S* (.|\n)*", r"400 (.|\n)*", r"200 (.|\n)*",
        "they change nothing",
    ),
    Deviation(
        r"GET \S+/key/(.|\n)*", r"200 application/octet-stream 0\n", r"404 (.|\n)*",
        "a client could take it for the content of a key without a size",
    ),
    Deviation(
        r"GET \S+[?&]offset=-\d+(.|\n)*", r"200 (.|\n)*", r"400 (.|\n)*",
        "an offset is a number of bytes",
    ),
    Deviation(
        r"GET (.|\n)*\r\nRange: (.|\n)*", r"200 (.|\n)*", r"206 (.|\n)*",
        "readers that go on, players, caches",
    ),
    Deviation(
        r"POST \S+/put\?\S*data-present=true(.|\n)*", r"400 (.|\n)*", r"200 (.|\n)*",
        "nothing is sent",
    ),
    Deviation(
        r"POST \S+/put\?(.|\n)*", r'200 (.|\n)*"stored":false\}', r"400 (.|\n)*",
        "it could only fail",
    ),
    Deviation(
        r"POST \S+/put\?(.|\n)*", r'200 (.|\n)*"stored":true\}', r'200 (.|\n)*"stored":true,"already":true\}',
        "a copy that was there already is never taken for a new one",
        when=PRESENT,
    ),
    Deviation(
        r"POST \S+/lockcontent\?(.|\n)*", r'200 (.|\n)*"locked":false\}', r'200 (.|\n)*"locked":true(.|\n)*',
        "only locks that are held are counted",
        when=PRESENT,
    ),
    Deviation(
        r"POST \S+/putoffset\?(.|\n)*", r'200 (.|\n)*"alreadyhave":true(.|\n)*', r"(403|50\d) (.|\n)*",
        "ALREADY-HAVE is for content that was found",
        when=FAULTY,
    ),
    Deviation(
        r"POST \S+/putoffset\?(.|\n)*", r'200 (.|\n)*\{"offset":0\}', r'200 (.|\n)*\{"offset":[1-9]\d*\}',
        "it was right",
        when=BEYOND,
    ),
    Deviation(
        r"POST \S+/remove\?(.|\n)*", r'200 (.|\n)*"removed":true\}', r'200 (.|\n)*"removed":false\}',
        "as over ssh",
        when=LOCKED,
    ),
)  # fmt: skip


class World:
    """A repository for each UUID that was there, and a gateway in front of them where the recorded server was one."""

    def __init__(self, folder: Path, recording: Recording) -> None:
        self.folder, self.recording = folder, recording
        self.faulty = bool(re.search("FAULT|answers ERROR to PUT", recording.comment))
        self.is_gateway = bool(recording.clusters()) or self.faulty or "node" in recording.comment
        self.places: dict[str, Repository] = {}
        self.logins = {LOGINS[name] for name in known_there(recording)}
        self.beyond: set[Key] = set()
        self._seen: set[tuple[str, bytes]] = set()
        self._put: set[tuple[str, bytes]] = set()

    @asynccontextmanager
    async def served(self) -> AsyncIterator[Routes]:
        with tempfile.TemporaryDirectory(prefix="n") as sockets:
            async with AsyncExitStack() as stack:
                for uuid in sorted(self.recording.nodes()):
                    made = Repository.init(self.folder / uuid, bare=True, uuid=UUID(uuid))
                    self.places[uuid] = stack.enter_context(made)
                find = await self._finds(stack, sockets) if self.is_gateway else self._own
                shown = ShownRepositories((Shown(find),))
                yield await stack.enter_async_context(Routes(shown, access=access_of(self.recording)))

    async def _own(self, uuid: UUID, bypass: tuple[UUID, ...]) -> Remote | None:
        found = self.places.get(uuid)
        return None if found is None else Local(found, durability="fast")

    async def _finds(self, stack: AsyncExitStack, sockets: str):  # type: ignore[no-untyped-def]  # what Shown takes
        own = UUID("03029bf7-f6b2-4f2d-9b5b-27ee5a48ef4a")
        own = own if own in self.places else UUID("00000000-0000-4000-8000-000000000000")
        gateway = self.places.get(own) or stack.enter_context(
            Repository.init(self.folder / "gateway", bare=True, uuid=own)
        )
        for cluster in self.recording.clusters():
            gateway.config.set("annex.cluster.safe", cluster)
        for number, (uuid, place) in enumerate(self.places.items()):
            if uuid == own:
                continue
            url = f"unix:{sockets}/n{number}" if self.faulty else place.path
            if self.faulty:
                node = RecordedNode(uuid, faults={"PUT": "ERROR this repository is read-only"}, greets_as=uuid)
                listener = await stack.enter_async_context(await listen_unix(f"{sockets}/n{number}"))
                group = await stack.enter_async_context(anyio.create_task_group())
                stack.callback(group.cancel_scope.cancel)
                group.start_soon(listener.serve, node.serve)
            for name, value in {"url": url, "annex-uuid": uuid, "annex-proxy": "true"}.items():
                gateway.config.set(f"remote.n{number}.{name}", value)
            if self.recording.clusters():
                gateway.config.set(f"remote.n{number}.annex-cluster-node", "safe")
        await clusters.update(gateway)
        await gateway.branch.commit()
        return (await stack.enter_async_context(Gateway(gateway, durability="fast"))).remote

    def holds(self, request: bytes) -> bool:
        """What a request is about is there."""
        key, place = key_in(request), self._place(request)
        return key is not None and place is not None and place.content.present(key)

    def _place(self, request: bytes) -> Repository | None:
        uuid = request.split(b"/")[2] if request.split(b" ")[1].startswith(b"/git-annex/") else b""
        return next(iter(self.places.values())) if uuid[:1] == b"[" else self.places.get(uuid.decode())

    # -- its state --------------------------------------------------------------------------------

    def before(self, request: bytes, answer: Answer | None, comment: str) -> None:
        """What the first answer about a key tells of, and what the recorder says that he did."""
        key, place = key_in(request), self._place(request)
        if key is None or place is None:
            return
        known = (place.uuid, key.raw)
        by_hand = re.search(r"(?:server has )?(\d+)(?: bytes partial|, client)", comment)
        if by_hand is not None:
            self._lay_partial(place, key, int(by_hand[1]))
        elif answer is not None and answer.status == 200:
            offset = re.search(rb'\{"offset":([1-9]\d*)', answer.body)
            if offset and known not in self._put:
                self._lay_partial(place, key, int(offset[1]))
            there = rb'"present":true|"alreadyhave":true|"locked":true|"removed":|\A[^{]'
            if known not in self._seen | self._put and not self.faulty and re.search(there, answer.body):
                lay(place, b"annex/objects/" + object_paths(key)[0], content(self.recording, key))
            self._seen.add(known)
        if b"/put?" in request:
            self._put.add(known)
            offset, there = re.search(rb"[?&]offset=(\d+)", request), place.files.status(b"annex/tmp/" + key_file(key))
            if offset and there and int(offset[1]) > there.st_size:
                self.beyond.add(key)

    def _lay_partial(self, place: Repository, key: Key, size: int) -> None:
        lay(place, b"annex/tmp/" + key_file(key), content(self.recording, key)[:size])


class Wires:
    """The connections of the recorded client."""

    def __init__(self, world: World, routes: Routes, group: anyio.abc.TaskGroup) -> None:
        self._world, self._routes, self._group = world, routes, group
        self._wires: dict[object, MemoryTransport] = {}
        self._requests: dict[object, bytes] = {}
        self._locks: dict[bytes, bytes] = {}
        self._shift = 0  # seconds from the recorder's clock to this one
        self._locked: dict[bytes, bytes] = {}
        self._keeps: dict[object, bytes] = {}
        self._left: set[bytes] = set()

    async def send(self, turn: Turn, answer: Answer | None) -> None:
        sent = turn.sent
        for theirs, ours in self._locks.items():
            sent = sent.replace(theirs, ours)
        sent = re.sub(rb"(?<=[?&]timestamp=)\d+(?=[& ])", lambda time: b"%d" % (int(time[0]) + self._shift), sent)
        if turn.wire not in self._wires:
            self._world.before(sent, answer, turn.comment)
            self._wires[turn.wire], server = memory_pair(capacity=1 << 20)
            self._group.start_soon(self._routes.connections.serve, server)
            self._requests[turn.wire] = sent
            lock = re.search(rb"lockid=([^& ]+)", sent)
            if lock:
                self._keeps[turn.wire] = self._locked.get(lock[1], b"")
        await self._wires[turn.wire].send(sent)

    async def hear(self, turn: Turn) -> None:
        assert turn.heard is not None
        wire, request, data = self._wires[turn.wire], self._requests[turn.wire], b""
        method, answer = request.split(b" ", 1)[0], None
        while answer is None:
            piece = await wire.receive()
            data += piece
            answer = answer_in(data, method, over=not piece)
            assert answer is not None or piece, (request[:200], data)
        self._keeps.pop(turn.wire, None)
        await wire.aclose()
        self._learn(request, turn.heard, answer)
        theirs, ours = turn.heard.text(), answer.text()
        if ours == theirs:
            return
        key = key_in(request)
        facts = {SAME_STATUS} if turn.heard.status == answer.status else set()
        facts |= {PRESENT} if self._world.holds(request) else set()
        facts |= {FAULTY} if self._world.faulty else set()
        who = login_of(request)
        facts |= {NOBODY} if who and who not in self._world.logins else set()
        facts |= {IN_THE_CLEAR} if not who and "--authenv" in self._world.recording.comment.split() else set()
        facts |= {BEYOND} if key in self._world.beyond else set()
        facts |= {LOCKED} if key is not None and key.raw in self._left else set()
        assert deviation(request, theirs, ours, DEVIATIONS, so=facts), (request[:200], theirs[:300], ours[:300])

    async def leave(self, wire: object) -> None:
        """Whoever kept something locked hangs up."""
        if wire in self._keeps:
            self._left.add(self._keeps.pop(wire))
            await self._wires[wire].aclose()

    def _learn(self, request: bytes, theirs: Answer, ours: Answer) -> None:
        """What the same lock is called here, and what time it is."""
        times = [re.search(rb'\{"timestamp":(\d+)\}', one.body) for one in (theirs, ours)]
        if times[0] and times[1]:
            self._shift = int(times[1][1]) - int(times[0][1])
        ids = [re.search(rb'"lockid":"([^"]+)"', one.body) for one in (theirs, ours)]
        if ids[0] and ids[1]:
            self._locks[ids[0][1]] = ids[1][1]
            key = key_in(request)
            assert key is not None
            self._locked[ids[1][1]] = key.raw


def _answers(turns: list[Turn]) -> Iterator[tuple[Turn, Answer | None, bool]]:
    """Each turn, the answer to it, and whether its connection says nothing more."""
    for at, turn in enumerate(turns):
        later = [one for one in turns[at + 1 :] if one.wire == turn.wire]
        yield turn, next((one.heard for one in later if one.heard is not None), None), not later


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
async def test_requests_are_answered_as_recorded(tmp_path: Path, path: Path) -> None:
    recording = recorded(path)
    world = World(tmp_path, recording)
    with anyio.fail_after(60):
        async with world.served() as routes, anyio.create_task_group() as group:
            wires = Wires(world, routes, group)
            for turn, answer, last in _answers(recording.turns):
                if turn.heard is None:
                    assert answer is not None or b"/keeplocked?" in turn.sent, turn.sent[:200]
                    await wires.send(turn, answer)
                    if last and answer is None:
                        await wires.leave(turn.wire)
                else:
                    await wires.hear(turn)
            group.cancel_scope.cancel()


@pytest.mark.parametrize("known", DEVIATIONS, ids=lambda known: known.why[:40])
def test_every_deviation_is_in_the_manual(known: Deviation) -> None:
    assert known.why in (TRANSCRIPTS.parents[1] / "docs" / "deviations.md").read_text()


# -- and our client asks as the stock client does ---------------------------------------------------------------------

CLIENTS = [path for path in FOUND if path.stem.startswith(("httpclient-", "dataloss-"))]


@pytest.mark.parametrize("path", CLIENTS, ids=lambda path: path.stem)
def test_what_the_stock_client_asks_is_asked_by_ours_to_the_byte(path: Path) -> None:
    for turn in recorded(path).turns:
        head = re.match(rb"(\w+) (\S+) HTTP/1.1\r\n(.*?)\r\n\r\n", turn.sent, re.DOTALL)
        if head is None:
            continue
        length = re.search(rb"(?i)x-git-annex-data-length: *(\d+)", head[3])
        asked = h.parse_request(h.parse_route(head[1], head[2]), length and length[1])
        assert (h.method_of(asked), h.format_request(asked)) == (head[1], head[2])
