"""The wire is cut, at every byte of the framing and all over the content; what arrived is kept and resumed.

A ``P2PRemote`` on one side, ``serve()`` of a repository on disk on the other, and between them a transport that is
lost after so many bytes. Whatever happens: there is nothing or the whole content, who was told that it is stored
finds it stored and recorded, and the next attempt sends what is missing and no more.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest
from anyio.abc import TaskGroup
from places import Place, content_of, key_of, read

from annexpy.actions.destination import partial_name
from annexpy.actions.get import get
from annexpy.actions.put import put
from annexpy.errors import AnnexError, NodesFailed, TransportError
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, Stored, found
from annexpy.remote.cluster import Cluster
from annexpy.remote.local import Local
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.recording import Recording
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Durability
from annexpy.server.serve import serve
from annexpy.transport.base import CHUNK, Transport
from annexpy.transport.memory import Cut, memory_pair
from annexpy.uuids import UUID

MIB = 1024 * 1024
CONTENT = content_of(1, MIB)
KEY = key_of(CONTENT)
STEP = 4096


# -- the wire -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class At:
    """Where the wire is lost: after so many bytes from the client, or from the server."""

    sent: int | None = None
    received: int | None = None
    reset: bool = False


NOWHERE = At()


class Tap:
    """A transport that remembers what passed."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.sent = bytearray()
        self.received = bytearray()

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    async def send(self, data: bytes) -> None:
        self.sent += data
        await self._transport.send(data)

    def send_soon(self, data: bytes) -> None:
        self.sent += data
        self._transport.send_soon(data)

    async def receive(self, max_bytes: int = 1 << 18) -> bytes:
        data = await self._transport.receive(max_bytes)
        self.received += data
        return data


