"""Our client against the real ``git-annex-shell p2pstdio``: the whole contract, and what git-annex says afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from remote_contract import CONTENT, KEY, HandClock, RemoteContract, content_of, key_of, read, store

from annexpy.clock import LOCK_RETENTION, Clock, Deadline
from annexpy.errors import ConnectFailed, ConnectionLost, ContentChanged, KeyNotPresent, PeerError, UnknownUUID
from annexpy.keys.key import Key
from annexpy.remote.base import Remote
from annexpy.remote.p2p import P2PRemote
from annexpy.system import CLOCK
from annexpy.transport.base import Transport
from annexpy.transport.pipe import Child, DialCommand
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

CLIENT = UUID("cccccccc-0000-4000-8000-000000000003")


def git(path: Path, *argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=path, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, git_annex: str) -> Path:
    path = tmp_path_factory.mktemp("stock") / "repo.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    git(path, "annex", "init", "-q", "stock")
    return path


@pytest.fixture
def repository(tmp_path: Path, made_once: Path) -> Path:
    return shutil.copytree(made_once, tmp_path / "repo.git", symlinks=True)


def uuid_of(path: Path) -> UUID:
    return UUID(git(path, "config", "annex.uuid").strip())


def shell(path: Path, *, env: tuple[tuple[str, str], ...] = (), uuid: UUID | None = None) -> DialCommand:
    more = ("--uuid", uuid) if uuid else ()
    return DialCommand(("git-annex-shell", "p2pstdio", str(path), CLIENT, *more), env=env)


@asynccontextmanager
async def stock(
    path: Path, *, env: tuple[tuple[str, str], ...] = (), version: int = 4, clock: Clock = CLOCK
) -> AsyncIterator[P2PRemote]:
    remote = P2PRemote(
        shell(path, env=env), uuid=uuid_of(path), name="stock", max_version=version, connections=2, clock=clock
    )
    try:
        yield remote
    finally:
        await remote.aclose()


class TestStock(RemoteContract):
    """git-annex reads its own clock, so ours is the system's."""

    patient_cancel = 6
    locks_overlap = False

    @pytest.fixture(autouse=True)
    def made(self, repository: Path) -> None:
        self.path = repository

    @asynccontextmanager
    async def remote(self, clock: HandClock) -> AsyncIterator[Remote]:
        clock.time = CLOCK.now()
        async with stock(self.path, clock=clock) as remote:
            yield remote


@pytest.mark.parametrize("version", range(5))
async def test_every_version_of_the_protocol_stores_gives_and_removes(repository: Path, version: int) -> None:
    content = content_of(1, 300_000)
    key = key_of(content)
    async with stock(repository, version=version) as remote:
        assert (await store(remote, key, content, piece=70_000)).uuids == {remote.uuid}
        assert await read(remote, key, 17) == content[17:]
        with pytest.raises(KeyNotPresent):
            await read(remote, KEY)
        result = await remote.remove_content(key, deadline=Deadline(CLOCK.now() + 300))
        if version < 3:
            assert not result.ok
            assert "no-deadline" in str(result.failed[remote.uuid])
            assert await remote.check_present(key)
            result = await remote.remove_content(key)
        assert result.ok
        assert not await remote.check_present(key)


async def test_git_annex_finds_what_we_stored_intact(repository: Path) -> None:
    keys = {key_of(content_of(number, 5000 + number)): content_of(number, 5000 + number) for number in range(20)}
    async with stock(repository) as remote:
        for key, content in keys.items():
            await store(remote, key, content)
        assert all(await remote.check_present_many(list(keys)))

    assert git(repository, "annex", "fsck", "--all", "--json").count('"success":true') == len(keys)
    for key in keys:
        assert uuid_of(repository) in git(repository, "annex", "whereis", "--key", str(key))


async def test_an_interrupted_put_is_resumed_where_git_annex_says(repository: Path) -> None:
    content = content_of(1, 500_000)
    key = key_of(content)
    async with stock(repository) as remote:
        async with remote.put(key) as upload:
            await upload.start(len(content))
            await upload.write(content[:200_000])
        async with remote.put(key) as upload:
            assert upload.offset == 200_000
            await upload.start(300_000)
            await upload.write(content[200_000:])
            assert (await upload.finish()).ok
        assert await read(remote, key, 499_000) == content[499_000:]


