"""Unlocked files, with git and the real git-annex as judges."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
from pathlib import Path

import anyio
import pytest

from annexpy.errors import UnsupportedRepository
from annexpy.keys.key import Key
from annexpy.keys.pointer import pointer
from annexpy.remote.local import Local
from annexpy.repo.files import DiskFiles
from annexpy.repo.gitindex import GitIndex
from annexpy.repo.repository import Repository
from annexpy.repo.worktree import WorkTree, WorkTreeChanges

pytestmark = pytest.mark.interop

FILES = {"d/plain": b"one\n" * 100, "run me": b"#!/bin/sh\n", "d/copy": b"one\n" * 100, "locked": b"stays a link"}


def key_of(data: bytes) -> Key:
    return Key.parse(f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}")


def git(repository: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=repository, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, git_annex: str) -> Path:
    path = tmp_path_factory.mktemp("template") / "tree"
    path.mkdir()
    git(path, "init", "-q")
    git(path, "annex", "init", "tree")
    git(path, "config", "annex.backend", "SHA256E")
    for name, content in FILES.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(content)
    (path / "run me").chmod(0o755)
    git(path, "annex", "add", "-q", ".")
    (path / "not annexed").write_text("small")
    git(path, "annex", "add", "-q", "--force-small", "not annexed")
    git(path, "annex", "unlock", "-q", "d", "run me")
    git(path, "commit", "-qm", "files")
    git(path, "annex", "drop", "-q", "--force", ".")
    for name in ("d/plain", "run me", "d/copy"):
        assert (path / name).read_bytes() == pointer(key_of(FILES[name]))
    return path


@pytest.fixture
def tree(template: Path, tmp_path: Path) -> Path:
    """A repository with unlocked files whose contents are elsewhere."""
    shutil.copytree(template, tmp_path / "tree", symlinks=True)
    assert git(tmp_path / "tree", "status", "--short") == ""
    return tmp_path / "tree"


async def store(local: Local, *contents: bytes) -> None:
    for content in contents:
        async with local.put(key_of(content)) as upload:
            if upload.already is None:
                await upload.start(len(content))
                await upload.write(content)
                await upload.finish()


def change(tree: Path, *, put: tuple[bytes, ...] = (), remove: tuple[bytes, ...] = ()) -> WorkTreeChanges | None:
    with Repository.open(tree) as repository:
        local = Local(repository)

        async def main() -> WorkTreeChanges | None:
            await store(local, *put)
            for content in remove:
                assert (await local.remove_content(key_of(content))).ok
            changes = await local.update_work_tree()
            await local.aclose()
            return changes

        return anyio.run(main)


def test_pointers_get_their_content_and_git_sees_no_change(tree: Path, git_annex: str) -> None:
    changes = change(tree, put=tuple(set(FILES.values())))

    assert changes is not None
    assert sorted(changes.filled) == [b"d/copy", b"d/plain", b"run me"]
    assert changes.kept == {}
    assert git(tree, "status", "--short") == ""
    for name, content in FILES.items():
        assert (tree / name).read_bytes() == content
        assert bool((tree / name).stat().st_mode & 0o100) == (name == "run me")
    assert (tree / "locked").is_symlink()
    assert git(tree, "annex", "fsck", "-q") == ""
    git(tree, "fsck", "--strict")
    git(tree, "annex", "drop", "--force", ".")
    assert (tree / "d/plain").read_bytes() == pointer(key_of(FILES["d/plain"]))
    assert git(tree, "status", "--short") == ""


def test_files_become_pointers_again_when_their_content_goes(tree: Path, git_annex: str) -> None:
    git(tree, "config", "annex.numcopies", "1")
    change(tree, put=tuple(set(FILES.values())))

    changes = change(tree, remove=(FILES["d/plain"], FILES["run me"]))

    assert changes is not None
    assert sorted(changes.emptied) == [b"d/copy", b"d/plain", b"run me"]
    for name in ("d/plain", "d/copy", "run me"):
        assert (tree / name).read_bytes() == pointer(key_of(FILES[name]))
    assert (tree / "run me").stat().st_mode & 0o100
    assert git(tree, "status", "--short") == ""


def test_what_the_user_changed_is_left_alone(tree: Path) -> None:
    (tree / "d/plain").write_text("mine now")
    (tree / "d/copy").unlink()

    changes = change(tree, put=(FILES["d/plain"],))
    assert changes is not None
    assert changes.filled == []
    assert (tree / "d/plain").read_text() == "mine now"
    assert not (tree / "d/copy").exists()

    changes = change(tree, remove=(FILES["d/plain"],))
    assert changes is not None
    assert changes.kept == {b"d/plain": "it was modified"}
    assert (tree / "d/plain").read_text() == "mine now"


def test_a_directory_that_became_a_link_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tree / "d").rename(tmp_path / "outside")
    (tree / "d").symlink_to(tmp_path / "outside")

    changes = change(tree, put=(FILES["d/plain"],))

    assert changes is not None
    assert set(changes.kept) == {b"d/plain", b"d/copy"}
    assert (tmp_path / "outside/plain").read_bytes() == pointer(key_of(FILES["d/plain"]))


def test_a_locked_index_is_left_to_git_annex_restage(tree: Path, git_annex: str) -> None:
    (tree / ".git/index.lock").touch()

    changes = change(tree, put=(FILES["d/plain"],))

    assert changes is not None
    assert changes.restage
    assert (tree / "d/plain").read_bytes() == FILES["d/plain"]
    (tree / ".git/index.lock").unlink()
    assert git(tree, "status", "--short") == " M d/copy\n M d/plain\n"
    git(tree, "annex", "restage")
    assert git(tree, "status", "--short") == ""


def test_git_annex_restage_understands_what_was_left_to_it_whatever_the_time(tree: Path, git_annex: str) -> None:
    """The fraction of a second has nine digits: git-annex reads them as what stands behind the point."""
    change(tree, put=(FILES["run me"],))
    for name, nanoseconds in (("d/plain", 12_345_678), ("d/copy", 9)):
        (tree / name).write_bytes(FILES[name])
        os.utime(tree / name, ns=(10**18 + nanoseconds, 10**18 + nanoseconds))
    with Repository.open(tree) as repository:
        files, store = repository.files, repository.content
        done = {name.encode(): (tree / name).stat() for name in ("d/plain", "d/copy")}
        WorkTree(files, files, DiskFiles(tree), store)._leave_to_restage(done)
    change(tree, put=(FILES["d/plain"],))
    assert git(tree, "status", "--short") == " M d/copy\n M d/plain\n"

    git(tree, "annex", "restage")

    assert git(tree, "status", "--short") == ""


def test_thin_files_share_the_object(tree: Path, git_annex: str) -> None:
    git(tree, "config", "annex.thin", "true")

    change(tree, put=(FILES["d/plain"], FILES["run me"]))

    with Repository.open(tree) as repository:
        path = repository.content.path(key_of(FILES["d/plain"]))
        assert path is not None
        object_path = tree / ".git" / os.fsdecode(path)
        linked = {name for name in ("d/plain", "d/copy") if (tree / name).samefile(object_path)}
        assert linked
        assert stat.S_IMODE(object_path.stat().st_mode) == 0o644
        assert not (tree / "run me").samefile(object_path)
        assert repository.content.present(key_of(FILES["d/plain"]))
        assert git(tree, "status", "--short") == ""
        assert git(tree, "annex", "fsck", "-q", "d", "run me") == ""

        with open(tree / linked.pop(), "a") as file:
            file.write("more")
        assert not repository.content.present(key_of(FILES["d/plain"]))


@pytest.mark.parametrize("version", ["2", "3", "4"])
def test_every_version_of_the_index_keeps_all_that_is_in_it(tree: Path, git_annex: str, version: str) -> None:
    git(tree, "update-index", "--index-version", version)
    if version != "2":
        git(tree, "update-index", "--skip-worktree", "locked")
    before = git(tree, "ls-files", "--stage", "-v")

    change(tree, put=(FILES["d/plain"], FILES["run me"]))

    assert git(tree, "ls-files", "--stage", "-v") == before
    assert git(tree, "status", "--short") == ""
    index = GitIndex((tree / ".git/index").read_bytes())
    assert [entry.path.decode() for entry in index.entries()] == git(tree, "ls-files").split("\n")[:-1]


def test_an_index_in_two_files_is_refused_by_name(tree: Path) -> None:
    git(tree, "update-index", "--split-index")
    (tree / "new").write_text("x")
    git(tree, "add", "new")

    with pytest.raises(UnsupportedRepository, match="splitIndex"):
        change(tree, put=(FILES["d/plain"],))


def test_a_damaged_index_is_refused() -> None:
    for data in (b"", b"DIRC" + b"\0" * 40, b"DIRC\0\0\0\2\0\0\0\5" + b"\1" * 40):
        with pytest.raises(UnsupportedRepository):
            list(GitIndex(data).entries())


def test_bare_repositories_have_no_work_tree_to_update(tmp_path: Path) -> None:
    Repository.init(tmp_path / "r.git", bare=True).close()

    assert change(tmp_path / "r.git", put=(b"x",)) is None
