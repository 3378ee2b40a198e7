"""An unlocked file loses its content only when that was dropped, not when the object is damaged or cannot be seen."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import content_of, key_of

from annexpy.keys.layout import object_paths
from annexpy.keys.pointer import pointer
from annexpy.repo.files import DiskFiles
from annexpy.repo.repository import Repository
from annexpy.repo.worktree import WorkTree

CONTENT = content_of(1)
KEY = key_of(CONTENT)
OBJECT = Path(os.fsdecode(object_paths(KEY)[1]))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    """With one unlocked file that has its content, and no object."""
    with Repository.init(tmp_path / "here") as repository:
        here = Path(repository.path)
        hashed = subprocess.run(
            ["git", "hash-object", "-w", "--stdin"], cwd=here, input=pointer(KEY), capture_output=True, check=True
        )
        blob = hashed.stdout.decode().strip()
        subprocess.run(["git", "update-index", "--add", "--cacheinfo", f"100644,{blob},file"], cwd=here, check=True)
        (here / "file").write_bytes(CONTENT)
        (here / ".git/annex/objects").mkdir(parents=True, exist_ok=True)
        yield repository


def updated(repository: Repository) -> bytes:
    """What the file has after an update."""
    assert repository.work_tree is not None
    tree, index = DiskFiles(repository.work_tree), DiskFiles(repository.worktree_git_dir)
    WorkTree(repository.files, index, tree, repository.content).update([KEY])
    return (Path(repository.path) / "file").read_bytes()


def objects(repository: Repository) -> Path:
    return Path(os.fsdecode(repository.git_dir)) / "annex/objects"


def test_a_file_whose_content_was_dropped_is_a_pointer(repository: Repository) -> None:
    assert updated(repository) == pointer(KEY)


def test_a_file_whose_object_was_cut_keeps_its_content(repository: Repository) -> None:
    cut = objects(repository) / OBJECT
    cut.parent.mkdir(parents=True)
    cut.write_bytes(CONTENT[:100])
    assert updated(repository) == CONTENT


def test_a_file_whose_object_cannot_be_looked_for_keeps_its_content(repository: Repository) -> None:
    (objects(repository) / OBJECT.parts[0]).write_bytes(b"no folder")
    assert updated(repository) == CONTENT


def test_a_file_keeps_its_content_where_all_objects_are_away(repository: Repository) -> None:
    objects(repository).rename(objects(repository).with_name("elsewhere"))
    assert updated(repository) == CONTENT