async def test_unverifiable_content_whose_source_changed_is_not_left_at_git_annex(repository: Path) -> None:
    # git-annex itself would keep it on INVALID, and also when the client hangs up after the last byte.
    content = content_of(1, 300_000)
    for number, valid in enumerate((False, None)):
        key = Key(b"WORM", b"changing%d" % number, len(content), mtime=1)
        async with stock(repository) as remote:
            async with remote.put(key) as upload:
                await upload.start(len(content))
                await upload.write(content)
                if valid is False:
                    with pytest.raises(ContentChanged):
                        await upload.finish(valid=False)
            assert not await remote.check_present(key)


async def test_locked_content_ends_the_session_and_the_error_says_why(repository: Path) -> None:
    async with stock(repository) as remote, stock(repository) as other:
        await store(remote, KEY, CONTENT)
        more = key_of(content_of(1))
        await store(remote, more, content_of(1))
        async with other.lock_content(KEY) as lock:
            assert lock.expires <= CLOCK.now() + LOCK_RETENTION
            with pytest.raises(ConnectionLost, match=r"answer to REMOVE \(.*content is locked"):
                await remote.remove_content(KEY)
            locked, free, absent = await remote.remove_content_many([KEY, more, key_of(content_of(2))])
            assert isinstance(locked.failed[remote.uuid], ConnectionLost)
            assert free.ok
            assert absent.ok
        assert await remote.check_present(KEY)


async def test_a_lock_whose_server_was_killed_is_not_held(repository: Path) -> None:
    transports = []

    async def dial() -> Transport:
        transports.append(await shell(repository)())
        return transports[-1]

    remote = P2PRemote(dial, uuid=uuid_of(repository), name="stock")
    await store(remote, KEY, CONTENT)
    async with remote.lock_content(KEY) as lock:
        assert await lock.held()
        assert isinstance(transports[-1], Child)
        os.kill(transports[-1].pid, signal.SIGKILL)
        with anyio.fail_after(5):
            while await lock.held():
                await anyio.sleep(0.01)
    await remote.aclose()


@pytest.mark.parametrize(
    ("mode", "text"), [("READONLY", "this repository is read-only"), ("APPENDONLY", "this repository is append-only")]
)
async def test_what_a_restricted_shell_denies_is_told_in_its_words(repository: Path, mode: str, text: str) -> None:
    async with stock(repository) as remote:
        await store(remote, KEY, CONTENT)
    async with stock(repository, env=((f"GIT_ANNEX_SHELL_{mode}", "1"),)) as remote:
        result = await remote.remove_content(KEY)
        assert not result.ok
        assert text in str(result.failed[remote.uuid])
        if mode == "READONLY":
            with pytest.raises(PeerError, match=text):
                await store(remote, key_of(content_of(1)), content_of(1))
        assert await read(remote, KEY) == CONTENT


async def test_another_repository_than_expected_is_refused(repository: Path) -> None:
    other = UUID("dddddddd-0000-4000-8000-000000000004")
    remote = P2PRemote(shell(repository), uuid=other, name="stock")
    with pytest.raises(UnknownUUID, match=f"expected repository {other} but found {uuid_of(repository)}"):
        await remote.check_present(KEY)
    remote = P2PRemote(shell(repository, uuid=other), uuid=other, name="stock")
    with pytest.raises(ConnectFailed, match=f"expected repository UUID {other}"):
        await remote.check_present(KEY)
    await remote.aclose()


async def test_a_place_that_is_no_repository_is_told_in_the_words_of_git_annex(tmp_path: Path) -> None:
    remote = P2PRemote(shell(tmp_path), name="nothing")
    with pytest.raises(ConnectFailed, match=r"nothing: hung up while waiting for AUTH-SUCCESS .*exit status 1"):
        await remote.connect()


async def test_the_uuid_is_known_after_the_first_connection(repository: Path) -> None:
    remote = P2PRemote(shell(repository), name="stock")
    with pytest.raises(UnknownUUID, match="not known before"):
        _ = remote.uuid
    assert await remote.connect() == uuid_of(repository) == remote.uuid
    await remote.aclose()
