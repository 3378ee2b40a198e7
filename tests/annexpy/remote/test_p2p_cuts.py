"""The connection is lost at every byte of every exchange: a typed error or the truth, and then the pool goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest
from remote_contract import CONTENT, KEY, WORM, A, HandClock, content_of, key_of, read, store

from annexpy.clock import Deadline
from annexpy.errors import AnnexError, ConnectFailed, ConnectionLost, KeyNotPresent, TimedOut
from annexpy.remote.base import Removed
from annexpy.remote.memory import MemoryRemote
from annexpy.remote.p2p import P2PRemote
from annexpy.server.serve import serve
from annexpy.transport.base import Transport
from annexpy.transport.memory import Cut, memory_pair
from annexpy.transport.sockets import DialUnix, listen_unix

pytestmark = pytest.mark.anyio

NEW = content_of(1, 150)
NEW_KEY = key_of(NEW)
ABSENT = key_of(content_of(2))


class Measured:
    """A transport that counts."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.sent = self.received = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.transport, name)

    async def receive(self, max_bytes: int = 1 << 18) -> bytes:
        data = await self.transport.receive(max_bytes)
        self.received += len(data)
        return data

    async def send(self, data: bytes) -> None:
        self.sent += len(data)
        await self.transport.send(data)


async def lock(remote: P2PRemote) -> bool:
    async with remote.lock_content(KEY) as copy:
        return await copy.held()


async def get(remote: P2PRemote) -> bool:
    return await read(remote, KEY, 3) == CONTENT[3:]


async def get_absent(remote: P2PRemote) -> bool:
    try:
        await read(remote, ABSENT)
    except KeyNotPresent:
        return True
    return False


async def put(remote: P2PRemote) -> bool:
    async with remote.put(NEW_KEY) as upload:
        if upload.already is None:
            await upload.start(len(NEW) - upload.offset)
            await upload.write(NEW[upload.offset :])
            return (await upload.finish()).ok
        return True


async def put_present(remote: P2PRemote) -> bool:
    async with remote.put(KEY) as upload:
        return upload.already == {A}


EXCHANGES: dict[str, Callable[[P2PRemote], Awaitable[object]]] = {
    "check": lambda remote: remote.check_present(KEY),
    "check many": lambda remote: remote.check_present_many([KEY, WORM]),
    "get": get,
    "get absent": get_absent,
    "put": put,
    "put present": put_present,
    "lock": lock,
    "remove": lambda remote: remote.remove_content(WORM),
    "remove before": lambda remote: remote.remove_content(WORM, deadline=Deadline(1100.0)),
    "remove many": lambda remote: remote.remove_content_many([WORM, ABSENT]),
}


def holder() -> MemoryRemote:
    return MemoryRemote(A, clock=HandClock(), objects={KEY: CONTENT, WORM: CONTENT})


async def total(what: str) -> tuple[int, int]:
    """Bytes that the exchange takes, greeting included: sent and received."""
    client, server = memory_pair()
    measured = Measured(client)

    async def dial() -> Transport:
        return measured  # type: ignore[return-value]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: serve(server, holder(), clock=HandClock()))
        remote = P2PRemote(dial, uuid=A, clock=HandClock())
        await EXCHANGES[what](remote)
        await remote.aclose()
        tasks.cancel_scope.cancel()
    return measured.sent, measured.received


async def cut_once(what: str, *, sent: int | None = None, received: int | None = None, reset: bool = False) -> None:
    shown, clock = holder(), HandClock()
    dials = 0
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            nonlocal dials
            dials += 1
            client, server = memory_pair()
            tasks.start_soon(lambda: serve(server, shown, clock=clock))
            return client if dials > 1 else Cut(client, sent=sent, received=received, reset=reset)

        remote = P2PRemote(dial, uuid=A, name="far", clock=clock)
        with anyio.fail_after(10):
            try:
                result = await EXCHANGES[what](remote)
            except (ConnectFailed, ConnectionLost, TimedOut):
                result = None
            believed(what, result, shown)
            assert await remote.check_present(KEY)
            assert await read(remote, KEY) == CONTENT
            assert not await remote.check_present(ABSENT)
            if what == "put":
                assert await put(remote)
                assert shown.objects[NEW_KEY] == NEW
        await remote.aclose()
        tasks.cancel_scope.cancel()
    assert shown.objects[KEY] == CONTENT


def believed(what: str, result: object, shown: MemoryRemote) -> None:
    """What the client was told is so. (More may have happened than it was told.)"""
    match what:
        case _ if result is None:
            return
        case "put" if result:
            assert shown.objects[NEW_KEY] == NEW
        case "remove" | "remove before" if result.ok:  # type: ignore[attr-defined]
            assert WORM not in shown.objects
        case "remove many":
            first, _ = result  # type: ignore[misc]
            assert not first.ok or WORM not in shown.objects
        case "check many":
            assert result == [True, True]
        case _:
            assert result or what.startswith("remove")


@pytest.mark.parametrize("what", EXCHANGES)
async def test_a_connection_lost_at_any_byte_that_we_send(what: str) -> None:
    sent, _ = await total(what)
    for at in range(sent + 1):
        await cut_once(what, sent=at)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("what", EXCHANGES)
async def test_a_connection_lost_at_any_byte_that_we_receive(what: str, reset: bool) -> None:
    _, received = await total(what)
    for at in range(received + 1):
        await cut_once(what, received=at, reset=reset)


async def removals(remote: P2PRemote) -> list[Removed]:
    try:
        return await remote.remove_content_many([WORM, ABSENT])
    except AnnexError:
        return []


