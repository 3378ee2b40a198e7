"""The stock git-annex works against a repository of ours through ``annexpy-shell``, over a stand-in for ssh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[3]
FAKE_SSH = """\
#!/bin/sh
# Options, then a host: there is only one, and it is here.
while [ $# -gt 0 ]; do
    case "$1" in
        -o|-p|-F|-i|-S|-l|-E) shift 2;;
        -*) shift;;
        *) break;;
    esac
done
case "$1" in
    *host.invalid) shift;;
    *) echo "no route to $1" >&2; exit 255;;
esac
exec sh -c "$*"
"""


class Work:
    """A work tree of the real git-annex with one remote, served by us."""

    def __init__(self, base: Path, git_annex: str) -> None:
        self.bare, self.path = base / "bare", base / "work"
        ssh, shell = base / "ssh", base / "annexpy-shell"
        ssh.write_text(FAKE_SSH)
        shell.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(ROOT)!r})\n"
            "from annexpy.server.shell import main\nsys.exit(main())\n"
        )
        ssh.chmod(0o755)
        shell.chmod(0o755)
        self.env = {
            **os.environ,
            "GIT_SSH_COMMAND": str(ssh),
            "GIT_ANNEX_USE_GIT_SSH": "1",
            "PATH": f"{Path(git_annex).parent}{os.pathsep}{os.environ['PATH']}",
        }
        self.path.mkdir()
        self.git("init", "-q")
        self.git("annex", "init", "-q", "work")
        self.git("remote", "add", "srv", f"user@host.invalid:{self.bare}")
        self.git("config", "remote.srv.annex-shell", str(shell))

    def git(self, *argv: str, fails: bool = False, **env: str) -> str:
        done = subprocess.run(
            ["git", *argv],
            cwd=self.path,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert (done.returncode != 0) == fails, (argv, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def add(self, name: str, content: bytes) -> Key:
        (self.path / name).write_bytes(content)
        self.git("annex", "add", "-q", name)
        self.git("commit", "-qm", name)
        return Key.parse(self.git("annex", "lookupkey", name).strip())


@pytest.fixture
def work(tmp_path: Path, git_annex: str) -> Work:
    made = Work(tmp_path, git_annex)
    Repository.init(made.bare, bare=True).close()
    return made


def test_the_usual_commands_agree(work: Work) -> None:
    small, large = work.add("small", b"small\n"), work.add("large", bytes(range(256)) * 4000)
    bare = Repository.open(work.bare)
    work.git("annex", "copy", "--to", "srv", ".")
    assert bare.content.present(small)
    assert bare.content.present(large)

    work.git("annex", "drop", ".")
    assert not (work.path / "large").exists()
    work.git("annex", "get", ".")
    assert (work.path / "large").read_bytes() == bytes(range(256)) * 4000

    work.git("annex", "move", "--to", "srv", "small")
    work.git("annex", "move", "--from", "srv", "small")
    assert not bare.content.present(small)
    work.git("annex", "drop", "--from", "srv", "large")
    assert not bare.content.present(large)
    work.git("annex", "copy", "--to", "srv", ".")
    work.git("annex", "fsck", "--from", "srv", ".")

    work.git("annex", "sync", "srv")
    me = work.git("config", "annex.uuid").strip()
    with Repository.open(work.bare) as opened:
        for key in (small, large):
            assert set(opened.branch.locations(key).present) == {me, opened.uuid}
    said = subprocess.run(
        ["git", "annex", "fsck", "--all"], cwd=work.bare, env=work.env, capture_output=True, text=True, check=True
    ).stdout
    assert "failed" not in said
    subprocess.run(["git", "fsck", "--strict"], cwd=work.bare, capture_output=True, check=True)
    bare.close()


def test_a_fresh_bare_repository_becomes_an_annex_when_the_branch_is_pushed(work: Work) -> None:
    subprocess.run(["rm", "-r", str(work.bare)], check=True)
    subprocess.run(["git", "init", "-q", "--bare", str(work.bare)], check=True)
    key = work.add("file", b"content")
    work.git("push", "-q", "srv", "git-annex", "HEAD:main")
    work.git("annex", "copy", "--to", "srv", "file")
    with Repository.open(work.bare) as opened:
        assert opened.content.present(key)


def test_an_interrupted_upload_is_resumed(work: Work) -> None:
    content = bytes(range(256)) * 1000
    key = work.add("file", content)
    with Repository.open(work.bare) as opened:
        opened.files.make_folders(b"annex/tmp")
        opened.files.replace(b"annex/tmp/" + key.raw, content[:100_000])
    said = work.git("annex", "copy", "--debug", "--to", "srv", "file")
    assert "PUT-FROM 100000" in said
    with Repository.open(work.bare) as opened:
        assert opened.content.present(key)


def test_content_that_is_locked_is_not_dropped_and_the_client_says_so(work: Work) -> None:
    key = work.add("file", b"content")
    work.git("annex", "copy", "--to", "srv", "file")
    with Repository.open(work.bare) as opened:
        lock = opened.content.lock(key)
        assert "failed" in work.git("annex", "drop", "--from", "srv", "file", fails=True)
        lock.release()
    work.git("annex", "drop", "--from", "srv", "file")


def test_restricted_accounts_are_restricted(work: Work) -> None:
    key = work.add("file", b"content")
    said = work.git("annex", "copy", "--to", "srv", "file", fails=True, GIT_ANNEX_SHELL_READONLY="1")
    assert "failed" in said
    work.git("annex", "copy", "--to", "srv", "file", GIT_ANNEX_SHELL_APPENDONLY="1")
    work.git("annex", "drop", "--from", "srv", "file", fails=True, GIT_ANNEX_SHELL_APPENDONLY="1")
    with Repository.open(work.bare) as opened:
        assert opened.content.present(key)
