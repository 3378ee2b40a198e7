"""Writers for the tests of emit: processes that are warm, begin together, die where they are told to, and see badly.

Run as a program: reads commands as JSON lines from stdin, forks a process for each writer, and answers with a
JSON line when all of them are gone: ``{"ended": {writer: status}, "times": [[end, seconds], …]}``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import random
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio

import annexpy
from annexpy.repo.files import DiskFiles
from annexpy.repo.head import Head
from glimmer_store import GlimmerGraph, Shortfall, enter, entry
from glimmer_store.provision import provision

KILLS = {
    "spooled": (entry.Spool, "add"),
    "committed, the index not written": (Head, "_commit"),
    "checked out": (Head, "_check_out"),
    "committed": (Head, "commit"),
    "pushed": (annexpy, "push"),
    "told": (enter.Entering, "_tell"),
}
"""Where to die: after this was called."""


def name_of(writer: int, number: int) -> str:
    return f"derivative-w{writer}-{number}"


def die_after(point: str) -> None:
    owner, name = KILLS[point]
    original = getattr(owner, name)

    def sync(*args: Any, **named: Any) -> Any:
        original(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    async def later(*args: Any, **named: Any) -> Any:
        await original(*args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, later if point == "pushed" else sync)


def without_locks() -> None:
    """File locks fail, as on NFS without its lock service; memory is always local."""
    original = fcntl.fcntl
    commands = {getattr(fcntl, "F_OFD_SETLK", 37), getattr(fcntl, "F_OFD_GETLK", 36), fcntl.F_SETLK, fcntl.F_SETLKW}

    def patched(fd: int, command: int, argument: Any = 0) -> Any:
        if command in commands and os.path.dirname(os.readlink(f"/proc/self/fd/{fd}")) != "/dev/shm":
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        return original(fd, command, argument)

    fcntl.fcntl = patched


def with_stale_attributes(seed: int) -> None:
    """What is new is not seen, or only in part: entries of folders, sizes of files."""
    dice = random.Random(seed)
    listdir, read_bytes, unlink, names = os.listdir, Path.read_bytes, Path.unlink, DiskFiles.names

    def some(found: list[Any]) -> list[Any]:
        return [name for name in found if dice.random() > 0.3]

    def stale_read(path: Path) -> bytes:
        data = read_bytes(path)
        return data[: len(data) // 2] if path.suffix == ".ready" and dice.random() < 0.3 else data

    def stale_unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".done" and dice.random() < 0.3:
            raise FileNotFoundError(path)
        unlink(path, missing_ok)

    def stale_names(files: DiskFiles, path: bytes = b"") -> list[bytes]:
        found = names(files, path)
        return some(found) if path.endswith(b"/spool") else found

    entry.os.listdir = lambda path: some(listdir(path)) if str(path).endswith("glimmer-store") else listdir(path)  # type: ignore[attr-defined]
    Path.read_bytes, Path.unlink = stale_read, stale_unlink  # type: ignore[method-assign]
    DiskFiles.names = stale_names  # type: ignore[method-assign]


async def write(root: Path, writer: int, each: int, ready: int, go: int) -> list[tuple[float, float]]:
    times = []
    async with GlimmerGraph.open(root) as graph:
        assert graph.archive.signer.name
        os.write(ready, b".")
        os.read(go, 1)  # ends when the other end is closed
        for number in range(each):
            output = root / "out" / f"{writer}" / f"{number}.txt"
            output.parent.mkdir(parents=True, exist_ok=True)
            output.write_text(f"{writer} {number}\n")
            began = time.monotonic()
            await graph.derivative(output, id=name_of(writer, number))
            times.append((time.time(), time.monotonic() - began))
    return times


def child(root: Path, writer: dict[str, Any], ready: int, go: int) -> None:
    status = 1
    try:
        if writer.get("die"):
            die_after(writer["die"])
        if writer.get("nolocks"):
            without_locks()
        if writer.get("stale"):
            with_stale_attributes(writer["id"])
        times = anyio.run(write, root, writer["id"], writer["each"], ready, go)
        (root.parent / f"times-{writer['id']}").write_text(json.dumps(times))
        status = 0
    except BaseException as error:
        print(f"writer {writer['id']}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def run(command: dict[str, Any]) -> dict[str, Any]:
    root = Path(command["root"])
    ready, go = os.pipe(), os.pipe()
    pids = {}
    for writer in command["writers"]:
        pid = os.fork()
        if not pid:
            os.close(go[1])
            os.close(ready[0])
            child(root, writer, ready[1], go[0])
        pids[pid] = writer["id"]
    os.close(ready[1])
    os.close(go[0])
    seen = b""
    while len(seen) < len(pids) and (more := os.read(ready[0], 512)):
        seen += more
    began = time.time()
    os.close(go[1])
    for pid in list(pids)[: len(command.get("kill", []))]:
        time.sleep(command["kill"][0])
        os.kill(pid, signal.SIGKILL)
    ended = {}
    while len(ended) < len(pids):
        pid, status = os.wait()
        ended[pids[pid]] = status
    os.close(ready[0])
    times = []
    for writer in command["writers"]:
        path = root.parent / f"times-{writer['id']}"
        if path.exists():
            times += json.loads(path.read_text())
            path.unlink()
    return {"ended": ended, "times": sorted(times), "began": began}


async def warm_up(root: Path) -> None:
    """Import and compile all that an emit needs, before anything is forked."""
    provision(root, [str(root.parent / "vault.git")])
    (root / "output").write_text("output")
    async with GlimmerGraph.open(root) as graph:
        with suppress(Shortfall):
            await graph.derivative(root / "output")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(warm_up, Path(folder) / "study")
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)
