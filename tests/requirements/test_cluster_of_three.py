"""A cluster of three unlike nodes, one of which is dead, stale, full or read-only.

Every answer is right and nearly as quick as that of a healthy cluster in the same run, the bad node costs at most
one deadline, and results and logs name exactly who holds what: the disks and the real git-annex are asked.
"""

from __future__ import annotations

import shutil
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from math import log2
from pathlib import Path
from statistics import median
from typing import TypeVar

import anyio
import pytest
from places import (
    Place,
    content_of,
    in_process,
    key_of,
    over_pipe,
    over_socket,
    read,
    remote_at,
    served,
    store,
)

from annexpy.errors import AccessDenied, AnnexError, ConnectFailed, ConnectionLost, NoSpace, PeerError, TimedOut
from annexpy.keys.key import Key
from annexpy.remote.base import Remote, check_present_many
from annexpy.remote.cluster import Cluster
from annexpy.remote.connect import connect
from annexpy.remote.recording import Recording
from annexpy.remote.wrappers import ReadOnly
from annexpy.repo.repository import Repository
from annexpy.transport.pipe import DialCommand

pytestmark = pytest.mark.interop

T = TypeVar("T")
GETS, PUTS, ROUNDS, DEADLINE = 200, 50, 5, 5.0
OLD = [content_of(number) for number in range(GETS)]
OLD_KEYS = [key_of(content) for content in OLD]
ABSENT = [key_of(content_of(number)) for number in range(90_000, 90_020)]
WAYS = ("local", "pipe", "unix")


# -- the nodes ----------------------------------------------------------------------------------------------------


@dataclass
class Bad:
    """A node that something is wrong with.

    Attributes:
        node: The remote.
        attempts: How often somebody tried to reach it.
        middle: Called when half of the gets are done.
    """

    node: Remote
    attempts: Callable[[], int] = lambda: 0
    middle: Callable[[], None] = lambda: None


Make = Callable[[Place, Path], AbstractAsyncContextManager[Bad]]


@asynccontextmanager
async def good(way: str, place: Place, folder: Path, name: str) -> AsyncIterator[Remote]:
    """The node at *place*, reached in one of three ways."""
    async with AsyncExitStack() as stack:
        if way == "local":
            yield await stack.enter_async_context(in_process(place, name))
        elif way == "pipe":
            yield await stack.enter_async_context(remote_at(over_pipe(place), place, name))
        else:
            stack.enter_context(served(place, folder / f"{name}.s"))
            yield await stack.enter_async_context(remote_at(over_socket(folder / f"{name}.s"), place, name))


@asynccontextmanager
async def killed(place: Place, folder: Path, *, when: str = "before", how: int = signal.SIGKILL) -> AsyncIterator[Bad]:
    """The process behind a unix socket is killed, or stopped, before the first request or in the middle."""
    with served(place, folder / "bad.s") as process:

        def kill() -> None:
            process.send_signal(how)
            if how == signal.SIGKILL:
                process.wait(10)

        if when == "before":
            kill()
        dial = over_socket(folder / "bad.s")
        async with remote_at(dial, place, "bad") as remote:
            yield Bad(remote, lambda: dial.calls, kill if when == "middle" else lambda: None)


@asynccontextmanager
async def silent(place: Place, folder: Path) -> AsyncIterator[Bad]:
    """Accepts, and then says nothing."""
    accepted: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "bad.s"))
        listener.listen(64)

        def accept() -> None:
            try:
                while True:
                    accepted.append(listener.accept()[0])
            except OSError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            async with remote_at(over_socket(folder / "bad.s"), place, "bad") as remote:
                yield Bad(remote, lambda: len(accepted))
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in accepted:
                one.close()


