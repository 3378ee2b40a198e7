"""What is added to a bare repository goes where git-annex expects it, and moves nobody's own branch."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.errors import RepositoryError
from annexpy.repo.commits import FileChange, SyncedBranch
from annexpy.repo.repository import Repository


def git(at: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    done = subprocess.run(["git", *who, *words], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout.strip()


def line(text: bytes) -> FileChange:
    return FileChange(lambda old: (old or b"") + text)


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    Repository.init(tmp_path / "bare.git", bare=True, description="bare").close()
    git(tmp_path, "-C", "bare.git", "symbolic-ref", "HEAD", "refs/heads/main")
    git(tmp_path, "clone", "-q", "bare.git", "clone")
    return tmp_path / "clone"


def push(clone: Path, name: str) -> str:
    (clone / name).write_text(name)
    git(clone, "add", name)
    git(clone, "commit", "-qm", name)
    git(clone, "push", "-q", "origin", "HEAD:main")
    return git(clone, "rev-parse", "HEAD")


@pytest.fixture
def synced(clone: Path) -> Iterator[SyncedBranch]:
    with Repository.open(clone.parent / "bare.git") as repository:
        branch = SyncedBranch(repository)
        yield branch
        branch.close()


def test_without_a_history_there_is_nothing_to_add_to(synced: SyncedBranch) -> None:
    assert synced.branch is None
    with pytest.raises(RepositoryError, match="no branch to follow"):
        synced.commit({b"log": line(b"1\n")}, "first")


def test_it_follows_the_branch_and_leaves_it_where_it_is(clone: Path, synced: SyncedBranch) -> None:
    tip = push(clone, "one")
    assert synced.branch == "refs/heads/main"

    made = synced.commit({b"a/log": line(b"1\n")}, "first")
    again = synced.commit({b"a/log": line(b"2\n")}, "second")

    bare = clone.parent / "bare.git"
    assert git(bare, "rev-parse", "main") == tip
    assert git(bare, "rev-parse", "synced/main", "synced/main~1", "synced/main~2").split() == [again, made, tip]
    assert git(bare, "show", "synced/main:a/log") == "1\n2"
    assert synced.read(b"a/log") == b"1\n2\n"
    assert synced.read(b"one") == b"one"
    assert synced.commit({b"a/log": FileChange(lambda old: old or b"")}, "nothing") is None
    git(bare, "fsck", "--strict")

    tip = push(clone, "two")
    beside = synced.commit({b"a/log": line(b"3\n")}, "main went on without it")
    assert git(bare, "rev-parse", f"{beside}^") == again
    git(clone, "pull", "-q", "--no-rebase", "--no-edit", "origin", "synced/main")
    assert sorted(path.name for path in clone.iterdir()) == [".git", "a", "one", "two"]
    git(clone, "push", "-q", "origin", "HEAD:main")
    after = synced.commit({b"a/log": line(b"4\n")}, "what was merged is followed")
    assert git(bare, "rev-parse", f"{after}^") == git(clone, "rev-parse", "HEAD")


def test_a_branch_of_another_name_is_found(clone: Path, synced: SyncedBranch) -> None:
    (clone / "one").write_text("one")
    git(clone, "add", ".")
    git(clone, "commit", "-qm", "one")
    git(clone, "push", "-q", "origin", "HEAD:trunk")
    assert synced.branch == "refs/heads/trunk"
    git(clone, "push", "-q", "origin", "HEAD:other")
    assert synced.branch is None, "two, and HEAD names none of them"
    git(clone, "push", "-q", "origin", "HEAD:main")
    assert synced.branch == "refs/heads/main"


@pytest.mark.interop
def test_a_sync_of_git_annex_brings_it_to_a_clone(clone: Path, synced: SyncedBranch, git_annex: str) -> None:
    push(clone, "one")
    for words in (("init", "-q", "clone"), ("sync", "-q", "--no-content", "origin")):
        subprocess.run([git_annex, *words], cwd=clone, check=True, capture_output=True)
    synced.commit({b"a/log": line(b"1\n")}, "first")

    subprocess.run([git_annex, "sync", "-q", "--no-content", "origin"], cwd=clone, check=True, capture_output=True)

    assert (clone / "a" / "log").read_bytes() == b"1\n"
    assert git(clone.parent / "bare.git", "rev-parse", "main") == git(clone, "rev-parse", "HEAD")
    assert git(clone, "status", "--porcelain") == ""
