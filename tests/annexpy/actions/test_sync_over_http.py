"""The git-annex branch, and the history of a dataset, over smart HTTP."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from annexpy.actions.push import push
from annexpy.actions.sync import sync
from annexpy.errors import AuthFailed, ConnectionLost, NotARepository
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

ELSEWHERE = UUID("00000000-0000-4000-8000-0000000000aa")
KEY = Key.parse("SHA256E-s3--" + 64 * "1" + ".dat")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "bare.git", bare=True).close()
    return tmp_path / "bare.git"


@pytest.fixture
def work(tmp_path: Path, own_home: None) -> Iterator[Repository]:
    with Repository.init(tmp_path / "work", bare=False) as repository:
        git(tmp_path / "work", "commit", "-q", "--allow-empty", "-m", "first")
        yield repository


def git(path: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=path, check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def closing_all_sockets() -> Iterator[None]:
    """What is opened in the block is closed in it, and not at some time by the garbage collector."""

    def sockets() -> set[str]:
        links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
        return {place for link in links if os.path.lexists(link) and "socket:" in (place := os.readlink(link))}

    gc.disable()
    try:
        before = sockets()
        yield
        assert sockets() == before
    finally:
        gc.enable()


def at(work: Repository, url: str, password: str = "") -> Path:
    """Make *url* the remote ``there`` of *work*, and *password* what git knows."""
    work.config.set("remote.there.url", url)
    work.config.set("remote.there.fetch", "+refs/heads/*:refs/remotes/there/*")
    store = Path(work.path) / ".git" / "passwords"
    if password:
        store.write_text(url.replace("://", f"://ann:{password}@").rpartition("/")[0] + "\n")
    work.config.set("credential.helper", f"store --file={store}")
    work.config.reload()
    return store


PASSWORD = {"GIT_ANNEX_P2PHTTP_PASSWORD_ann": "right"}


async def test_the_branch_and_the_history_travel_both_ways(work: Repository, bare: Path) -> None:
    from served import serve

    with serve("--http", "127.0.0.1:0", "--authenv-http", str(bare), **PASSWORD) as server:
        store = at(work, f"{server.url}/bare", "right")
        work.branch.set_present(KEY, work.uuid, True)
        with Repository.open(bare) as there:
            there.branch.set_present(KEY, ELSEWHERE, True)
            await there.branch.commit()
        (synced,) = await sync(work, ["there"])
        assert synced.error is None
        assert synced.fetched
        assert synced.sent
        assert {work.uuid, ELSEWHERE} <= set(work.branch.locations(KEY).present)
        assert [one.error for one in await push(work, ["there"])] == [None]
        assert [one.error for one in await push(work, ["there"])] == [None]
        assert git(bare, "rev-parse", "main") == git(Path(work.path), "rev-parse", "main")
        assert "right" in store.read_text()
    with Repository.open(bare) as there:
        await there.branch.merge()
        assert {work.uuid, ELSEWHERE} <= set(there.branch.locations(KEY).present)


async def test_a_wrong_password_and_a_server_that_is_gone_are_told_apart(work: Repository, bare: Path) -> None:
    from served import serve

    with serve("--http", "127.0.0.1:0", "--authenv-http", str(bare), **PASSWORD) as server:
        store = at(work, f"{server.url}/bare", "wrong")
        with closing_all_sockets():
            (synced,) = await sync(work, ["there"])
        assert isinstance(synced.error, AuthFailed)
        assert "wrong" not in store.read_text(), "git is told that it is not good"
        at(work, f"{server.url}/other", "right")
        with closing_all_sockets():
            (synced,) = await sync(work, ["there"])
        assert isinstance(synced.error, NotARepository | AuthFailed)
        url = f"{server.url}/bare"
        server.stop()
    at(work, url, "right")
    (synced,) = await sync(work, ["there"])
    assert isinstance(synced.error, ConnectionLost)


async def test_commits_of_others_are_never_overwritten(work: Repository, bare: Path, tmp_path: Path) -> None:
    from served import serve

    with serve("--http", "127.0.0.1:0", "--wideopen", str(bare)) as server:
        at(work, f"{server.url}/bare")
        git(tmp_path, "clone", "-q", str(bare), "other")
        git(tmp_path / "other", "commit", "-q", "--allow-empty", "-m", "theirs")
        git(tmp_path / "other", "push", "-q", "origin", "HEAD:main")
        theirs = git(bare, "rev-parse", "main")
        with closing_all_sockets():
            (pushed,) = await push(work, ["there"])
        assert pushed.error is not None
        assert git(bare, "rev-parse", "main") == theirs
