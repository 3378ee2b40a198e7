"""``annexpy matchexpression`` says and exits as ``git annex matchexpression`` does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

KEY = "SHA256E-s100--abc.txt"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    with Repository.init(path) as made:
        made.branch.set_present(Key.parse(KEY), UUID("other"), True)
        made.branch.commit_now()
    return path


CASES = [
    (["anything"], 0),
    (["include=*.txt and copies=1", "--key", KEY, "--file", "a.txt"], 0),
    (["include=*.txt and copies=2", "--key", KEY, "--file", "a.txt"], 1),
    (["largerthan=1kb", "--size", "2 kb"], 0),
    (["largerthan=1kb", "--size", "2 kb", "--key", KEY], 1),
    (["largerthan=1kb", "--size", "2kb", "--key", "URL--x"], 0),
    (["not present or anything", "--key", KEY], 1),
    (["standard", "--key", KEY], 0),
    (["balanced=nosuch", "--key", KEY], 1),
    (["copies=1"], 42),
    (["include=*"], 42),
    (["largerthan=1", "--key", "URL--x"], 42),
    (["include=* and bogus", "--file", "x"], 42),
]


@pytest.mark.interop
@pytest.mark.parametrize(("words", "code"), CASES)
def test_it_exits_as_git_annex_does(repository: Path, git_annex: str, cli, words: list[str], code: int) -> None:
    theirs = subprocess.run([git_annex, "matchexpression", *words], cwd=repository, capture_output=True, check=False)
    ours = cli("-C", str(repository), "matchexpression", *words)

    assert theirs.returncode == code
    assert ours.code == code
    assert ours.out == b""
    assert bool(ours.err) == (code == 42)


@pytest.mark.parametrize("words", [["anything", "--key", "x"], ["anything", "--size", "x"], []])
def test_wrong_usage_is_no_answer(repository: Path, cli, words: list[str]) -> None:
    assert cli("-C", str(repository), "matchexpression", *words).code == 2


def test_a_term_that_is_none_is_named_with_its_place(repository: Path, cli) -> None:
    ran = cli("-C", str(repository), "matchexpression", "include=* and bogus=1")

    assert "term at 14 'bogus=1'" in ran.err