@asynccontextmanager
async def child(place: Place, folder: Path, script: str) -> AsyncIterator[Bad]:
    """A command in place of ``annexpy-shell``, which counts how often it is run."""
    ran = folder / "ran"
    dial = DialCommand(("sh", "-c", f"echo >>'{ran}'; {script}"))
    async with remote_at(dial, place, "bad") as remote:
        yield Bad(remote, lambda: len(ran.read_bytes()) if ran.exists() else 0)


@asynccontextmanager
async def gone(place: Place, folder: Path) -> AsyncIterator[Bad]:
    """A path where nothing is."""
    place.path.rename(folder / "away")
    async with AsyncExitStack() as stack:
        node = connect(place.path, uuid=place.uuid, name="bad")
        stack.push_async_callback(node.aclose)
        stack.callback((folder / "away").rename, place.path)
        yield Bad(node)


def changed(way: str, change: Callable[[Place], None]) -> Make:
    """A node that can be reached, but whose repository was changed."""

    @asynccontextmanager
    async def make(place: Place, folder: Path) -> AsyncIterator[Bad]:
        change(place)
        async with good(way, place, folder, "bad") as node:
            yield Bad(node)

    return make


@asynccontextmanager
async def read_only(place: Place, folder: Path, way: str) -> AsyncIterator[Bad]:
    async with AsyncExitStack() as stack:
        if way == "local":
            yield Bad(ReadOnly(await stack.enter_async_context(in_process(place, "bad"))))
        elif way == "pipe":
            dial = over_pipe(place, env={"GIT_ANNEX_SHELL_READONLY": "1"})
            yield Bad(await stack.enter_async_context(remote_at(dial, place, "bad")))
        else:
            stack.enter_context(served(place, folder / "bad.s", "READ_ONLY"))
            yield Bad(await stack.enter_async_context(remote_at(over_socket(folder / "bad.s"), place, "bad")))


@asynccontextmanager
async def no_large_files(place: Place, folder: Path) -> AsyncIterator[Bad]:
    """Writing fails in the middle of the content."""
    limited = ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")
    async with remote_at(over_pipe(place, prefix=limited), place, "bad") as remote:
        yield Bad(remote)


def stale(place: Place) -> None:
    place.lose(OLD_KEYS)


def full(place: Place) -> None:
    place.set("annex.diskreserve", "100 petabytes")


@dataclass(frozen=True)
class Kind:
    """What is wrong, with the node of which way, and how that shows.

    Attributes:
        dead: It cannot say whether it has something.
        refuses: Why it stores nothing; empty when it does.
        attempts: The most that may be made to reach it; None when it answers.
    """

    way: str
    make: Make
    dead: bool = False
    refuses: tuple[type[AnnexError], ...] = ()
    attempts: Callable[[float], float] | None = None
    backend: str = "asyncio"


