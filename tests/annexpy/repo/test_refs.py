"""Refs as git keeps them: loose, packed, locked."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from annexpy.errors import LockHeld, RepositoryError
from annexpy.repo import refs as refs_module
from annexpy.repo.door import Status
from annexpy.repo.files import DiskFiles
from annexpy.repo.refs import GIT_ANNEX, Refs
from annexpy.repo.settings import Lockdown


def git(where: Path, *arguments: str, given: str = "") -> str:
    return subprocess.run(
        ["git", *arguments], cwd=where, input=given, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "--bare", "r.git")
    return tmp_path / "r.git"


@pytest.fixture
def commits(bare: Path) -> list[bytes]:
    tree = git(bare, "mktree")
    return [git(bare, "commit-tree", tree, "-m", str(n)).encode() for n in range(4)]


def refs(bare: Path) -> Refs:
    return Refs(DiskFiles(bare), Lockdown())


@pytest.mark.parametrize("aside", [None, b"aside"])
def test_a_ref_is_made_moved_and_read(bare: Path, commits: list[bytes], aside: bytes | None) -> None:
    ours = refs(bare)

    assert ours.read(GIT_ANNEX) is None
    assert ours.swap(GIT_ANNEX, None, commits[0], aside=aside)
    assert ours.swap(GIT_ANNEX, commits[0], commits[1], aside=aside)

    assert ours.read(GIT_ANNEX) == commits[1]
    assert git(bare, "rev-parse", "refs/heads/git-annex").encode() == commits[1]
    assert not (bare / "refs/heads/git-annex.lock").exists()
    assert not (bare / "aside").exists()


@pytest.mark.parametrize("aside", [None, b"aside"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_ref_that_moved_is_left_alone(bare: Path, commits: list[bytes], packed: bool, aside: bytes | None) -> None:
    git(bare, "update-ref", "refs/heads/git-annex", commits[0].decode())
    if packed:
        git(bare, "pack-refs", "--all", "--prune")
    ours = refs(bare)

    for old in (None, commits[1]):
        assert not ours.swap(GIT_ANNEX, old, commits[2], aside=aside)
    assert ours.swap(GIT_ANNEX, commits[0], commits[2], aside=aside)

    assert git(bare, "rev-parse", "refs/heads/git-annex").encode() == commits[2]
    assert sorted(path.name for path in (bare / "refs/heads").iterdir()) == ["git-annex"]


def test_packing_by_others_is_noticed(bare: Path, commits: list[bytes]) -> None:
    ours = refs(bare)
    for commit in commits:
        git(bare, "update-ref", "refs/heads/git-annex", commit.decode())
        assert ours.read(GIT_ANNEX) == commit
        git(bare, "pack-refs", "--all", "--prune")
        assert ours.read(GIT_ANNEX) == commit
    git(bare, "update-ref", "-d", "refs/heads/git-annex")
    assert ours.read(GIT_ANNEX) is None


def test_all_refs_of_one_name_are_found(bare: Path, commits: list[bytes]) -> None:
    for name in (
        "remotes/a/git-annex",
        "remotes/b/c/git-annex",
        "heads/synced/git-annex",
        "heads/git-annex-x",
        "tags/git-annex",
    ):
        git(bare, "update-ref", f"refs/{name}", commits[0].decode())
    git(bare, "pack-refs", "--all", "--prune")
    git(bare, "update-ref", "refs/remotes/b/c/git-annex", commits[1].decode())
    git(bare, "update-ref", "refs/remotes/new/git-annex", commits[2].decode())
    git(bare, "update-ref", "refs/heads/git-annex/below", commits[2].decode())
    git(bare, "symbolic-ref", "refs/remotes/sym/git-annex", "refs/heads/x")
    (bare / "refs/remotes/new/git-annex.lock").touch()

    found = refs(bare).named(b"git-annex")

    assert found == {
        b"refs/heads/synced/git-annex": commits[0],
        b"refs/remotes/a/git-annex": commits[0],
        b"refs/remotes/b/c/git-annex": commits[1],
        b"refs/remotes/new/git-annex": commits[2],
        b"refs/tags/git-annex": commits[0],
    }
    listed = {line.split()[1]: line.split()[0] for line in git(bare, "show-ref", "git-annex").splitlines()}
    assert {name.encode(): sha.encode() for name, sha in listed.items()} == found


@pytest.mark.parametrize("aside", [None, b"aside"])
def test_a_locked_ref_is_waited_for_and_named(
    bare: Path, commits: list[bytes], monkeypatch: pytest.MonkeyPatch, aside: bytes | None
) -> None:
    monkeypatch.setattr(refs_module, "_LOCK_SECONDS", 0.01)
    (bare / "refs/heads/git-annex.lock").write_text("")

    with pytest.raises(LockHeld, match=r"refs/heads/git-annex\.lock is held by another git process"):
        refs(bare).swap(GIT_ANNEX, None, commits[0], aside=aside)

    assert (bare / "refs/heads/git-annex.lock").exists()


def test_git_cannot_move_a_ref_we_have_locked(bare: Path, commits: list[bytes]) -> None:
    tried: list[int] = []

    class Meanwhile(DiskFiles):
        def status(self, path: bytes) -> Status | None:
            if path == GIT_ANNEX:
                command = ["git", "update-ref", "refs/heads/git-annex", commits[1].decode()]
                tried.append(subprocess.run(command, cwd=bare, capture_output=True, check=False).returncode)
            return super().status(path)

    assert Refs(Meanwhile(bare), Lockdown()).swap(GIT_ANNEX, None, commits[0], aside=b"aside")

    assert tried
    assert all(tried)
    assert git(bare, "rev-parse", "refs/heads/git-annex").encode() == commits[0]


def test_a_ref_that_was_moved_is_never_read_from_memory(bare: Path, commits: list[bytes]) -> None:
    seen, path = refs(bare), bare / "refs/heads/git-annex"
    long_ago = time.time() - 1000
    for number in range(200):
        commit = commits[number % 2]
        if number < 10:
            git(bare, "update-ref", "refs/heads/git-annex", commit.decode())
        else:
            path.write_bytes(commit + b"\n")
        assert seen.read(GIT_ANNEX) == commit
        if number % 3 == 0:
            os.utime(path, (long_ago + number, long_ago + number))
            assert seen.read(GIT_ANNEX) == seen.read(GIT_ANNEX) == commit  # from now on from memory
    path.unlink()
    assert seen.read(GIT_ANNEX) is None


def test_a_stale_lock_of_ours_is_told_by_its_content(bare: Path, commits: list[bytes]) -> None:
    lock = bare / "refs/heads/git-annex.lock"
    ours = refs(bare)
    ours.unlock_stale(GIT_ANNEX, commits[0])
    for content, stays in ((b"", True), (commits[1] + b"\n", True), (commits[0] + b"\n", False)):
        lock.write_bytes(content)
        ours.unlock_stale(GIT_ANNEX, commits[0])
        assert lock.exists() == stays


def test_without_links_it_works_too(bare: Path, commits: list[bytes]) -> None:
    import errno

    class WithoutLinks(DiskFiles):
        def link(self, old: bytes, new: bytes) -> None:
            raise OSError(errno.EPERM, "no links here")

    ours = Refs(WithoutLinks(bare), Lockdown())
    assert ours.swap(GIT_ANNEX, None, commits[0], aside=b"aside")
    assert not ours.swap(GIT_ANNEX, None, commits[1], aside=b"aside")
    assert ours.read(GIT_ANNEX) == commits[0]
    assert not (bare / "refs/heads/git-annex.lock").exists()


@pytest.mark.parametrize("content", [b"ref: refs/heads/x\n", b"zzz\n", b""])
def test_what_is_no_plain_ref_is_an_error(bare: Path, content: bytes) -> None:
    (bare / "refs/heads/git-annex").write_bytes(content)

    with pytest.raises(RepositoryError, match="refs/heads/git-annex is no plain ref"):
        refs(bare).read(GIT_ANNEX)
