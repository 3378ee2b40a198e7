"""A cluster of real ``git-annex-shell`` servers and a repository of ours, and what git-annex says of it afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from remote_contract import content_of, key_of, read, store

from annexpy.actions.put import put
from annexpy.clock import Deadline
from annexpy.errors import ContentLocked, TransportError
from annexpy.keys.layout import key_file
from annexpy.remote.base import Stored
from annexpy.remote.cluster import Cluster
from annexpy.remote.local import Local
from annexpy.remote.p2p import P2PRemote
from annexpy.remote.recording import Recording
from annexpy.repo.repository import Repository
from annexpy.system import CLOCK
from annexpy.transport.pipe import DialCommand
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.interop]

CLIENT = UUID("cccccccc-0000-4000-8000-000000000003")
CONTENT = content_of(1, 600_000)
KEY = key_of(CONTENT)


def git(path: Path, *argv: str) -> str:
    return subprocess.run(["git", *argv], cwd=path, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory, git_annex: str) -> Path:
    folder = tmp_path_factory.mktemp("stock")
    for name in ("one", "two"):
        subprocess.run(["git", "init", "-q", "--bare", str(folder / name)], check=True)
        git(folder / name, "annex", "init", "-q", name)
    Repository.init(folder / "ours", bare=True).close()
    return folder


@pytest.fixture
def folder(tmp_path: Path, made_once: Path) -> Path:
    return shutil.copytree(made_once, tmp_path / "nodes", symlinks=True)


def uuid_of(path: Path) -> UUID:
    return UUID(git(path, "config", "annex.uuid").strip())


class Nodes:
    """Two stock nodes and one of ours."""

    def __init__(self, folder: Path, env: tuple[tuple[str, str], ...] = ()) -> None:
        self.stock = [self._stock(folder / "one", env), self._stock(folder / "two", ())]
        self.ours = Local(Repository.open(folder / "ours"))
        self.cluster = Cluster([*self.stock, self.ours])
        self.one, self.two, self.three = self.stock[0].uuid, self.stock[1].uuid, self.ours.uuid
        self.all = {self.one, self.two, self.three}

    def _stock(self, path: Path, env: tuple[tuple[str, str], ...]) -> P2PRemote:
        dial = DialCommand(("git-annex-shell", "p2pstdio", str(path), CLIENT), env=env)
        return P2PRemote(dial, uuid=uuid_of(path), name=path.name, connections=2)


@asynccontextmanager
async def nodes(folder: Path, env: tuple[tuple[str, str], ...] = ()) -> AsyncIterator[Nodes]:
    made = Nodes(folder, env)
    try:
        yield made
    finally:
        await made.cluster.aclose()
        made.ours.repository.close()


def partial(path: Path, content: bytes) -> None:
    tmp = path / "annex" / "tmp"
    tmp.mkdir(parents=True, exist_ok=True)
    (tmp / os.fsdecode(key_file(KEY))).write_bytes(content)


async def test_three_nodes_at_three_offsets_end_intact_for_git_annex(folder: Path) -> None:
    partial(folder / "one", CONTENT[:300_000])
    partial(folder / "two", CONTENT + b"more than there is")
    partial(folder / "ours", CONTENT[:50_000])
    async with nodes(folder) as made:
        assert (await store(made.cluster, KEY, CONTENT, piece=99_999)).uuids == made.all
        for offset in (0, 1, 599_999):
            assert await read(made.cluster, KEY, offset) == CONTENT[offset:]
        assert await made.cluster.check_present(KEY)
        async with made.cluster.put(KEY) as upload:
            assert upload.already == made.all
    for name in ("one", "two", "ours"):
        assert '"success":true' in git(folder / name, "annex", "fsck", "--all", "--json")
        assert uuid_of(folder / name) in git(folder / name, "annex", "whereis", "--key", str(KEY))


async def test_a_stock_node_with_a_wrong_partial_gets_the_content_at_the_second_attempt(folder: Path) -> None:
    partial(folder / "one", b"wrong" * 1000)
    async with nodes(folder) as made:
        assert await put(made.cluster, KEY, CONTENT) == Stored(uuids=frozenset(made.all))
    assert '"success":true' in git(folder / "one", "annex", "fsck", "--all", "--json")


async def test_a_node_that_has_it_and_one_that_may_not_write_are_told_apart(folder: Path) -> None:
    async with nodes(folder, (("GIT_ANNEX_SHELL_READONLY", "1"),)) as made:
        assert (await store(made.stock[1], KEY, CONTENT)).ok
        stored = await store(made.cluster, KEY, CONTENT)
        assert stored.uuids == {made.three}
        assert stored.already == {made.two}
        assert list(stored.failed) == [made.one]
        assert "read-only" in str(stored.failed[made.one])


async def test_a_removal_from_some_names_exactly_those(folder: Path) -> None:
    class Log:
        lines: dict[UUID, bool] = {}  # noqa: RUF012

        def set_present(self, key: object, uuid: UUID, present: bool) -> None:
            self.lines[uuid] = present

    log = Log()
    async with nodes(folder) as made:
        recording = Recording(made.cluster, log)
        assert (await store(recording, KEY, CONTENT)).uuids == made.all
        async with made.stock[0].lock_content(KEY):  # which a stock node answers by hanging up
            removed = await recording.remove_content(KEY, deadline=Deadline(CLOCK.now() + 500))
        assert not removed.ok
        assert removed.uuids == {made.two, made.three}
        assert isinstance(removed.failed[made.one], TransportError | ContentLocked)
        assert log.lines == {made.one: True, made.two: False, made.three: False}
        assert await read(recording, KEY) == CONTENT
        assert (await recording.remove_content(KEY)).ok
        assert not await recording.check_present(KEY)


async def test_a_node_that_is_gone_costs_nothing_but_its_copy(folder: Path) -> None:
    shutil.rmtree(folder / "two")
    shutil.copytree(folder / "one", folder / "two", symlinks=True)
    git(folder / "two", "config", "annex.uuid", "99999999-0000-4000-8000-000000000000")
    async with nodes(folder) as made:
        shutil.rmtree(folder / "two")
        for number in range(5):
            content = content_of(number + 10, 5000)
            stored = await store(made.cluster, key_of(content), content)
            assert stored == Stored(uuids=frozenset({made.one, made.three}), failed=stored.failed)
            assert list(stored.failed) == [made.two]
            assert await read(made.cluster, key_of(content)) == content
            assert await made.cluster.check_present(key_of(content))
