"""Location logs travel between repositories, by path and over ssh, and no line is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from annexpy.actions import sync as sync_module
from annexpy.actions.sync import Synced, sync
from annexpy.errors import ConnectFailed, ConnectionLost, InvalidInput, Refused, TimedOut
from annexpy.keys.key import Key
from annexpy.repo.exchange import GitPlace, git_place
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = [pytest.mark.anyio]

KEYS = [Key.parse(b"WORM-s1-m1--%d" % number) for number in range(20)]
A, B = (UUID(f"{letter * 8}-1111-4111-8111-111111111111") for letter in "ab")


@pytest.fixture
def anyio_backend() -> str:
    """Everything happens in worker threads and git processes: one backend is enough, with one test of the other."""
    return "asyncio"


def git(path: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(path), *words], capture_output=True, text=True, check=True).stdout


def remote(path: Path, name: str, url: str, *, annex: bool = True) -> None:
    git(path, "config", f"remote.{name}.url", url)
    if annex:
        git(path, "config", f"remote.{name}.annex-uuid", "cccccccc-1111-4111-8111-111111111111")


def make(path: Path, *, bare: bool = True) -> None:
    Repository.init(path, bare=bare).close()


def log(path: Path, uuid: UUID, *keys: Key) -> None:
    with Repository.open(path) as repository:
        for key in keys:
            repository.branch.set_present(key, uuid, True)
        repository.branch.commit_now()


def known(path: Path, key: Key) -> list[UUID]:
    with Repository.open(path) as repository:
        return repository.branch.locations(key).present


async def synced(path: Path, *names: str, **more: bool) -> list[Synced]:
    with Repository.open(path) as repository:
        return await sync(repository, names or None, **more)


@pytest.fixture
def fake_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An ssh that runs the command here, and writes down how it was called."""
    script, calls = tmp_path / "ssh", tmp_path / "calls"
    script.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"open({str(calls)!r}, 'a').write(repr(sys.argv[1:]) + '\\n')\n"
        "os.execvp('sh', ['sh', '-c', sys.argv[-1]])\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(script))
    return calls


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    here, there = tmp_path / "here", tmp_path / "there"
    make(here, bare=False)
    make(there)
    log(here, A, *KEYS[:10])
    log(there, B, *KEYS[5:15])
    return here, there


@pytest.fixture(params=["path", "file", "ssh", "scp"])
def connected(request: pytest.FixtureRequest, pair: tuple[Path, Path]) -> tuple[Path, Path]:
    here, there = pair
    if request.param in ("ssh", "scp"):
        request.getfixturevalue("fake_ssh")
    urls = {"path": "../there", "file": f"file://{there}", "ssh": f"ssh://me@host:22{there}", "scp": f"me@host:{there}"}
    remote(here, "there", urls[request.param])
    return here, there


async def test_both_sides_know_everything_afterwards(connected: tuple[Path, Path]) -> None:
    here, there = connected

    results = await synced(here)

    assert results == [Synced("there", fetched=True, sent=True)]
    assert [known(here, KEYS[n]) for n in (0, 7, 12, 17)] == [[A], [A, B], [B], []]
    with Repository.open(there) as other:
        await other.branch.merge()  # as its next command does, when the way was ssh
    assert [known(there, KEYS[n]) for n in (0, 7, 12, 17)] == [[A], [A, B], [B], []]
    assert git(there, "fsck", "--strict", "--no-dangling") == ""
    assert git(here, "fsck", "--strict", "--no-dangling") == ""


@pytest.mark.interop
async def test_who_sends_to_a_ref_of_its_own_meets_nobody_else(connected: tuple[Path, Path], git_annex: str) -> None:
    """``git annex sync`` has the lock of the usual ref when it sends at the same moment."""
    here, there = connected
    lock = there / "refs/heads/synced/git-annex.lock"
    lock.parent.mkdir(parents=True)
    lock.touch()

    for keys in ([], [KEYS[17]]):
        log(here, A, *keys)
        assert [result.ok for result in await synced(here, "there", own=True)] == [True]

    third = here.parent / "third"
    make(third)
    remote(third, "there", str(there))
    await synced(third, push=False)
    subprocess.run([git_annex, "merge", "--quiet"], cwd=there, check=True, capture_output=True)
    for path in (third, there):
        assert [known(path, KEYS[n]) for n in (0, 7, 12, 17)] == [[A], [A, B], [B], [A]]


