"""Random parts of a large content: what leaves the server is what was asked for, also when a node is killed."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from places import Place
from served import Served, curl, serve

from annexpy import sync as annex
from benchmarks.ranges import WINDOW, Counted, Parts, counting, read_parts

pytest.importorskip("fsspec")

SIZE = 32 << 20
HEADS = 512
"""Bytes of HTTP around a part, at most."""
LINES = 64
"""Bytes of P2P around a part, at most: DATA, VALID."""
GREETINGS = 8 * 1024
"""Of all connections together, and the question for the size."""


@pytest.fixture(scope="module", params=[SIZE, pytest.param(1 << 30, marks=pytest.mark.campaign)], ids=["32M", "1G"])
def large(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, annex.Key]:
    """A file and its key."""
    path, dice = tmp_path_factory.mktemp("large") / "file", random.Random(1)
    with path.open("wb") as file:
        for _ in range(request.param >> 20):
            file.write(dice.randbytes(1 << 20))
    return path, annex.key_of(path)


@pytest.fixture
def lab(large: tuple[Path, annex.Key], tmp_path: Path) -> Place:
    return holding(tmp_path / "lab", large)


def holding(path: Path, large: tuple[Path, annex.Key]) -> Place:
    place = Place.make(path, [])
    with annex.connect(place.path) as remote:
        annex.put(remote, large[1], large[0])
    return place


@contextmanager
def served(lab: Place, folder: Path) -> Iterator[tuple[Served, dict[str, Counted]]]:
    """A server over HTTP and a unix socket, and a relay that counts in front of each."""
    arguments = ("--http", "127.0.0.1:0", "--wideopen", "--unix", f"{lab.path.name}={lab.path}.socket", str(lab.path))
    with ExitStack() as stack:
        server = stack.enter_context(serve(*arguments))
        server.until("unix:")
        port = int(re.search(r":(\d+)", server.until("http://").partition("http://")[2])[1])  # type: ignore[index]
        places: dict[str, str | tuple[str, int]] = {"http": ("127.0.0.1", port), "unix": f"{lab.path}.socket"}
        yield server, {name: stack.enter_context(counting(place, folder)) for name, place in places.items()}


def address(name: str, counted: Counted, lab: Place) -> str:
    if name == "http":
        return f"annex+http://127.0.0.1:{counted.address[1]}/git-annex/{lab.uuid}"
    return f"unix:{counted.address}"


def bodies(counted: Counted) -> int:
    """Bytes of bodies that the server says it has sent."""
    found = re.search(r"annexpy_sent_bytes_total (\d+)", curl(f"http://127.0.0.1:{counted.address[1]}/metrics"))
    assert found
    return int(found[1])


def test_what_is_asked_for_leaves_the_server_and_nothing_else(
    large: tuple[Path, annex.Key], lab: Place, tmp_path: Path
) -> None:
    file, key = large
    parts = Parts.of(file.stat().st_size)
    with served(lab, tmp_path) as (_, relays):
        for name, around in (("http", HEADS), ("unix", LINES)):
            for together in (True, False):
                counted = relays[name]
                before, sent = bodies(relays["http"]), counted.sent
                read_parts(address(name, counted, lab), str(key), parts, file, together=together)
                sent = counted.sent - sent
                if name == "http":
                    answers = bodies(relays["http"]) - before - parts.bytes  # of metrics, and of "is it there?"
                    assert 0 <= answers < GREETINGS
                print(
                    f"{name}, together {together}: {sent - parts.bytes} more in {len(parts)} parts, {parts.bytes} bytes"
                )
                assert parts.bytes < sent <= parts.bytes + around * len(parts) + GREETINGS


@pytest.mark.interop
def test_git_annex_over_ssh_sends_a_window_more_at_most(
    large: tuple[Path, annex.Key], lab: Place, tmp_path: Path, sshd: object, request: pytest.FixtureRequest
) -> None:
    file, key = large
    parts = Parts.of(file.stat().st_size, count=4 if file.stat().st_size == SIZE else 100)
    with counting(("127.0.0.1", sshd.port), tmp_path) as counted:  # type: ignore[attr-defined]
        config = Path(os.environ["HOME"], ".ssh/config")
        known = Path(os.environ["HOME"], ".ssh/known_hosts")
        public = (sshd.folder / "host.pub").read_text()  # type: ignore[attr-defined]
        port = counted.address[1]
        before = config.read_text(), known.read_text()
        try:
            host = before[0].replace("Host annex-test", "Host annex-relay").replace(f"Port {sshd.port}", f"Port {port}")  # type: ignore[attr-defined]
            config.write_text(before[0] + host)
            known.write_text(before[1] + f"[127.0.0.1]:{port} {public}")
            read_parts(f"ssh://annex-relay{lab.path}", str(key), parts, file, together=False)
        finally:
            config.write_text(before[0])
            known.write_text(before[1])
    more = (counted.sent - parts.bytes) / len(parts)
    print(f"ssh, git-annex-shell: {more:.0f} bytes more in each of {len(parts)} parts")
    assert 0 < more <= WINDOW


@pytest.mark.parametrize(("name", "together"), [("http", True), ("unix", False)])
def test_a_node_that_is_killed_in_the_middle_changes_nothing(
    large: tuple[Path, annex.Key], lab: Place, tmp_path: Path, name: str, together: bool
) -> None:
    file, key = large
    parts = Parts.of(file.stat().st_size)
    second = holding(tmp_path / "second", large)
    with served(lab, tmp_path) as (first, one), served(second, tmp_path) as (_, two):
        killed: list[int] = []

        def kill() -> None:
            os.kill(first.process.pid, signal.SIGKILL)
            killed.append(one[name].sent)

        # In the first part that it sends: it may be given no second one, where it is slower than the other.
        one[name].after = parts.bytes // 150, kill
        nodes = [address(name, one[name], lab), address(name, two[name], second)]
        read_parts(nodes, str(key), parts, file, together=together)
        sent = one[name].sent + two[name].sent
        assert killed
        assert first.process.wait(10) == -signal.SIGKILL
    print(
        f"cluster over {name}, a node killed after {killed[0]} bytes: {sent - parts.bytes} more in {len(parts)} parts"
    )
    # What was on its way when it died came again.
    assert sent <= parts.bytes + (HEADS + LINES) * len(parts) + 2 * GREETINGS + 16 * 64 * 1024
