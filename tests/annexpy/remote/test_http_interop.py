"""Our client against the real ``git annex p2phttp``: the whole contract, and what git-annex says afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from remote_contract import CONTENT, KEY, HandClock, RemoteContract, content_of, key_of, read, store

from annexpy.clock import Clock, Deadline
from annexpy.errors import AccessDenied, AuthFailed, KeyNotPresent, NotLocked, UnknownUUID
from annexpy.remote.base import Remote
from annexpy.remote.http import HTTPRemote
from annexpy.system import CLOCK, new_uuid
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.interop]


def git(path: Path, *argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=path, check=True, capture_output=True, text=True).stdout


class Stock:
    """``git annex p2phttp`` for every repository below *folder*."""

    def __init__(self, git_annex: str, folder: Path, *options: str, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [git_annex, "p2phttp", "--directory", ".", "-J4", "--bind", "127.0.0.1", "--port", str(self.port), *options],
            cwd=folder,
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self.process.poll() is None
                time.sleep(0.01)
        raise AssertionError("git annex p2phttp does not listen")

    @property
    def url(self) -> str:
        return f"annex+http://127.0.0.1:{self.port}/git-annex/"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, git_annex: str) -> Path:
    path = tmp_path_factory.mktemp("made") / "repo.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    git(path, "annex", "init", "-q", "stock")
    return path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, git_annex: str, made_once: Path) -> Iterator[tuple[Path, Stock]]:
    folder = tmp_path_factory.mktemp("served")
    server = Stock(git_annex, folder, "--wideopen")
    yield folder, server
    server.stop()


def another(folder: Path, made_once: Path) -> tuple[Path, UUID]:
    """One more repository to be served."""
    uuid = new_uuid()
    path = shutil.copytree(made_once, folder / f"{uuid}.git", symlinks=True)
    config = path / "config"
    old = git(path, "config", "annex.uuid").strip()
    config.write_text(config.read_text().replace(old, uuid))
    return path, uuid


@asynccontextmanager
async def stock(url: str, uuid: UUID, *, version: int = 4, clock: Clock = CLOCK) -> AsyncIterator[HTTPRemote]:
    remote = HTTPRemote(url, uuid=uuid, name="stock", max_version=version, clock=clock)
    try:
        yield remote
    finally:
        await remote.aclose()


class TestStock(RemoteContract):
    """git-annex reads its own clock, so ours is the system's."""

    patient_cancel = 6
    locks_overlap = False

    @pytest.fixture(autouse=True)
    def made(self, served: tuple[Path, Stock], made_once: Path) -> None:
        folder, server = served
        self.url = server.url
        self.uuid = another(folder, made_once)[1]

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        clock.time = CLOCK.now()
        async with stock(self.url, self.uuid, clock=clock) as remote:
            yield remote
