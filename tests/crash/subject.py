"""What the kill sweep kills: forks a child per line of stdin, which does one scenario in one repository.

Line: ``scenario repository``, or ``mark``, which is repeated. The child says its pid, waits for SIGUSR1 (so
that strace can attach), and prints what it acknowledged. Everything is imported and has run once before the first
fork, so that all the child does is the scenario.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable

import anyio
from anyio import to_thread

from annexpy.actions.copy import copy
from annexpy.actions.drop import drop_many
from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository

CONTENTS = [bytes([65 + number]) * (4096 + number) for number in range(4)]
LARGE = bytes(range(256)) * 4000
KEYS = [Key.parse(f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}") for data in (*CONTENTS, LARGE)]


BESIDE: list[Local] = []
"""A repository that has everything."""


def say(line: str) -> None:
    os.writev(1, [line.encode() + b"\n"])  # not write: that is what the sweep counts


def acknowledge(what: str, key: Key) -> None:
    say(f"{what} {key}")


async def put(local: Local, number: int, *, upto: int | None = None) -> None:
    key, data = KEYS[number], (*CONTENTS, LARGE)[number]
    async with local.put(key) as upload:
        if upload.already is None:
            await upload.start(len(data) - upload.offset)
            for start in range(upload.offset, len(data) if upto is None else upto, 300_000):
                await upload.write(data[start : min(start + 300_000, len(data) if upto is None else upto)])
            if upto is not None:
                return
            await upload.finish()
    acknowledge("stored", key)


async def small(local: Local) -> None:
    await put(local, 0)


async def resumed(local: Local) -> None:
    await put(local, 1, upto=1000)
    await put(local, 1)


async def large(local: Local) -> None:
    await put(local, 4)


async def together(local: Local) -> None:
    async with anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(put, local, number)


async def locked(local: Local) -> None:
    await put(local, 0)
    async with local.lock_content(KEYS[0]):
        acknowledge("locked", KEYS[0])
        await anyio.lowlevel.checkpoint()
        acknowledge("unlocking", KEYS[0])


async def removed(local: Local) -> None:
    await put(local, 0)
    acknowledge("removing", KEYS[0])
    removed = await local.remove_content(KEYS[0])
    if removed.ok:
        acknowledge("removed", KEYS[0])
    for error in removed.failed.values():
        raise error


async def removed_together(local: Local) -> None:
    for number in range(4):
        await put(local, number)
    for key in KEYS[:4]:
        acknowledge("removing", key)
    errors: list[AnnexError] = []
    for key, removed in zip(KEYS, await local.remove_content_many(KEYS[:4]), strict=False):
        if removed.ok:
            acknowledge("removed", key)
        errors += removed.failed.values()
    for error in errors:
        raise error


async def copied_durably(local: Local) -> None:
    """Some at once, from the repository beside this one, which has everything."""
    errors: list[AnnexError] = []
    async for transfer in copy(BESIDE[0], local, KEYS[:4]):
        if transfer.ok:
            acknowledge("stored", transfer.key)
        elif transfer.error is not None:
            errors.append(transfer.error)
    for error in errors:
        raise error


async def copied(local: Local) -> None:
    fast = Local(local.repository, durability="fast")
    try:
        await copied_durably(fast)
    finally:
        await fast.aclose()


async def dropped(local: Local) -> None:
    """Some at once, with locks on those of the repository beside this one."""
    await copied(local)
    errors: list[AnnexError] = []
    for key in KEYS[:4]:
        acknowledge("removing", key)
    async for result in drop_many(KEYS[:4], from_=local, others=BESIDE, copies=Copies()):
        if result.ok:
            acknowledge("removed", result.key)
        elif result.error is not None:
            errors.append(result.error)
    for error in errors:
        raise error


SCENARIOS: dict[str, Callable[[Local], Awaitable[None]]] = {
    scenario.__name__: scenario
    for scenario in (
        small,
        resumed,
        large,
        together,
        locked,
        removed,
        removed_together,
        copied,
        copied_durably,
        dropped,
    )
}


def perform(scenario: str, path: str, begin: Callable[[], object] = bool) -> None:
    beside = os.path.dirname(path) + "/beside.git"
    with Repository.open(path) as repository, Repository.open(beside) as other:
        local = Local(repository)
        BESIDE[:] = [Local(other)]

        async def main() -> None:
            begin()
            try:
                await SCENARIOS[scenario](local)
            finally:
                await local.aclose()

        anyio.run(main)


def begin() -> None:
    """Everything is open; what follows is what gets killed."""
    say(f"pid {os.getpid()}")
    signal.sigwait({signal.SIGUSR1})


def child(scenario: str, path: str) -> None:
    try:
        ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # anybody may trace us
        perform(scenario, path, begin)
        say("done")
    except AnnexError as error:
        say(f"refused {type(error).__name__}")
    except BaseExceptionGroup as group:
        only_ours = group.split(AnnexError)[1] is None
        say("refused group" if only_ours else f"broke {group.exceptions!r}")
    except BaseException as error:
        say(f"broke {error!r}")
    finally:
        os._exit(0)


async def on_this_thread(function: Callable[..., object], *args: object, **options: object) -> object:
    await anyio.lowlevel.checkpoint()
    return function(*args)


def main() -> None:
    # strace counts calls thread by thread: on one thread, the N-th is the N-th of all.
    to_thread.run_sync = on_this_thread  # type: ignore[assignment]
    warm = tempfile.mkdtemp()
    before = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    Repository.init(warm + "/r.git", bare=True).close()
    Repository.init(warm + "/beside.git", bare=True).close()
    perform("together", warm + "/beside.git")
    for scenario in SCENARIOS:
        perform(scenario, warm + "/r.git")
    os.dup2(before, 1)
    shutil.rmtree(warm)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    print("ready", flush=True)
    for line in iter(sys.stdin.readline, ""):
        if line == "mark\n":
            print("mark", flush=True)
        elif os.fork() == 0:
            child(*line.rstrip("\n").split(" "))


if __name__ == "__main__":
    main()
