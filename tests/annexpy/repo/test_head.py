"""Commits to what is checked out leave alone whatever somebody else is doing there."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.errors import BranchConflict, LockHeld, RepositoryError
from annexpy.repo import head as module
from annexpy.repo.carry import carry
from annexpy.repo.commits import FileChange
from annexpy.repo.head import Head
from annexpy.repo.repository import Repository


def git(*words: str, at: Path) -> str:
    done = subprocess.run(["git", *words], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture
def study(tmp_path: Path) -> Path:
    root = tmp_path / "study"
    Repository.init(root).close()
    return root


@pytest.fixture
def head(study: Path) -> Iterator[Head]:
    with Repository.open(study) as repository:
        head = Head(repository)
        yield head
        head.close()


def says(content: bytes, replaces: bytes | None = None) -> FileChange:
    return FileChange(lambda old: content, replaces=replaces)


def commit(head: Head, path: bytes, content: bytes) -> str | None:
    return head.commit({path: says(content)}, f"write {path.decode()}")


def test_the_first_commit_of_a_repository_is_made_and_git_sees_nothing_left_to_do(study: Path, head: Head) -> None:
    made = head.commit({b"a/b.md": says(b"b\n"), b"a/c.md": says(b"c\n"), b"top": says(b"t\n")}, "three files")

    assert git("rev-parse", "HEAD", at=study).strip() == made == head.tip
    assert git("ls-files", at=study).split() == ["a/b.md", "a/c.md", "top"]
    assert git("status", "--porcelain", at=study) == ""
    assert (study / "a" / "c.md").read_bytes() == b"c\n"
    assert git("diff-files", at=study) == ""  # without looking into the files
    git("fsck", "--strict", at=study)


def test_what_says_so_already_is_no_commit(head: Head) -> None:
    commit(head, b"a", b"1")

    assert commit(head, b"a", b"1") is None


def test_what_is_staged_stays_staged_and_what_is_edited_stays_edited(study: Path, head: Head) -> None:
    for name in ("edited", "staged", "ours"):
        (study / name).write_text("before\n")
    git("add", ".", at=study)
    git("commit", "-qm", "begin", at=study)
    (study / "staged").write_text("staged\n")
    (study / "new").write_text("new\n")
    git("add", "staged", "new", at=study)
    (study / "edited").write_text("edited\n")
    (study / "untracked").write_text("untracked\n")
    before = git("status", "--porcelain", at=study)

    head.commit({b"ours": says(b"after\n"), b"mine.md": says(b"mine\n")}, "ours")

    assert git("status", "--porcelain", at=study) == before
    assert git("show", "HEAD:ours", at=study) == "after\n"
    assert git("show", "HEAD:staged", at=study) == "before\n"
    git("commit", "-qm", "theirs", at=study)
    assert git("show", "HEAD:mine.md", at=study) == "mine\n"


def test_a_file_of_ours_that_somebody_edited_is_committed_and_keeps_their_edit(study: Path, head: Head) -> None:
    commit(head, b"node.md", b"one\n")
    (study / "node.md").write_bytes(b"edited\n")

    commit(head, b"node.md", b"two\n")

    assert (study / "node.md").read_bytes() == b"edited\n"
    assert git("show", "HEAD:node.md", at=study) == "two\n"


def test_a_content_that_may_be_replaced_is(study: Path, head: Head) -> None:
    (study / "node.md").write_bytes(b"by hand\n")

    head.commit({b"node.md": says(b"two\n", replaces=b"by hand\n")}, "fill in")

    assert (study / "node.md").read_bytes() == b"two\n"
    assert git("status", "--porcelain", at=study) == ""


def test_a_log_that_somebody_edited_gets_our_lines_too(study: Path, head: Head) -> None:
    def add(line: bytes) -> FileChange:
        return FileChange(lambda old: (old or b"") + line, merges=True)

    head.commit({b"log": add(b"one\n")}, "log")
    with (study / "log").open("ab") as file:
        file.write(b"theirs\n")
    head.commit({b"log": add(b"two\n")}, "log")

    assert git("show", "HEAD:log", at=study) == "one\ntwo\n"
    assert (study / "log").read_bytes() == b"one\ntheirs\ntwo\n"


def test_our_own_path_that_the_user_has_staged_keeps_what_they_staged(study: Path, head: Head) -> None:
    commit(head, b"node.md", b"one\n")
    (study / "node.md").write_bytes(b"theirs\n")
    git("add", "node.md", at=study)

    commit(head, b"node.md", b"two\n")

    assert git("show", ":node.md", at=study) == "theirs\n"


def test_a_detached_head_moves(study: Path, head: Head) -> None:
    first = commit(head, b"a", b"1")
    git("checkout", "-q", "--detach", at=study)

    second = commit(head, b"a", b"2")

    assert head.branch is None
    assert git("rev-parse", "HEAD", "HEAD~1", at=study).split() == [second, first]
    assert git("status", "--porcelain", at=study) == ""


def test_a_linked_worktree_has_a_head_of_its_own(study: Path, head: Head) -> None:
    commit(head, b"a", b"1")
    git("worktree", "add", "-q", "-b", "other", "../linked", at=study)

    with Repository.open(study.parent / "linked") as linked:
        other = Head(linked)
        other.commit({b"b": says(b"2")}, "there")
        other.close()

    assert git("status", "--porcelain", at=study.parent / "linked") == ""
    assert git("ls-tree", "--name-only", "other", at=study).split() == ["a", "b"]
    assert git("ls-tree", "--name-only", "HEAD", at=study).split() == ["a"]


@pytest.mark.parametrize("version", ["2", "3", "4"])
@pytest.mark.parametrize("extra", [[], ["-c", "core.untrackedCache=true"], ["-c", "index.skipHash=true"]])
def test_every_kind_of_index_is_updated(study: Path, head: Head, version: str, extra: list[str]) -> None:
    for name in ("a", "m/n", "m/x/y", "z" * 200):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text(name)
    git("add", ".", at=study)
    git("commit", "-qm", "begin", at=study)
    (study / "later").write_text("later")
    git("add", "-N", "later", at=study)  # an entry with extended flags
    git(*extra, "update-index", "--index-version", version, at=study)

    head.commit({b"m/o.md": says(b"o"), b"a": says(b"2"), b"m-": says(b"3")}, "ours")

    assert git("status", "--porcelain", at=study) == " A later\n"
    assert git("ls-files", at=study).split() == ["a", "later", "m-", "m/n", "m/o.md", "m/x/y", "z" * 200]
    git("fsck", "--strict", at=study)


@pytest.mark.parametrize("kind", ["split", "sparse"])
def test_an_index_that_is_split_or_sparse_is_left_to_git(study: Path, head: Head, kind: str) -> None:
    for name in ("a/a", "b/b"):
        (study / name).parent.mkdir()
        (study / name).write_text(name)
    git("add", ".", at=study)
    git("commit", "-qm", "begin", at=study)
    if kind == "split":
        git("update-index", "--split-index", at=study)
    else:
        git("sparse-checkout", "set", "--cone", "--sparse-index", "a", at=study)

    commit(head, b"a/node.md", b"1")

    assert git("status", "--porcelain", at=study) == ""


def test_an_index_that_git_keeps_locked_is_named(study: Path, head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_INDEX_TRIES", 2)
    (study / ".git" / "index.lock").write_bytes(b"")

    with pytest.raises(LockHeld, match=r"index\.lock"):
        commit(head, b"a", b"1")
    (study / ".git" / "index.lock").unlink()

    assert git("show", "HEAD:a", at=study) == "1"
    head.commit({b"a": says(b"1")}, "again")
    assert git("status", "--porcelain", at=study) == ""


def test_locks_that_a_kill_left_are_known_and_removed(study: Path, head: Head) -> None:
    first = commit(head, b"a", b"1")
    git_dir, branch = study / ".git", head.branch
    assert branch is not None
    assert first is not None
    (git_dir / "index.lock").write_bytes(b"annexpy\n")
    (git_dir / f"{branch}.lock").write_text("f" * 40 + "\n")
    (git_dir / "annexpy-head").write_text(f"{branch}\0{'f' * 40}\0a\0")

    commit(head, b"a", b"2")

    assert git("status", "--porcelain", at=study) == ""
    assert sorted(path.name for path in git_dir.rglob("*.lock")) == []


def test_a_kill_between_commit_and_index_is_completed_by_the_next_commit(
    study: Path, head: Head, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(head, b"a", b"1")

    class Killed(BaseException):
        pass

    def kill(self: Head, staged: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Head, "_stage", kill)
        with pytest.raises(Killed):
            head.commit({b"a": says(b"2"), b"b": says(b"3")}, "killed")
    assert git("status", "--porcelain", at=study) != ""

    commit(head, b"c", b"4")

    assert git("status", "--porcelain", at=study) == ""


def test_the_reflog_tells_of_it(study: Path, head: Head) -> None:
    (study / "x").write_text("x")
    git("add", "x", at=study)
    git("commit", "-qm", "begin", at=study)

    commit(head, b"a", b"1")

    assert git("reflog", "--format=%gs", at=study).splitlines() == ["commit: write a", "commit (initial): begin"]


def test_a_path_that_no_tree_can_hold_is_refused(head: Head) -> None:
    with pytest.raises(RepositoryError, match="git tree"):
        commit(head, b".git/config", b"")


# -- carrying it to other repositories --


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "bare.git", bare=True) as repository:
        yield repository


def carried(study: Path, bare: Repository, head: Head) -> bool:
    assert head.tip is not None
    with Repository.open(study) as repository:
        return carry(repository, bare, {b"refs/heads/main": head.tip.encode()})


def test_the_whole_history_arrives_and_then_only_what_is_new(study: Path, head: Head, bare: Repository) -> None:
    for number in range(3):
        commit(head, b"a/b", b"%d" % number)
    assert carried(study, bare, head)
    assert not carried(study, bare, head)

    packs = {path.name for path in Path(bare.path, "objects/pack").glob("*.pack")}
    commit(head, b"a/c", b"new")
    assert carried(study, bare, head)

    (new,) = (p for p in Path(bare.path, "objects/pack").glob("*.pack") if p.name not in packs)
    assert int.from_bytes(new.read_bytes()[8:12], "big") == 4  # commit, two trees, blob
    assert git("rev-list", "--count", "main", at=Path(bare.path)).strip() == "4"
    git("fsck", "--strict", at=Path(bare.path))


def test_what_a_remote_has_by_itself_is_never_overwritten(study: Path, head: Head, bare: Repository) -> None:
    commit(head, b"a", b"1")
    carried(study, bare, head)
    git("clone", "-q", bare.path, "other", at=study.parent)
    git("checkout", "-q", "main", at=study.parent / "other")
    (study.parent / "other" / "theirs").write_text("theirs")
    git("add", "theirs", at=study.parent / "other")
    git("commit", "-qm", "theirs", at=study.parent / "other")
    git("push", "-q", "origin", "main", at=study.parent / "other")
    theirs = git("rev-parse", "main", at=Path(bare.path))

    commit(head, b"a", b"2")
    with pytest.raises(BranchConflict, match="commits that are not here"):
        carried(study, bare, head)

    assert git("rev-parse", "main", at=Path(bare.path)) == theirs
    git("pull", "-q", "--no-rebase", "--no-edit", str(bare.path), "main", at=study)
    assert carried(study, bare, head)
    assert os.path.exists(bare.path)
    git("fsck", "--strict", at=Path(bare.path))
