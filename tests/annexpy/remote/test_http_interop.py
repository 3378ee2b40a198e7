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

import anyio
import pytest
from remote_contract import CONTENT, KEY, HandClock, RemoteContract, content_of, key_of, read, store

from annexpy.clock import Clock, Deadline
from annexpy.errors import AccessDenied, AuthFailed, KeyNotPresent, NotLocked, UnknownUUID
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.http import HTTPRemote
from annexpy.remote.http_line import ServerFailed
from annexpy.system import CLOCK, new_uuid
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.interop]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # once: what differs between loops is not what this is about


def git(path: Path, *argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=path, check=True, capture_output=True, text=True).stdout


class Stock:
    """``git annex p2phttp`` for every repository below *folder*."""

    def __init__(self, git_annex: str, folder: Path, *options: str, **environment: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process = subprocess.Popen(
            [
                git_annex,
                "p2phttp",
                "--directory",
                ".",
                "-J4",
                "--bind",
                "127.0.0.1",
                "--port",
                str(self.port),
                *options,
            ],
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

    patient_cancel = 4
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


@pytest.mark.parametrize("version", range(5))
async def test_every_version_of_the_protocol_stores_gives_and_removes(
    served: tuple[Path, Stock], made_once: Path, version: int
) -> None:
    content = content_of(1, 300_000)
    key = key_of(content)
    _, uuid = another(served[0], made_once)
    async with stock(served[1].url, uuid, version=version) as remote:
        assert (await store(remote, key, content, piece=70_000)).uuids == {remote.uuid}
        async with remote.put(key) as upload:
            assert upload.already == {uuid}
        assert await read(remote, key, 17) == content[17:]
        with pytest.raises(KeyNotPresent):
            await read(remote, KEY)
        async with remote.lock_content(key) as lock:
            assert await lock.held()
        result = await remote.remove_content(key, deadline=Deadline(CLOCK.now() + 300))
        if version < 3:
            assert not result.ok
            assert "no-deadline" in str(result.failed[remote.uuid])
            assert await remote.check_present(key)
            result = await remote.remove_content(key)
        assert result.ok
        assert not await remote.check_present(key)


async def test_git_annex_finds_what_we_stored_intact(served: tuple[Path, Stock], made_once: Path) -> None:
    path, uuid = another(served[0], made_once)
    keys = {key_of(content_of(number, 5000 + number)): content_of(number, 5000 + number) for number in range(10)}
    async with stock(served[1].url, uuid) as remote:
        for key, content in keys.items():
            await store(remote, key, content)
        assert await remote.check_present_many(list(keys)) == [True] * 10

    assert git(path, "annex", "fsck", "--all", "--json").count('"success":true') == len(keys)


async def test_an_interrupted_put_is_resumed_where_git_annex_says(served: tuple[Path, Stock], made_once: Path) -> None:
    content = content_of(1, 500_000)
    key = key_of(content)
    _, uuid = another(served[0], made_once)
    async with stock(served[1].url, uuid) as remote:
        async with remote.put(key) as upload:
            await upload.start(len(content))
            await upload.write(content[:200_000])
        with anyio.fail_after(10):
            while not await _resumed(remote, key, content):
                await anyio.lowlevel.checkpoint()
        assert await read(remote, key, 499_000) == content[499_000:]


async def _resumed(remote: Remote, key: Key, content: bytes) -> bool:
    try:
        async with remote.put(key) as upload:
            if upload.offset != 200_000:
                return False  # it is still reading
            await upload.start(300_000)
            await upload.write(content[200_000:])
            return (await upload.finish()).ok
    except ServerFailed:
        return False  # so git-annex answers while the put before is not over


async def test_who_may_do_what_is_told_apart_from_who_is_not_known(
    tmp_path: Path, git_annex: str, made_once: Path
) -> None:
    _, uuid = another(tmp_path, made_once)
    users = {"GIT_ANNEX_P2PHTTP_PASSWORD_ann": "secret"}
    server = Stock(git_annex, tmp_path, "--authenv-http", "--unauth-readonly", **users)
    try:
        async with stock(server.url, uuid) as remote:
            assert not await remote.check_present(KEY)
            with pytest.raises(AuthFailed):
                await store(remote, KEY, CONTENT)
        async with stock(server.url.replace("127", "ann:wrong@127"), uuid) as remote:
            with pytest.raises((AuthFailed, AccessDenied)):
                await store(remote, KEY, CONTENT)
        async with stock(server.url.replace("127", "ann:secret@127"), uuid) as remote:
            assert (await store(remote, KEY, CONTENT)).ok
            with pytest.raises(NotLocked):
                await remote.lock_content(key_of(b"absent")).__aenter__()
        async with stock(server.url, new_uuid()) as remote:
            with pytest.raises(UnknownUUID):
                await remote.connect()
    finally:
        server.stop()
