"""Stock clients that get and drop all the time, some interrupted: nothing stalls, and nothing is left behind."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from gateways import Gateways, content_of, git
from server_under_load import Served, eventually, locks_below, serve_http

from annexpy.clock import LOCK_RETENTION
from annexpy.keys.key import Key

pytestmark = [pytest.mark.interop, pytest.mark.slow]

CONTENTS = {f"f{number}": content_of(number, size) for number, size in enumerate((10, 3_000, 50_000, 700_000, 3 << 20))}
LOOK = 30.0
"""Seconds between two looks at a command that goes on; it has stalled when it has not worked at all in them."""
STALLED = 360.0
"""Seconds for one command on five keys, however much it works, on a machine that has far more to do than it can."""
EVERY = 0.7
"""Seconds between two interruptions."""


GIVEN_UP = LOCK_RETENTION + 60
"""Seconds after which a lock is given up whose client was interrupted before it came back to keep it."""


def key_of_file(content: bytes) -> Key:
    """As git-annex names it."""
    return Key(b"SHA256E", hashlib.sha256(content).hexdigest().encode(), len(content))


class Client(threading.Thread):
    """One stock client. It gets and drops until told to stop."""

    def __init__(self, path: Path, seed: int) -> None:
        super().__init__()
        self.path, self.random = path, random.Random(seed)
        self.stop = threading.Event()
        self.process: subprocess.Popen[bytes] | None = None
        self.interrupted = False
        self.rounds = 0
        self.trouble: list[str] = []

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                files = self.random.sample(sorted(CONTENTS), self.random.randint(1, len(CONTENTS)))
                done = self.annex("get", "-q", "--from", "srv", *files)
                if self.annex("drop", "-q", *files) and done:
                    self.rounds += 1
        except Exception as error:
            self.trouble.append(repr(error))

    def annex(self, *words: str) -> bool:
        """Run it. Errors count in clients that were never interrupted: that leaves things behind in a client."""
        process = subprocess.Popen(
            ["git", "annex", *words],
            cwd=self.path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.process = process
        until, before = time.monotonic() + STALLED, -1
        while True:
            try:
                _, said = process.communicate(timeout=LOOK)
                break
            except subprocess.TimeoutExpired:
                worked, doing = ticks_of(process.pid)
                if worked > before and time.monotonic() < until:
                    before = worked
                    continue
                self.trouble.append(f"stalled: {words}, {doing}")
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                return False
        if process.returncode and not self.interrupted:
            self.trouble.append(f"{words}: {said.decode(errors='replace')[-500:]}")
        return process.returncode == 0

    def interrupt(self) -> bool:
        process = self.process
        if process is None or process.poll() is not None:
            return False
        self.interrupted = True
        process.send_signal(self.random.choice((signal.SIGINT, signal.SIGKILL)))
        return True


def ticks_of(pid: int) -> tuple[int, str]:
    """How long a session has worked, in ticks of the system; and what is in it, for who wonders.

    It outlives who began it: a ``git`` that was killed leaves a git-annex that goes on.
    """
    ticks, doing = 0, []
    for entry in sorted(int(name) for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError):
            stat = Path(f"/proc/{entry}/stat").read_text()
            fields = stat.rpartition(")")[2].split()
            if int(fields[3]) == pid:
                ticks += sum(map(int, fields[11:15]))
                words = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
                doing.append(f"{fields[0]} {Path(f'/proc/{entry}/wchan').read_text()} {words}")
    return ticks, "; ".join(doing)


def clients_of(world: Gateways, count: int, remote: str, more: Sequence[tuple[str, str]]) -> list[Client]:
    made = []
    for number in range(count):
        path = world.path(f"w{number}")
        git(world.folder, "clone", "-q", str(world.path("w")), str(path))
        git(path, "annex", "init", "-q", f"w{number}")
        git(path, "remote", "remove", "origin")
        git(path, "remote", "add", "srv", remote)
        git(path, "config", "remote.srv.annex-uuid", world.uuid("g"))
        for name, value in more:
            git(path, "config", name, value)
        made.append(Client(path, number))
    return made


def processes_of(path: Path) -> list[int]:
    """Processes that serve the repository at *path*, by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"p2pstdio" in words and os.fsencode(path) in words:
                found.append(int(entry.name))
    return found


