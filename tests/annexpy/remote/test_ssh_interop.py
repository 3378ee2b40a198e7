"""A repository over ssh: real sshd, real git-annex-shell, our client; by asyncssh and by the system's ssh."""

from __future__ import annotations

import subprocess
from pathlib import Path

import anyio
import pytest
from remote_contract import CONTENT, KEY, content_of, key_of, read, store

from annexpy.clock import Deadline
from annexpy.errors import ConnectFailed, KeyNotPresent, UnknownUUID
from annexpy.remote.connect import connect
from annexpy.repo.repository import Repository
from annexpy.system import CLOCK
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio, pytest.mark.interop]


@pytest.fixture
def stock(tmp_path: Path, git_annex: str) -> Path:
    path = tmp_path / "it's a repo.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    subprocess.run(["git", "annex", "init", "-q", "stock"], cwd=path, check=True)
    return path


@pytest.fixture(params=["asyncssh", "system ssh"])
def way(request: pytest.FixtureRequest, sshd, monkeypatch: pytest.MonkeyPatch) -> str:
    # The system's ssh looks for its configuration in the home of the password database: tell it ours. On trio it
    # is the only way.
    if request.param == "system ssh" or "trio" in request.node.callspec.id:
        monkeypatch.setenv("GIT_SSH_COMMAND", f"ssh -F '{sshd.config}'")
    else:
        monkeypatch.delenv("GIT_SSH_COMMAND", raising=False)
    monkeypatch.delenv("GIT_SSH", raising=False)
    return str(request.param)


async def test_everything_works_over_ssh(way: str, sshd, stock: Path) -> None:
    contents = {key_of(content_of(number, 3000)): content_of(number, 3000) for number in range(12)}
    large = content_of(99, 3_000_000)
    async with connect(f"ssh://{sshd.host}{stock}") as remote:
        assert remote.uuid == subprocess.check_output(["git", "config", "annex.uuid"], cwd=stock, text=True).strip()

        async def one(key, content: bytes) -> None:
            assert (await store(remote, key, content)).uuids == {remote.uuid}
            assert await read(remote, key, 5) == content[5:]

        async with anyio.create_task_group() as tasks:
            for key, content in contents.items():
                tasks.start_soon(one, key, content)
            tasks.start_soon(one, key_of(large), large)
        assert await remote.check_present_many([*contents, KEY]) == [True] * 12 + [False]  # type: ignore[attr-defined]
        with pytest.raises(KeyNotPresent):
            await read(remote, KEY)
        async with remote.lock_content(key_of(large)) as lock:
            assert await lock.held()
        removed = await remote.remove_content(key_of(large), deadline=Deadline(CLOCK.now() + 60))
        assert removed.ok

    # It complains of the one that is gone from everywhere, as it should, and of nothing else.
    fsck = subprocess.run(["git", "annex", "fsck", "--all", "--json"], cwd=stock, capture_output=True, text=True)
    assert fsck.stdout.count('"success":true') == 12
    assert fsck.stdout.count('"success":false') == 1


async def test_what_goes_wrong_at_the_other_end_is_told_in_its_words(way: str, sshd, tmp_path: Path) -> None:
    remote = connect(f"ssh://{sshd.host}{tmp_path}/nothing", name="nowhere")
    with pytest.raises(ConnectFailed, match=r"cannot connect to nowhere: .*(git-annex-shell|not a git)"):
        await remote.connect()
    await remote.aclose()


async def test_a_git_remote_is_reached_with_its_settings_and_must_be_the_one_that_is_recorded(
    way: str, sshd, stock: Path, tmp_path: Path
) -> None:
    other = UUID("dddddddd-0000-4000-8000-000000000004")
    with Repository.init(tmp_path / "work") as work:
        work.config.change({"remote.vault.url": f"ssh://{sshd.host}{stock}", "remote.vault.annex-cost": "175"})
        async with connect("vault", repository=work) as remote:
            assert (remote.name, remote.cost) == ("vault", 175)
            assert (await store(remote, KEY, CONTENT)).ok
        work.config.set("remote.vault.annex-uuid", other)
        wrong = connect("vault", repository=work)
        with pytest.raises((UnknownUUID, ConnectFailed), match=other):
            await wrong.check_present(KEY)
        await wrong.aclose()