def one_deadline(seconds: float) -> float:
    """A get that another node answered in its place, and the put that waited for the rest of the deadline."""
    return 2 * (1 + seconds // 60)


def ever_more_rarely(seconds: float) -> float:
    """At once, after 1 s, after 2 s more, after 4 s more …: what is refused at once costs nothing."""
    return 1 + log2(1 + seconds)


DEAD = (ConnectFailed, ConnectionLost, TimedOut)
KINDS = {
    "dead: killed before": Kind("unix", killed, True, DEAD, ever_more_rarely),
    "dead: killed in the middle": Kind(
        "unix",
        lambda place, folder: killed(place, folder, when="middle"),
        True,
        DEAD,
        lambda s: 2 + ever_more_rarely(s),
    ),
    "dead: stopped in the middle": Kind(
        "unix",
        lambda place, folder: killed(place, folder, when="middle", how=signal.SIGSTOP),
        True,
        DEAD,
        lambda s: 1 + one_deadline(s),
        "trio",
    ),
    "dead: silent": Kind("unix", silent, True, DEAD, one_deadline),
    "dead: silent child": Kind(
        "pipe", lambda place, folder: child(place, folder, "exec cat >/dev/null"), True, DEAD, one_deadline
    ),
    "dead: child that ends": Kind(
        "pipe", lambda place, folder: child(place, folder, "exit 255"), True, DEAD, ever_more_rarely, "trio"
    ),
    "dead: path gone": Kind("local", gone, True, DEAD),
    **{f"stale: {way}": Kind(way, changed(way, stale)) for way in WAYS},
    **{f"full: {way}": Kind(way, changed(way, full), refuses=(NoSpace, PeerError)) for way in WAYS},
    "full: no large files": Kind("pipe", no_large_files, refuses=(AnnexError,)),
    **{
        f"read-only: {way}": Kind(
            way, lambda place, folder, way=way: read_only(place, folder, way), refuses=(AccessDenied, PeerError)
        )
        for way in WAYS
    },
}


# -- the measure --------------------------------------------------------------------------------------------------


@dataclass
class Measured:
    """What the same requests took of a healthy cluster and of the one on trial, in seconds, taken in turn."""

    healthy: list[float] = field(default_factory=list)
    trial: list[float] = field(default_factory=list)

    @property
    def quick(self) -> bool:
        """At p95 at most twice what the healthy one took, and the noise of a clock."""
        return p95(self.trial) <= 2 * p95(self.healthy) + 0.0005

    def __str__(self) -> str:
        return f"{1000 * p95(self.trial):.2f} ms, healthy {1000 * p95(self.healthy):.2f} ms"


def p95(times: Sequence[float], parts: int = 5) -> float:
    """Of equal parts of the run, the one in the middle: one hiccup of the machine does not decide."""
    size = len(times) // parts
    return median(sorted(times[n * size : (n + 1) * size])[size * 95 // 100] for n in range(parts))


async def timed(into: list[float], call: Awaitable[T]) -> T:
    began = time.perf_counter()
    result = await call
    into.append(time.perf_counter() - began)
    return result


class Trial:
    """A healthy cluster, the one on trial, and the gateway that records for them."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        places = {name: Place(folder / name) for name in (*WAYS, "spare", "bad")}
        self.gateway, self.bad_place, self.places = Place(folder / "gateway"), places["bad"], places
        self.members = [self.bad_place if way == kind.way else places[way] for way in WAYS]
        self.everybody = {place.uuid for place in self.members}
        self.new: dict[Key, bytes] = {}
        self.holders: dict[Key, set[str]] = {}
        self.measured: list[Measured] = []
        self.numbers = count(10_000)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            repository = stack.enter_context(Repository.open(self.gateway.path))
            self.bad = await stack.enter_async_context(self.kind.make(self.bad_place, self.folder))
            nodes: dict[str, Remote] = {self.kind.way: self.bad.node}
            for way in WAYS:
                if way != self.kind.way:
                    nodes[way] = await stack.enter_async_context(good(way, self.places[way], self.folder, way))
            # The twin has a good node behind a socket where the other one has the bad node.
            spare = await stack.enter_async_context(good("unix", self.places["spare"], self.folder, "spare"))
            twins: list[Remote] = [spare]
            for way in WAYS:
                if way != self.kind.way:
                    name = f"{way}2"
                    twins.append(await stack.enter_async_context(good(way, self.places[way], self.folder, name)))
            logged = {key: set(locations.present) for key, locations in repository.branch.locations_many(OLD_KEYS)}
            assert all(present >= self.everybody for present in logged.values())

            def select(verb: str, key: Key, _: str, nodes: Sequence[Remote]) -> Sequence[Remote]:
                return nodes if verb == "put" else [node for node in nodes if node.uuid in logged[key]]

            self.healthy = Recording(Cluster(twins, select=select), repository.branch)
            self.cluster = Recording(Cluster([nodes[way] for way in WAYS], select=select), repository.branch)
            began = time.perf_counter()
            for measure in (self.gets, self.presence_checks, self.puts):
                await self.measure(measure)
            took = time.perf_counter() - began
            waited = sum(one for measured in self.measured for one in measured.trial if one > 0.9)
            assert waited <= DEADLINE * (1 + took // 60) + 0.3
            if self.kind.attempts is not None:
                assert 1 <= self.bad.attempts() <= self.kind.attempts(took)
            await self.ask_for_absent_ones()
            await repository.branch.commit()

    async def measure(self, measure: Callable[[], Awaitable[Measured]]) -> None:
        """Every answer has to be right; that they are quick may need a quiet moment of the machine."""
        rounds = []
        while len(rounds) < ROUNDS:
            rounds.append(await measure())
            self.measured.append(rounds[-1])
            if rounds[-1].quick:
                return
        pytest.fail(f"{measure.__name__}: {'; '.join(map(str, rounds))}")

    async def gets(self) -> Measured:
        measured = Measured()
        for number, (key, content) in enumerate(zip(OLD_KEYS, OLD, strict=True)):
            if number == GETS // 2 and not self.measured:
                self.bad.middle()
            assert await timed(measured.healthy, read(self.healthy, key)) == content
            assert await timed(measured.trial, read(self.cluster, key)) == content
        return measured

    async def presence_checks(self) -> Measured:
        measured = Measured()
        for key in OLD_KEYS:
            assert await timed(measured.healthy, self.healthy.check_present(key))
            assert await timed(measured.trial, self.cluster.check_present(key))
        return measured

    async def puts(self) -> Measured:
        measured = Measured()
        for _ in range(PUTS):
            content = content_of(next(self.numbers))
            await timed(measured.healthy, store(self.healthy, key_of(content), content))
            content = content_of(next(self.numbers))
            key = key_of(content)
            stored = await timed(measured.trial, store(self.cluster, key, content))
            self.new[key] = content
            holders = {place.uuid for place in self.members if place.path.exists() and place.holds(key, content)}
            self.holders[key] = holders
            assert stored.uuids == holders >= self.everybody - {self.bad_place.uuid}
            assert not stored.already
            assert set(stored.failed) == self.everybody - holders
            assert all(isinstance(error, self.kind.refuses) for error in stored.failed.values()), stored.failed
        return measured

    async def ask_for_absent_ones(self) -> None:
        """Nobody can say that nobody has it while one does not answer."""
        if self.kind.dead:
            with pytest.raises(DEAD):
                await check_present_many(self.cluster, ABSENT)
        else:
            assert not any(await check_present_many(self.cluster, ABSENT))

    def judge(self) -> None:
        """What the disks, our reader and the real git-annex say afterwards."""
        if self.kind.refuses:
            assert not any(self.bad_place.holds(key, content) for key, content in self.new.items())
        else:
            assert all(found == self.everybody for found in self.holders.values())
        assert self.gateway.logged(self.new) == self.holders
        assert self.gateway.whereis(self.new) == self.holders
        for place in self.members:
            own = place.logged(self.new)
            recorded = {key for key in self.new if place.uuid in own[key]}
            assert recorded == {key for key in self.new if place.uuid in self.holders[key]}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three nodes, one to spare, one to go wrong, and a gateway whose log says that each of them has everything."""
    folder = tmp_path_factory.mktemp("cluster")
    nodes = [Place.make(folder / name, OLD) for name in (*WAYS, "spare", "bad")]
    gateway = Place.make(folder / "gateway")
    with Repository.open(gateway.path) as repository:
        for key in OLD_KEYS:
            for node in nodes:
                repository.branch.set_present(key, node.uuid, True)
        repository.branch.commit_now()
    return folder


@pytest.mark.parametrize("name", KINDS)
def test_with_one_bad_node_every_answer_is_right_and_nearly_as_quick(
    name: str, originals: Path, tmp_path: Path, git_annex: str
) -> None:
    shutil.copytree(originals, tmp_path, symlinks=True, dirs_exist_ok=True)
    trial = Trial(KINDS[name], tmp_path)
    anyio.run(trial.run, backend=KINDS[name].backend)
    trial.judge()
