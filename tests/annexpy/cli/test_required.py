"""Required content stays, in the places and for the files that git-annex keeps it for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop


@pytest.fixture
def work(git_annex: str, tmp_path: Path) -> Path:
    """A repository with two files that ``b`` has too; one of them is required."""

    def run(*words: str) -> None:
        subprocess.run(words, cwd=path, check=True, capture_output=True)

    path = tmp_path / "work"
    Repository.init(tmp_path / "b", bare=True).close()
    Repository.init(path, description="here").close()
    run("git", "remote", "add", "b", "../b")
    (path / "docs").mkdir()
    (path / "docs/f").write_text("required")
    (path / "g").write_text("not required")
    run("git", "annex", "add", "-q", ".")
    run("git", "commit", "-qm", "two files")
    run("git", "annex", "copy", "-q", "--to", "b", ".")
    return path


def key_of(work: Path, file: str) -> str:
    return (work / file).readlink().name


def drop(git_annex: str, work: Path, cli, key: str, *, from_: str = ".") -> tuple[bool, bool]:
    """By git-annex and by us, of the same state; whether each did it."""
    before = {path: path.read_bytes() for path in work.glob(".git/annex/objects/**/*") if path.is_file()}
    said = ["drop", "--key", key] if from_ == "." else ["drop", "--key", key, "--from", from_]
    theirs = subprocess.run([git_annex, *said], cwd=work, capture_output=True, check=False).returncode == 0
    if theirs:
        other = ["--from", "b"] if from_ == "." else ["--to", from_]
        subprocess.run([git_annex, "get" if from_ == "." else "copy", "--key", key, *other], cwd=work, check=True)
    assert {path for path in before if path.is_file()} == set(before)
    return theirs, cli("-C", str(work), "drop", from_, key).code == 0


@pytest.mark.parametrize(
    ("expression", "file", "goes"),
    [
        ("include=docs/*", "docs/f", False),
        ("include=docs/*", "g", True),
        ("copies=1", "g", False),  # another copy stays, so it still matches
        ("not copies=1", "g", True),
        ("bogus", "g", True),
        ("anything", "g", False),
        ("standard", "g", False),  # in no group it means "present"
    ],
)
def test_what_is_required_here_stays_as_with_git_annex(
    work: Path, git_annex: str, cli, expression: str, file: str, goes: bool
) -> None:
    subprocess.run([git_annex, "required", ".", expression], cwd=work, capture_output=True, check=False)

    assert drop(git_annex, work, cli, key_of(work, file)) == (goes, goes)


def test_what_another_repository_requires_stays_there(work: Path, git_annex: str, cli) -> None:
    subprocess.run([git_annex, "required", "b", "include=docs/*"], cwd=work, capture_output=True, check=True)

    assert drop(git_annex, work, cli, key_of(work, "docs/f"), from_="b") == (False, False)
    assert drop(git_annex, work, cli, key_of(work, "g"), from_="b") == (True, True)


def test_a_move_leaves_what_is_required_and_a_refusal_names_it(work: Path, git_annex: str, cli) -> None:
    subprocess.run([git_annex, "required", ".", "include=docs/*"], cwd=work, capture_output=True, check=True)
    key = key_of(work, "docs/f")

    ran = cli("-C", str(work), "move", ".", "b", key)

    assert ran.code == 1
    assert "required content of here [here] as docs/f" in ran.err
    assert cli("-C", str(work), "check", ".", key).code == 0
    assert cli("-C", str(work), "drop", ".", key, "--force").code == 0
