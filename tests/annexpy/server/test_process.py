"""A server that is told to end, whenever that is, ends: without a traceback, and with 0."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from annexpy.repo.repository import Repository
from annexpy.server.process import ORDERS, run_server
from glimmer_store.cli.app import main as glimmer_store

WITH_A_SIGNAL = """
import importlib, os, signal, sys
module, at, *words = sys.argv[1:]
sys.argv = [module, *words]
calls = 0
def watch(frame, event, argument):
    global calls
    calls += event == "call"
    if calls == int(at):
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)
main = importlib.import_module(module).main
sys.setprofile(watch)
sys.exit(main())
"""


@pytest.mark.parametrize("at", [3_000, 30_000])  # calls: while it is imported, while it starts
@pytest.mark.parametrize(
    ("module", "words"), [("annexpy.cli.app", "--wideopen"), ("glimmer_store.cli.app", "--plain-http")]
)
def test_sigterm_at_any_moment_of_the_start_is_heard(tmp_path: Path, module: str, words: str, at: int) -> None:
    place = tmp_path / "lab.git"
    Repository.init(place, bare=True).close()
    command = [sys.executable, "-c", WITH_A_SIGNAL, module, str(at), "serve", str(place), "--http", "127.0.0.1:0"]
    done = subprocess.run([*command, words], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, "Traceback" in done.stderr, "interrupted" in done.stderr) == (0, False, False), done.stderr


def test_orders_that_nobody_hears_are_kept_and_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGTERM)
    heard = []

    async def work(stop: anyio.Event) -> str:
        with anyio.fail_after(20):
            await stop.wait()
        signal.raise_signal(signal.SIGTERM)  # impatient: it is not waited for what is left
        await anyio.sleep(20)
        heard.append("not cancelled")
        return "done"

    with ORDERS.expected():
        signal.raise_signal(signal.SIGTERM)
        assert run_server(work) is None
        signal.raise_signal(signal.SIGTERM)  # while what is left is closed
    assert heard == []
    with ORDERS.expected():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_server_that_cannot_start_says_why_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert glimmer_store(["serve", str(tmp_path / "server"), "--http", place, "--plain-http"]) == 1
    said = capsys.readouterr().err
    assert place.rpartition(":")[2] in said
    assert "remedy:" in said
