"""What a real git-annex takes out of the branch is back with our next commit.

It does so when it dies between the two commits of a race, and when its git tells it of the branch as it was.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID, WEB

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


# The git of a git-annex that beside `git pack-refs` is told of a branch that has no location log yet.
OLD_GIT = """#!{python}
import os, subprocess, sys
if sys.argv[-2:] != ["cat-file", "--batch"]:
    os.execv("{real}", ["{real}", *sys.argv[1:]])
with subprocess.Popen(["{real}", *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as git:
    for line in sys.stdin.buffer:
        if line.startswith(b"refs/heads/git-annex:") and line.endswith(b".dat.log\\n"):
            answer = line[:-1] + b" missing\\n"
        else:
            git.stdin.write(line)
            git.stdin.flush()
            answer = git.stdout.readline()
            if answer.split()[-1].isdigit():
                answer += git.stdout.read(int(answer.split()[-1]) + 1)
        sys.stdout.buffer.write(answer)
        sys.stdout.buffer.flush()
"""


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[tuple[int, int]]:
    for name in ("looked", "go"):
        os.mkfifo(tmp_path / name)
    ends = os.open(tmp_path / "looked", os.O_RDWR), os.open(tmp_path / "go", os.O_RDWR)
    yield ends
    for end in ends:
        os.close(end)


def real_git() -> str:
    return subprocess.run(["sh", "-c", "command -v git"], capture_output=True, text=True, check=True).stdout.strip()


def with_git(path: Path, script: str) -> dict[str, str]:
    """The environment of a git-annex whose git is *script*."""
    (path / "bin").mkdir()
    (path / "bin/git").write_text(script)
    (path / "bin/git").chmod(0o755)
    return os.environ | {"PATH": f"{path / 'bin'}:{os.environ['PATH']}"}


def test_lines_that_a_dying_git_annex_took_out_are_put_back(
    tmp_path: Path, git_annex: str, pipes: tuple[int, int]
) -> None:
    real = real_git()
    environment = with_git(
        tmp_path, GIT.replace("git_ ", f"{real} ").replace("$REAL", real).replace("$HERE", str(tmp_path))
    )
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
            env=environment,
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


def test_lines_that_a_git_annex_wrote_over_are_put_back(tmp_path: Path, git_annex: str) -> None:
    """They were another git-annex's, and no commit of ours has had them."""
    told_old = with_git(tmp_path, OLD_GIT.format(python=sys.executable, real=real_git()))
    with Repository.init(tmp_path / "r.git", bare=True) as repository:

        def theirs(*arguments: str, env: dict[str, str] | None = None) -> str:
            command = [git_annex, *arguments]
            return subprocess.run(
                command, cwd=repository.path, env=env, capture_output=True, text=True, check=True
            ).stdout

        repository.branch.set_present(KEYS[0], OURS, True)
        repository.branch.commit_now()
        for key in KEYS[:2]:
            theirs("setpresentkey", str(key), THEIRS, "1")
        theirs("merge", "-q")
        for key in KEYS[:2]:
            theirs("registerurl", str(key), "http://127.0.0.1/1", env=told_old)
        theirs("merge", "-q")
        assert repository.branch.locations(KEYS[1]).present == [WEB], "git-annex does not take lines out any more"

        repository.branch.merge_now()

        found = [set(repository.branch.locations(key).present) for key in KEYS[:2]]
        assert found == [{OURS, THEIRS, WEB}, {THEIRS, WEB}]
        for key, uuids in zip(KEYS, found, strict=False):
            shown = theirs("whereis", "--key", str(key))
            assert all(uuid in shown for uuid in uuids)
