"""A real git-annex dies between its two commits of a race: what it took out of the branch is back with our next one."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.interop

KEYS = [Key.parse(f"SHA256E-s{n}--{n:064x}.dat") for n in range(4)]
OURS, THEIRS = (UUID(f"{letter * 8}-0000-4000-8000-000000000000") for letter in "ab")

# The git of that git-annex. Once it has looked where the branch is, it waits; once it has moved the branch, it dies.
GIT = """#!/bin/sh
case "$*" in
*"show-ref --hash refs/heads/git-annex"*)
    git_ "$@"; code=$?
    if [ ! -e $HERE/was ]; then touch $HERE/was; echo looked >$HERE/looked; read line <$HERE/go; fi
    exit $code;;
*"update-ref refs/heads/git-annex"*)
    git_ "$@" && kill -9 $PPID;;
*)
    exec $REAL "$@";;
esac
"""


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[tuple[int, int]]:
    for name in ("looked", "go"):
        os.mkfifo(tmp_path / name)
    ends = os.open(tmp_path / "looked", os.O_RDWR), os.open(tmp_path / "go", os.O_RDWR)
    yield ends
    for end in ends:
        os.close(end)


def test_lines_that_a_dying_git_annex_took_out_are_put_back(
    tmp_path: Path, git_annex: str, pipes: tuple[int, int]
) -> None:
    (tmp_path / "bin").mkdir()
    real = subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()
    script = GIT.replace("git_ ", f"{real} ").replace("$REAL", real).replace("$HERE", str(tmp_path))
    (tmp_path / "bin/git").write_text(script)
    (tmp_path / "bin/git").chmod(0o755)
    with Repository.init(tmp_path / "r.git", bare=True) as repository:

        def theirs(*arguments: str) -> str:
            command = [git_annex, *arguments]
            return subprocess.run(command, cwd=repository.path, capture_output=True, text=True, check=True).stdout

        theirs("setpresentkey", str(KEYS[0]), THEIRS, "1")
        theirs("merge", "-q")  # from here on it has an index
        theirs("setpresentkey", str(KEYS[1]), THEIRS, "1")
        with subprocess.Popen(
            [git_annex, "merge"],
            cwd=repository.path,
            env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
            stdout=subprocess.DEVNULL,
        ) as dying:
            try:
                assert select.select([pipes[0]], [], [], 60)[0], "git-annex does not look at the branch as it did"
                for key in KEYS[:3]:
                    repository.branch.set_present(key, OURS, True)
                repository.branch.commit_now()
                theirs("setpresentkey", str(KEYS[3]), THEIRS, "1")
                os.write(pipes[1], b"go\n")
                assert dying.wait(60) < 0
            finally:
                dying.kill()
        assert not repository.branch.locations(KEYS[2]).present, "git-annex does not take lines out any more"
        theirs("merge", "-q")
        assert not repository.branch.locations(KEYS[1]).present  # its own, that we had brought into the branch

        repository.branch.merge_now()

        found = [set(repository.branch.locations(key).present) for key in KEYS]
        assert found == [{OURS, THEIRS}, {OURS, THEIRS}, {OURS}, {THEIRS}]
        for key, uuids in zip(KEYS, found, strict=True):
            shown = theirs("whereis", "--key", str(key))
            assert all(uuid in shown for uuid in uuids)