class Wires:
    """Connections to servers in the same event loop."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._served: list[anyio.Event] = []
        self.taps: list[Tap] = []

    @asynccontextmanager
    async def to(self, shown: Remote, at: At = NOWHERE, *, version: int = 4) -> AsyncIterator[P2PRemote]:
        """*shown* at the other end of a wire, the first of which is lost *at* some byte."""
        cuts = [at]

        async def dial() -> Transport:
            client, server = memory_pair()
            ended = anyio.Event()
            self._served.append(ended)

            async def one() -> None:
                await serve(server, shown)
                ended.set()

            self._tasks.start_soon(one)
            cut = cuts.pop() if cuts else NOWHERE
            self.taps.append(Tap(Cut(client, sent=cut.sent, received=cut.received, reset=cut.reset)))
            return self.taps[-1]  # type: ignore[return-value]  # what it lacks it has from the other one

        remote = P2PRemote(dial, uuid=shown.uuid, name="far", max_version=version, connections=1)
        try:
            yield remote
        finally:
            await remote.aclose()

    async def quiet(self) -> None:
        """The servers know that their clients are gone."""
        with anyio.fail_after(20):
            for ended in self._served:
                await ended.wait()
        self._served.clear()


@asynccontextmanager
async def wires() -> AsyncIterator[Wires]:
    async with anyio.create_task_group() as tasks:
        yield Wires(tasks)
        tasks.cancel_scope.cancel()


def points(before: int, after: int, body: int, step: int) -> Iterable[int]:
    """Every byte before and behind the content, and every *step* bytes of it."""
    yield from range(before + 1)
    yield from range(before + step, before + body, step)
    yield from range(before + body, before + body + after + 1)


def where(stream: bytes) -> tuple[int, int]:
    """How many bytes stand before and behind the content in *stream*."""
    before = stream.index(b"DATA %d\n" % MIB) + len(b"DATA %d\n" % MIB)
    return before, len(stream) - before - MIB


# -- one transfer -------------------------------------------------------------------------------------------------


class Rig:
    """A server on disk, and what a client does with it."""

    def __init__(self, folder: Path, stack: AsyncExitStack, tasks: Wires, version: int, durability: Durability) -> None:
        self.place, self.folder, self.wires, self.version = Place.make(folder / "far"), folder, tasks, version
        self.repository = stack.enter_context(Repository.open(self.place.path))
        self.far = Local(self.repository, durability=durability)

    async def put(self, at: At = NOWHERE) -> Stored:
        async with self.wires.to(self.far, at, version=self.version) as remote:
            stored = await put(remote, KEY, CONTENT)
        await self.wires.quiet()
        return stored

    async def get(self, at: At = NOWHERE) -> None:
        async with self.wires.to(self.far, at, version=self.version) as remote:
            await get(remote, KEY, self.folder / "file", durable=False)
        await self.wires.quiet()

    async def uncut(self, transfer: Callable[[], Awaitable[object]]) -> Tap:
        """What passes when nothing goes wrong."""
        self.wires.taps.clear()
        await transfer()
        (tap,) = self.wires.taps
        return tap

    async def cut_put(self, at: At, body: int) -> None:
        """A put that is lost *at* some byte, when *body* bytes of the content had passed; and then another one."""
        self.repository.content.remove(KEY)
        stored = None
        try:
            stored = await self.put(at)
        except TransportError:
            await self.wires.quiet()
        partial = self.place.partial(KEY)
        if self.place.holds(KEY, CONTENT):
            assert body == MIB
            assert not partial.exists()
        else:
            assert stored is None, "acknowledged and lost"
            assert (partial.read_bytes() if partial.exists() else b"") == CONTENT[:body]
        if stored is not None:
            assert stored.uuids == {self.place.uuid}
            assert self.place.uuid in self.repository.branch.locations(KEY).present
        there = self.place.object(KEY) is not None

        self.wires.taps.clear()
        stored = await self.put()
        assert stored.copies == {self.place.uuid}
        assert bool(stored.already) == there
        assert self.place.holds(KEY, CONTENT)
        assert not partial.exists()
        assert self.place.uuid in self.repository.branch.locations(KEY).present
        if not there:
            assert sum(len(tap.sent) for tap in self.wires.taps) < MIB - body + 400, "sent again what was there"

    async def cut_get(self, at: At, body: int) -> None:
        """The same for a get."""
        file = self.folder / "file"
        partial = self.folder / os.fsdecode(partial_name(KEY))
        file.unlink(missing_ok=True)
        try:
            await self.get(at)
        except TransportError:
            await self.wires.quiet()
            assert not file.exists()
            arrived = partial.read_bytes() if partial.exists() else b""
            assert arrived == CONTENT[: len(arrived)]
            # The last chunk is given out once the sender has said that it is valid.
            assert len(arrived) == body if body < MIB else len(arrived) >= MIB - CHUNK
            self.wires.taps.clear()
            await self.get()
            came = sum(len(tap.received) for tap in self.wires.taps)
            assert came < MIB - len(arrived) + 400, "came again what was there"
        assert file.read_bytes() == CONTENT
        assert not partial.exists()


async def sweep(folder: Path, direction: str, side: str, step: int, version: int) -> Counter[str]:
    """Cut a transfer at every point of one stream; how often that was before, in, and behind the content."""
    done: Counter[str] = Counter()
    async with AsyncExitStack() as stack, wires() as tasks:
        rig = Rig(folder, stack, tasks, version, "fast" if step == STEP else "full")
        tap = await rig.uncut(rig.put)
        if direction == "get":
            tap = await rig.uncut(rig.get)
        stream = bytes(getattr(tap, side))
        if (direction == "put") == (side == "sent"):
            before, after = where(stream)
            size = MIB
        else:
            # Of the other stream: the content passes once the line has that asks for it.
            line = b"PUT-FROM" if direction == "put" else b"GET"
            before = stream.index(b"\n", stream.index(line)) + 1
            size, after = 0, len(stream) - before
        for point in points(before, after, size, step):
            at = At(**{side: point}, reset=point % 2 == 1)
            if size:
                body = min(MIB, max(0, point - before))
            else:
                # A client that is cut off when it has asked hears nothing; a server that has asked hears all.
                body = MIB if point > before or (point == before and direction == "put") else 0
            await (rig.cut_put if direction == "put" else rig.cut_get)(at, body)
            done["before" if point < before else "in" if point < before + size else "behind"] += 1
        await rig.far.aclose()
    return done


@pytest.mark.parametrize(
    ("step", "version", "backend"), [(STEP, 4, "asyncio"), (16 * STEP, 0, "asyncio"), (16 * STEP, 1, "trio")]
)
@pytest.mark.parametrize("side", ["sent", "received"])
@pytest.mark.parametrize("direction", ["put", "get"])
def test_a_transfer_cut_anywhere_goes_on_where_it_was(
    direction: str, side: str, step: int, version: int, backend: str, tmp_path: Path
) -> None:
    done = anyio.run(sweep, tmp_path, direction, side, step, version, backend=backend)

    assert done["before"] > 60
    assert done["behind"]
    if (direction == "put") == (side == "sent"):
        assert done["in"] == MIB // step


# -- many nodes ---------------------------------------------------------------------------------------------------


class FanOut:
    """Three nodes on disk, one of them in the client's process, and a gateway that records.

    Every trial takes a content that nobody has, gives each node a beginning of it, all of it, or nothing, cuts some
    of the wires somewhere (or the source), then lets everybody try again.
    """

    def __init__(self, folder: Path, stack: AsyncExitStack, tasks: Wires, seed: int) -> None:
        self.random, self.wires, self.folder = random.Random(seed), tasks, folder
        self.places = [Place.make(folder / name) for name in ("a", "b", "c")]
        self.gateway = stack.enter_context(Repository.open(Place.make(folder / "gateway").path))
        repositories = [stack.enter_context(Repository.open(place.path)) for place in self.places]
        self.locals = [Local(repository, durability="fast") for repository in repositories]
        for place in self.places:
            (place.path / "annex" / "tmp").mkdir(exist_ok=True)
        self.seen: Counter[str] = Counter()

    async def trial(self) -> None:
        size = self.random.choice((17, 5_000, 100_000, 300_000, 700_000))
        content = self.random.randbytes(size)
        await (self.put if self.random.random() < 0.6 else self.get)(key_of(content), content)

    def at(self, size: int) -> At:
        """Somewhere in a transfer of *size* bytes, framing included, or nowhere."""
        match self.random.randrange(4):
            case 0:
                return NOWHERE
            case 1:
                return At(received=self.random.randrange(size + 200), reset=self.random.random() < 0.5)
            case _:
                return At(sent=self.random.randrange(size + 200))

    @asynccontextmanager
    async def cluster(self, ats: Sequence[At]) -> AsyncIterator[Cluster]:
        """The first node in this process, the others behind wires."""
        async with AsyncExitStack() as stack:
            nodes: list[Remote] = [self.locals[0]]
            for local, at in zip(self.locals[1:], ats, strict=True):
                nodes.append(await stack.enter_async_context(self.wires.to(local, at)))
            yield Cluster(nodes)

    def holders(self, key: Key, content: bytes) -> frozenset[UUID]:
        return frozenset(place.uuid for place in self.places if place.holds(key, content))

    async def begin(self, key: Key, content: bytes) -> None:
        """Give each node some of it."""
        for place, local in zip(self.places, self.locals, strict=True):
            match self.random.randrange(8):
                case 0:
                    async with local.put(key) as upload:
                        await upload.start(len(content))
                        await upload.write(content)
                        await upload.finish()
                case 1:
                    place.partial(key).write_bytes(content + b"more than there is")
                case 2 | 3:
                    pass
                case _:
                    place.partial(key).write_bytes(content[: self.random.randrange(len(content) + 1)])

    async def put(self, key: Key, content: bytes) -> None:
        await self.begin(key, content)
        before = self.holders(key, content)
        left_at = self.random.randrange(len(content) + 1) if self.random.random() < 0.2 else None
        stored = None
        async with self.cluster([self.at(len(content)), self.at(len(content))]) as cluster:
            try:
                stored = await send(Recording(cluster, self.gateway.branch), key, content, left_at)
            except AnnexError as error:
                self.unknown(error)
        await self.wires.quiet()
        holders = self.holders(key, content)
        recorded = frozenset(self.gateway.branch.locations(key).present)
        if stored is None:
            assert recorded <= holders
        else:
            assert recorded == stored.copies <= holders
            assert before <= stored.copies | stored.failed.keys()
            assert stored.copies | stored.failed.keys() == {place.uuid for place in self.places}
            for uuid in holders - stored.copies:  # stored, but the answer was lost
                assert isinstance(stored.failed[uuid], TransportError)
            self.seen["of three" if len(holders) == 3 else "of some"] += 1
        self.seen["cut" if stored is None or stored.failed else "uncut"] += 1

        async with self.cluster([NOWHERE, NOWHERE]) as cluster:
            stored = await put(Recording(cluster, self.gateway.branch), key, content)
            assert not stored.failed
            assert await read(cluster, key) == content
        await self.wires.quiet()
        everybody = {place.uuid for place in self.places}
        assert stored.copies == self.holders(key, content) == everybody
        assert set(self.gateway.branch.locations(key).present) == everybody
        for place, local in zip(self.places, self.locals, strict=True):
            assert not place.partial(key).exists()
            assert place.uuid in local.repository.branch.locations(key).present
            local.repository.content.remove(key)

    async def get(self, key: Key, content: bytes) -> None:
        """From whoever has it, and some have lost it."""
        holders = self.random.sample(range(3), self.random.choice((1, 2, 2, 3)))
        for number in holders:
            async with self.locals[number].put(key) as upload:
                await upload.start(len(content))
                await upload.write(content)
                await upload.finish()
        file, ats = self.folder / "file", [self.at(len(content)), self.at(len(content))]
        file.unlink(missing_ok=True)
        for _ in range(6):  # every wire is cut once
            async with self.cluster(ats) as cluster:
                try:
                    await get(cluster, key, file, durable=False)
                    break
                except AnnexError as error:
                    self.unknown(error)
                    self.seen["get again"] += 1
                    assert not file.exists()
                    ats = [NOWHERE, NOWHERE]
        assert file.read_bytes() == content
        await self.wires.quiet()
        self.seen["got"] += 1
        for number in holders:
            self.locals[number].repository.content.remove(key)

    def unknown(self, error: AnnexError) -> None:
        """Only what a cut can explain."""
        errors = error.failed.values() if isinstance(error, NodesFailed) else [error]
        assert any(isinstance(one, TransportError) for one in errors), error


async def send(remote: Remote, key: Key, content: bytes, left_at: int | None) -> Stored | None:
    """A put, whose source may be gone after some bytes."""
    if left_at is None:
        return await put(remote, key, content)
    async with remote.put(key) as upload:
        if upload.already is not None:
            return found(upload)
        if upload.offset <= left_at:
            await upload.start(len(content) - upload.offset)
            for start in range(upload.offset, left_at, 100_000):
                await upload.write(content[start : min(left_at, start + 100_000)])
    return None


async def fan_outs(folder: Path, seed: int, trials: int) -> Counter[str]:
    async with AsyncExitStack() as stack, wires() as tasks:
        rig = FanOut(folder, stack, tasks, seed)
        for number in range(trials):
            try:
                await rig.trial()
            except Exception as error:
                error.add_note(f"seed {seed}, trial {number}")
                raise
        for local in rig.locals:
            await local.aclose()
    return rig.seen


def test_fan_outs_cut_at_random_points_end_in_identical_bytes(tmp_path: Path) -> None:
    seen = anyio.run(fan_outs, tmp_path, 20261121, 100, backend="asyncio")

    assert min(seen["cut"], seen["uncut"], seen["got"], seen["get again"], seen["of some"]) > 2, seen


@pytest.mark.campaign
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_2000_fan_outs_cut_at_random_points_end_in_identical_bytes(tmp_path: Path, backend: str) -> None:
    print(anyio.run(fan_outs, tmp_path, random.randrange(1 << 32), 2000, backend=backend))