@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_it_works_on_trio_too(pair: tuple[Path, Path]) -> None:
    here, there = pair
    remote(here, "there", str(there))

    assert await synced(here) == [Synced("there", fetched=True, sent=True)]


async def test_a_second_sync_finds_nothing_new(connected: tuple[Path, Path]) -> None:
    here, _ = connected
    await synced(here)

    tip = git(here, "rev-parse", "git-annex")
    assert await synced(here, "there") == [Synced("there", fetched=False, sent=True)]

    assert git(here, "rev-parse", "git-annex") == tip


async def test_pull_and_push_alone(pair: tuple[Path, Path]) -> None:
    here, there = pair
    remote(here, "there", str(there))

    assert await synced(here, push=False) == [Synced("there", fetched=True)]
    assert known(here, KEYS[12]) == [B]
    assert known(there, KEYS[0]) == []
    log(there, B, KEYS[18])
    (result,) = await synced(here, pull=False)

    assert known(there, KEYS[0]) == [A]  # what was sent stands beside what is new there, and is merged
    assert result.ok


async def test_a_new_repository_gets_the_branch_itself(tmp_path: Path, fake_ssh: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    make(here)
    log(here, A, KEYS[0])
    git(tmp_path, "init", "-q", "--bare", str(there))
    remote(here, "there", f"ssh://host{there}")

    assert (await synced(here))[0].ok

    tip = git(here, "rev-parse", "git-annex")
    assert git(there, "rev-parse", "git-annex", "synced/git-annex") == tip * 2


async def test_a_git_repository_that_is_no_annex_has_its_branch_moved_forward(tmp_path: Path, fake_ssh: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    make(here)
    log(here, A, KEYS[0])
    git(tmp_path, "init", "-q", "--bare", str(there))
    remote(here, "there", f"host:{there}", annex=False)
    await synced(here)
    log(here, A, KEYS[1])

    await synced(here)

    assert git(there, "rev-parse", "git-annex") == git(here, "rev-parse", "git-annex")


async def test_the_branch_of_an_annex_behind_ssh_is_left_to_that_annex(pair: tuple[Path, Path], fake_ssh: Path) -> None:
    """Its journal may hold what a moved branch would lose (fact sheet repository-format, section 0 rule 2)."""
    here, there = pair
    remote(here, "there", f"host:{there}")
    tip = git(there, "rev-parse", "git-annex")
    with Repository.open(there) as other:
        name = b"annex/journal/aaa_bbb_WORM-s1-m1--x.log"
        other.files.make_folders(b"annex/journal")
        other.files.replace(name, b"1s 1 " + B.encode() + b"\n")

    assert (await synced(here))[0].ok

    assert git(there, "rev-parse", "git-annex") == tip
    assert git(there, "rev-parse", "synced/git-annex") == git(here, "rev-parse", "git-annex")


async def test_ssh_is_run_as_configured(
    pair: tuple[Path, Path], fake_ssh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    remote(here, "there", f"ssh://me@host:2222{there}")
    git(here, "config", "core.sshCommand", os.environ["GIT_SSH_COMMAND"] + " -o X=y")
    monkeypatch.delenv("GIT_SSH_COMMAND")

    assert (await synced(here))[0].ok

    first = fake_ssh.read_text().splitlines()[0]
    assert first.startswith("['-o', 'X=y', '-p', '2222', 'me@host', ")
    assert f"git-upload-pack '{there}'" in first


async def test_what_moves_while_it_is_sent_to_is_fetched_again(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    remote(here, "there", str(there))
    pushes = []
    push = sync_module.Exchange.push

    def slow(exchange: sync_module.Exchange, tip: bytes, **how: Any) -> bool:
        if not pushes:  # somebody else is faster, once
            log(there, B, KEYS[19])
            git(there, "update-ref", "refs/heads/synced/git-annex", "git-annex")
        pushes.append(tip)
        return push(exchange, tip, **how)

    monkeypatch.setattr(sync_module.Exchange, "push", slow)
    assert (await synced(here))[0].ok

    assert len(pushes) == 2
    assert known(here, KEYS[19]) == known(there, KEYS[19]) == [B]


async def test_a_strange_ref_at_a_remote_is_left_there(pair: tuple[Path, Path]) -> None:
    """It would need a folder where the usual ref is noted as a file."""
    here, there = pair
    remote(here, "there", str(there))
    assert (await synced(here))[0].ok
    log(there, B, KEYS[19])
    git(there, "update-ref", "-d", "refs/heads/synced/git-annex")
    git(there, "update-ref", "refs/heads/synced/git-annex/git-annex", "git-annex")

    await synced(here, push=False)

    assert known(here, KEYS[19]) == [B]
    assert "git-annex/git-annex" not in git(here, "show-ref")


async def test_one_remote_that_fails_does_not_stop_the_others(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = pair
    monkeypatch.setenv("GIT_SSH_COMMAND", "false")
    remote(here, "a-gone", str(there) + "-gone")
    remote(here, "b-dead", "host:path")
    remote(here, "c-there", str(there))
    remote(here, "d-ignored", "host:ignored")
    git(here, "config", "remote.d-ignored.annex-ignore", "true")

    results = {result.remote: result for result in await synced(here)}

    assert set(results) == {"a-gone", "b-dead", "c-there"}
    assert isinstance(results["b-dead"].error, ConnectionLost)
    assert not results["a-gone"].ok
    assert results["c-there"].ok


async def test_a_missing_ssh_is_said_to_be_missing(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here, _ = pair
    monkeypatch.setenv("GIT_SSH_COMMAND", "/nonexistent/ssh")
    remote(here, "there", "host:path")

    assert isinstance((await synced(here))[0].error, ConnectFailed)


async def test_names_that_are_no_remotes_are_refused(pair: tuple[Path, Path]) -> None:
    here, _ = pair
    with pytest.raises(InvalidInput):
        await synced(here, "nobody")


async def test_a_hanging_ssh_is_given_up(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = pair
    (tmp_path / "hang").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "hang").chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(tmp_path / "hang"))
    remote(here, "there", "host:path")

    with Repository.open(here) as repository, anyio.fail_after(20):
        (result,) = await sync(repository, seconds=0.5)

    assert isinstance(result.error, TimedOut)


# -- places --


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("/a/b", GitPlace("r", "/a/b")),
        ("../b c", GitPlace("r", "/base/../b c")),
        ("file:///a%20b", GitPlace("r", "/a b")),
        ("ssh://h/a", GitPlace("r", "/a", "h")),
        ("ssh://u%40x@h:3/~/a", GitPlace("r", "~/a", "u@x@h", 3)),
        ("u@h:a/b", GitPlace("r", "a/b", "u@h")),
        ("[::1]:a", GitPlace("r", "a", "::1")),
    ],
)
def test_urls_mean_what_they_mean_to_git(url: str, place: GitPlace, pair: tuple[Path, Path]) -> None:
    with Repository.open(pair[0]) as repository:
        assert git_place("r", url, "/base", repository.config, {}) == place


@pytest.mark.parametrize("url", ["ext::sh -c evil", "git://h/a", "ssh://-oProxyCommand=x/a", "-x:a", "annex::u"])
def test_other_carriers_and_tricks_are_refused(url: str, pair: tuple[Path, Path]) -> None:
    with Repository.open(pair[0]) as repository, pytest.raises(Refused):
        git_place("r", url, "/base", repository.config, {})


# -- beside the real one --


@pytest.mark.interop
@pytest.mark.parametrize("way", ["path", "ssh"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_git_annex_sees_what_we_sent_and_we_see_what_it_sent(
    way: str, tmp_path: Path, git_annex: str, fake_ssh: Path
) -> None:
    def annex(path: Path) -> Callable[..., str]:
        return lambda *words: (
            subprocess.run([git_annex, *words], cwd=path, capture_output=True, text=True, check=True).stdout
        )

    here, there = tmp_path / "here", tmp_path / "there"
    make(here)
    git(tmp_path, "init", "-q", "--bare", str(there))
    theirs = annex(there)
    theirs("init", "there")
    theirs("setpresentkey", str(KEYS[1]), A, "1")
    if way == "ssh":
        theirs("merge")  # or its journal keeps the record for itself
    log(here, B, KEYS[1], KEYS[2])
    remote(here, "there", f"host:{there}" if way == "ssh" else str(there))

    assert (await synced(here))[0].ok

    theirs("numcopies", "3")
    listed = theirs("whereis", "--key", str(KEYS[1]))
    assert A in listed
    assert B in listed
    assert A in annex(here)("whereis", "--key", str(KEYS[1]))
    assert (await synced(here))[0].fetched
    assert git(here, "show", "git-annex:numcopies.log").endswith(" 3\n")
    assert git(there, "fsck", "--strict", "--no-dangling") == ""
