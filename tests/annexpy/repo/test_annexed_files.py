"""Files have the keys that git-annex says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.annexed_files import FilesOfKeys, read_index
from annexpy.repo.files import DiskFiles
from annexpy.repo.objects import Objects


def git(path: Path, *words: str) -> None:
    subprocess.run(["git", *words], cwd=path, capture_output=True, check=True, timeout=60)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    return tmp_path


@pytest.mark.interop
def test_the_files_of_a_key_are_those_that_git_annex_finds(tree: Path, git_annex: str) -> None:
    def annex(*words: str) -> bytes:
        return subprocess.run([git_annex, *words], cwd=tree, capture_output=True, check=True).stdout

    annex("init")
    (tree / "d/e").mkdir(parents=True)
    for name in ("one", "two", "d/e/one again", "unlocked", "plain"):
        (tree / name).write_text("plain\n" if name == "plain" else f"content {'one' if 'one' in name else name}\n")
    annex("add", "one", "two", "d")
    git(tree, "-c", "annex.largefiles=nothing", "add", "plain")
    annex("add", "unlocked")
    annex("unlock", "unlocked", "two")
    git(tree, "add", "-A")

    files = FilesOfKeys(read_index(os.fsencode(tree / ".git")), Objects(DiskFiles(tree / ".git")))

    for name in ("one", "two", "d/e/one again", "unlocked"):
        key = Key.parse(annex("lookupkey", name).strip())
        expected = {b"one", b"d/e/one again"} if "one" in name else {name.encode()}
        assert set(files.of(key)) == expected
    assert sorted(files.paths) == [b"d/e/one again", b"one", b"plain", b"two", b"unlocked"]
    assert files.of(Key.parse(b"MD5--x")) == []


def test_a_repository_without_index_has_no_files(tree: Path) -> None:
    assert read_index(os.fsencode(tree / ".git")) == []
