"""Many clients at once: silent ones, slow ones, interrupted ones; and what a server has left when they are gone.

The long form of each is a campaign.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from places import content_of, key_of
from served import Served, Work, curl, serve

from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop


def resident(pid: int) -> int:
    """KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError


def figures(server: Served) -> dict[str, float]:
    lines = [line.split() for line in curl(f"{server.url}/metrics").splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def settled(look: Callable[[], object], wanted: object, seconds: float = 20) -> None:
    """Look until it is as wanted: what a vanished client leaves is noticed within moments."""
    until = time.monotonic() + seconds
    while (found := look()) != wanted:
        assert time.monotonic() < until, f"{found}, not {wanted}"
        time.sleep(0.05)


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    path = tmp_path / "bare"
    Repository.init(path, bare=True).close()
    return path


@pytest.mark.alone
@pytest.mark.parametrize(
    ("idle", "slow", "asked"), [(150, 30, 300), pytest.param(1000, 200, 2000, marks=pytest.mark.campaign)]
)
def test_silent_and_slow_clients_cost_the_others_nothing(bare: Path, idle: int, slow: int, asked: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, limit[1]), limit[1]))
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        with Repository.open(bare) as repository:
            target = f"/git-annex/{repository.uuid}/v4/checkpresent?key=WORM-s1-m1--x&clientuuid=x"
        request = f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
        host, port = server.url.removeprefix("http://").split(":")
        pid = server.process.pid

        def connect() -> socket.socket:
            return socket.create_connection((host, int(port)), 10)

        def ask(connection: socket.socket) -> None:
            connection.sendall(request)
            said = b""
            while not said.endswith(b'{"present":false}'):
                said += connection.recv(4096)

        begun = resident(pid)
        silent = [connect() for _ in range(idle)]
        for connection in silent:
            ask(connection)
        a_connection = (resident(pid) - begun) / idle
        dripping = [connect() for _ in range(slow)]
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.2):
                for connection in dripping:
                    try:
                        connection.send(b"a")
                    except OSError:
                        pass

        thread = threading.Thread(target=drip)
        thread.start()
        seconds = []
        try:
            with connect() as good:
                ask(good)
                for _ in range(asked):
                    before = time.perf_counter()
                    ask(good)
                    seconds.append(time.perf_counter() - before)
        finally:
            over.set()
            thread.join()
        memory = resident(pid)
        for connection in (*silent, *dripping):
            connection.close()
        settled(lambda: figures(server)["annexpy_connections"], 1.0)
        assert statistics.quantiles(seconds, n=100)[98] < 0.1
        assert memory < 256 * 1024
        assert a_connection < 40


@pytest.mark.parametrize(
    ("clients", "minutes", "patience"), [(4, 0.1, 2.0), pytest.param(50, 10.0, 4.0, marks=pytest.mark.campaign)]
)
def test_clients_that_come_go_and_are_interrupted_leave_nothing_behind(
    bare: Path, tmp_path: Path, git_annex: str, clients: int, minutes: float, patience: float
) -> None:
    contents = [content_of(number, 50_000) for number in range(5)]
    keys = [key_of(content) for content in contents]
    works = []
    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        with Repository.open(bare) as repository:
            uuid = repository.uuid
        top = f"{server.url}/git-annex/{uuid}/v4"
        for key, content in zip(keys, contents, strict=True):
            (tmp_path / "content").write_bytes(content)
            said = curl(
                "-H", f"X-git-annex-data-length: {len(content)}", "--data-binary", f"@{tmp_path}/content",
                f"{top}/put?key={key}&clientuuid=x",
            )  # fmt: skip
            assert '"stored":true' in said
        for number in range(clients):
            path = tmp_path / f"w{number}"
            path.mkdir()
            work = Work(path, git_annex)
            work.git("init", "-q")
            work.begin(f"w{number}")
            work.git("remote", "add", "srv", f"{server.url}/bare")
            work.git("fetch", "-q", "srv")
            work.git("annex", "merge", "-q")
            works.append(work)
        pid = server.process.pid
        settled(lambda: figures(server)["annexpy_busy"], 1.0)
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
        until = time.monotonic() + minutes * 60
        dice = random.Random(7)
        running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
        done = interrupted = 0
        while time.monotonic() < until or running:
            for number, work in enumerate(works):
                if number in running:
                    process, doomed = running[number]
                    if process.poll() is None:
                        if time.monotonic() > doomed:
                            process.send_signal(dice.choice((signal.SIGINT, signal.SIGKILL)))
                            interrupted += 1
                        continue
                    del running[number]
                    done += process.returncode == 0
                if time.monotonic() < until:
                    verb = dice.choice((["get", "--from", "srv"], ["drop"]))
                    words = ["git", "annex", *verb, "--key", str(dice.choice(keys))]
                    process = subprocess.Popen(
                        words, cwd=work.path, env=work.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                    )
                    running[number] = process, time.monotonic() + dice.uniform(0.1, patience * 4)
            time.sleep(0.02)
        assert done > clients
        settled(lambda: figures(server)["annexpy_connections"], 1.0)
        # Who is interrupted between asking for a lock and keeping it has it for ten minutes.
        locks = int(figures(server)["annexpy_locks"])
        assert locks <= interrupted
        held = 2 * locks  # descriptors: the file of the lock, and the content
        settled(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + held + 2, True)
        if minutes > 1:
            settled(lambda: figures(server)["annexpy_locks"], 0.0, 620)
            settled(lambda: len(os.listdir(f"/proc/{pid}/fd")) <= descriptors + 2, True)
        assert len(os.listdir(f"/proc/{pid}/task")) <= threads + 40  # the pool for files
        assert resident(pid) < 128 * 1024
        for key in keys:
            assert curl("-X", "POST", f"{top}/checkpresent?key={key}&clientuuid=x") == '{"present":true}'
        assert server.stop() == 0
    assert not [line for line in server.lines if "Traceback" in line]