async def test_no_descriptor_is_left_by_whatever_fails(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    answers = [b"", b"AUTH-SUCCESS x", b"AUTH-SUCCESS %b\nVERSION 4\n" % A.encode(), b"nonsense\n", b"ERROR no\n"]

    async def rude(transport: Transport) -> None:
        await transport.send(answers[count % len(answers)]) if answers[count % len(answers)] else None
        await transport.receive()

    count = 0
    async with await listen_unix(path) as listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, rude)
        before = 0
        for count in range(40):
            remote = P2PRemote(DialUnix(path), uuid=A)
            for what, work in EXCHANGES.items():
                if what == "remove many":
                    assert not any(result.ok for result in await removals(remote))
                    continue
                with pytest.raises(AnnexError):
                    await work(remote)
            await remote.aclose()
            if count == 4:
                before = len(os.listdir("/proc/self/fd"))
        with anyio.fail_after(5):
            while len(os.listdir("/proc/self/fd")) > before:
                await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()


FORK = """
import os, sys, threading
import anyio
from annexpy.keys.key import Key
from annexpy.remote.p2p import P2PRemote
from annexpy.transport.pipe import DialCommand

backend, *argv = sys.argv[1:]
remote = P2PRemote(DialCommand(tuple(argv)))
key = Key.parse("WORM-s1-m1--x")

async def main():
    await remote.connect()
    assert not await remote.check_present(key)
    pid = os.fork()
    if not pid:
        failed = []
        def child():
            async def ask():
                assert await remote.connect()
                assert not await remote.check_present(key)
                await remote.aclose()
            try:
                anyio.run(ask, backend=backend)
            except BaseException as error:
                failed.append(error)
                raise
        thread = threading.Thread(target=child)
        thread.start()
        thread.join()
        os._exit(3 if failed else 0)
    assert os.waitpid(pid, 0)[1] == 0
    assert not await remote.check_present(key)   # our own wire was left alone
    await remote.aclose()

anyio.run(main, backend=backend)

async def again():
    assert not await remote.check_present(key)   # another loop, another wire
    await remote.aclose()

anyio.run(again, backend=backend)
"""


@pytest.mark.interop
def test_a_remote_works_on_in_a_forked_child_and_in_another_loop(
    tmp_path: Path, git_annex: str, anyio_backend: str
) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path)], check=True)
    subprocess.run(["git", "annex", "init", "-q", "x"], cwd=tmp_path, check=True)
    argv = ["git-annex-shell", "p2pstdio", str(tmp_path), "cccccccc-0000-4000-8000-000000000003"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK, anyio_backend, *argv],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


async def test_transfers_and_questions_share_few_wires_and_questions_never_wait_for_transfers() -> None:
    shown, clock = holder(), HandClock()
    open_now = most = 0
    async with anyio.create_task_group() as tasks:

        async def serve_one(server: Transport) -> None:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await serve(server, shown, clock=clock)
            open_now -= 1

        async def dial() -> Transport:
            client, server = memory_pair()
            tasks.start_soon(serve_one, server)
            return client

        remote = P2PRemote(dial, uuid=A, clock=clock, connections=3)
        done = 0

        async def fetch() -> None:
            nonlocal done
            assert await read(remote, KEY) == CONTENT
            assert await remote.check_present(KEY)
            done += 1

        async with anyio.create_task_group() as fetching:
            for _ in range(50):
                fetching.start_soon(fetch)
        assert done == 50
        assert most <= 4

        async with remote.get(KEY) as one, remote.get(KEY) as two, remote.get(KEY) as three:
            with anyio.fail_after(5):
                assert await remote.check_present(KEY)
                assert await remote.check_present_many([KEY]) == [True]
            for download in (one, two, three):
                async for _ in download:
                    pass
        await remote.aclose()
        await remote.aclose()
        assert await remote.check_present(KEY)
        await remote.aclose()
        tasks.cancel_scope.cancel()


async def test_locks_do_not_use_up_the_wires_for_everything_else() -> None:
    shown, clock = holder(), HandClock()
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair()
            tasks.start_soon(lambda: serve(server, shown, clock=clock))
            return client

        remote = P2PRemote(dial, uuid=A, clock=clock, connections=1)
        async with remote.lock_content(KEY), remote.lock_content(KEY), remote.lock_content(WORM):
            with anyio.fail_after(5):
                assert await read(remote, KEY) == CONTENT
                assert (await store(remote, NEW_KEY, NEW)).ok
                assert not (await remote.remove_content(KEY)).ok
                assert (await remote.remove_content(NEW_KEY)).ok
        assert (await remote.remove_content(KEY)).ok
        await remote.aclose()
        tasks.cancel_scope.cancel()


async def test_whoever_waits_for_a_wire_longest_is_served_first_and_giving_up_holds_up_nobody() -> None:
    shown, clock = holder(), HandClock()
    order: list[int] = []
    async with anyio.create_task_group() as tasks:

        async def dial() -> Transport:
            client, server = memory_pair()
            tasks.start_soon(lambda: serve(server, shown, clock=clock))
            return client

        remote = P2PRemote(dial, uuid=A, clock=clock, connections=1)
        scopes = [anyio.CancelScope() for _ in range(9)]

        async def fetch(number: int) -> None:
            with scopes[number]:
                async with remote.get(KEY) as download:
                    order.append(number)
                    async for _ in download:
                        pass

        async with anyio.create_task_group() as fetching:
            async with remote.get(KEY) as download:
                for number in range(9):
                    fetching.start_soon(fetch, number)
                    await anyio.lowlevel.checkpoint()
                scopes[0].cancel()
                scopes[4].cancel()
                async for _ in download:
                    pass
        assert order == [1, 2, 3, 5, 6, 7, 8]
        assert await read(remote, KEY) == CONTENT
        await remote.aclose()
        tasks.cancel_scope.cancel()