def looping(clients: Sequence[Client], seconds: float) -> None:
    """Let them work; every other one is interrupted again and again."""
    for client in clients:
        client.start()
    chosen, interruptions = random.Random(len(clients)), 0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(EVERY)
        interruptions += chosen.choice(clients[::2]).interrupt()
    for client in clients:
        client.stop.set()
    for client in clients:
        client.join(STALLED + LOOK)
        assert not client.is_alive()
    assert [client.trouble for client in clients] == [[]] * len(clients)
    assert interruptions > seconds / 4
    assert all(client.rounds for client in clients[1::2])
    print(f"{sum(client.rounds for client in clients)} rounds, {interruptions} interruptions")


def gauges(served: Served) -> dict[str, int]:
    with urllib.request.urlopen(f"http://127.0.0.1:{served.port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    shown = dict(line.removeprefix("annexpy_").split() for line in lines if not line.startswith("#"))
    return {name: int(shown[name]) for name in ("connections", "busy", "locks", "tasks")}


def locks_of_the_vanished(served: Served, begun: dict[str, int], patience: float) -> int:
    """Wait until all is as it was, but for locks whose clients vanished before they came back to keep them; how many.

    They stand until ``GIVEN_UP``; then they are gone as well, for who has the patience.
    """

    def at_rest() -> bool:
        now = gauges(served)
        return now | {"locks": 0, "tasks": now["tasks"] - now["locks"]} == begun

    eventually(at_rest)
    if patience:
        eventually(lambda: gauges(served) == begun, patience)
    return gauges(served)["locks"]


LONG = pytest.param(50, 600, marks=pytest.mark.campaign)


@pytest.fixture
def world(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Gateways:
    """The place ``g`` has everything, and ``w`` knows that."""
    made = Gateways(tmp_path, monkeypatch)
    made.gateway("g")
    made.client("w", CONTENTS, remotes="g")
    git(made.path("w"), "annex", "move", "-q", "--to", "g", ".")
    return made


def nothing_was_lost(world: Gateways) -> None:
    place = world.places["g"]
    for content in CONTENTS.values():
        key = key_of_file(content)
        assert place.holds(key, content)
        assert place.uuid in place.whereis([key])[key]
    assert "failed" not in place.git("annex", "fsck", "--all")


@pytest.mark.parametrize(("count", "seconds"), [(8, 6), LONG])
def test_nothing_stalls_and_nothing_is_left_behind_over_ssh(world: Gateways, count: int, seconds: float) -> None:
    place = world.places["g"]
    url = f"ssh://host-g{place.path}"
    looping(clients_of(world, count, url, [("remote.srv.annex-shell", world.shell)]), seconds)

    eventually(lambda: not processes_of(place.path))
    assert not locks_below(place.git_dir)
    nothing_was_lost(world)


@pytest.mark.parametrize(("count", "seconds"), [(8, 6), LONG])
def test_nothing_stalls_and_nothing_is_left_behind_over_http(world: Gateways, count: int, seconds: float) -> None:
    place = world.places["g"]
    with serve_http(place) as served:
        served.warm_up()
        descriptors, threads, begun = served.descriptors(), served.threads(), gauges(served)
        assert begun["locks"] == 0
        assert begun["connections"] == begun["busy"] == 1  # the one who asks
        base = f"http://127.0.0.1:{served.port}"
        settings = [("remote.srv.annexUrl", f"annex+{base}/git-annex/")]
        settings.append(("annex.security.allowed-ip-addresses", "all"))
        looping(clients_of(world, count, f"{base}/nothing-here", settings), seconds)

        kept = locks_of_the_vanished(served, begun, GIVEN_UP if seconds > LOOK else 0.0)
        served.back_to(descriptors + 2 * kept)
        assert served.threads() <= threads + 40  # a pool of them may stay
        assert not served.children()
        assert len(locks_below(place.git_dir)) <= kept
    nothing_was_lost(world)
