"""A repository that was initialised, and what is recorded in it at once, survives a power cut."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from synced_disk import Disk

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

KEY = Key.parse(f"SHA256E-s3--{3:064x}")


@pytest.mark.parametrize("by_git", [False, True], ids=["new", "made by git"])
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "with a work tree"])
def test_what_was_initialised_is_there_with_what_was_recorded(
    tmp_path: Path, bare: bool, by_git: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "now"
    where = root / "vaults" / "it"
    (where.parent if by_git else root).mkdir(parents=True)
    disk = Disk(monkeypatch)
    if by_git:
        disk.sync(root)
        subprocess.run(["git", "init", "-q", *(["--bare"] if bare else []), where], check=True)
    with Repository.init(where, bare=bare, description="mine") as repository:
        uuid = repository.uuid
        repository.branch.set_present(KEY, UUID("other"), True)
        repository.branch.sync_now()

    with Repository.open(disk.left(root, tmp_path / "left") / "vaults" / "it") as left:
        assert (left.uuid, left.bare) == (uuid, bare)
        assert b"mine" in left.branch.read(b"uuid.log")
        assert left.branch.locations(KEY).present == [UUID("other")]
        left.branch.commit_now()
