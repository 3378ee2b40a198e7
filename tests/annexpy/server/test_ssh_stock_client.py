"""The stock git-annex, git and OpenSSH as clients of ``annexpy serve --ssh``."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from annexpy.keys.key import Key
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

ROOT = Path(__file__).parents[3]
LARGE = bytes(range(256)) * 4000


class Served:
    """A running server, the keys of its clients, and how to reach it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authorized = folder / "authorized_keys"
        self.authorized.touch(mode=0o600)
        self.known = folder / "known_hosts"
        self.lines: list[str] = []
        self.process: subprocess.Popen[str]
        self.port = 0

    def admit(self, name: str, options: str = "") -> None:
        """Make a key for *name*, and let it in."""
        identity = self.folder / name
        if not identity.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(identity)], check=True)
        with self.authorized.open("a") as file:
            file.write(f"{options} {identity.with_suffix('.pub').read_text()}".lstrip())

    def ssh(self, name: str) -> str:
        return (
            f"ssh -F none -i {self.folder / name} -o IdentitiesOnly=yes -o UserKnownHostsFile={self.known}"
            " -o StrictHostKeyChecking=yes -o BatchMode=yes"
        )

    def start(self, *args: str) -> None:
        command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from annexpy.cli.app import main; sys.exit(main())"
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-c", command, "serve", "--ssh", "127.0.0.1:0"),
                *("--authorized-keys", str(self.authorized), *args),
            ],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        match = re.search(r"ssh://127\.0\.0\.1:(\d+)/", line)
        assert match, line + self.process.stderr.read()
        self.port = int(match[1])
        self.known.write_text(f"[127.0.0.1]:{self.port} {(self.folder / 'ssh_host_ed25519_key.pub').read_text()}")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def url(self, path: str) -> str:
        return f"ssh://anybody@127.0.0.1:{self.port}/{path}"

    def run(self, name: str, *command: str, said: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """*command* by OpenSSH."""
        argv = [*self.ssh(name).split(), "-p", str(self.port), "anybody@127.0.0.1", *command]
        return subprocess.run(argv, capture_output=True, input=said, check=False, timeout=30)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(40)
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    folder = tmp_path / "served"
    folder.mkdir()
    server = Served(folder)
    yield server
    if server.process.poll() is None:
        server.stop()


class Work:
    """A work tree of the real git-annex."""

    def __init__(self, path: Path, served: Served, name: str) -> None:
        self.path = path
        self.env = os.environ | {"GIT_SSH_COMMAND": served.ssh(name), "GIT_ANNEX_USE_GIT_SSH": "1"}

    def git(self, *argv: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["git", *argv],
            cwd=self.path if self.path.exists() else self.path.parent,
            env=self.env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert (done.returncode != 0) == fails, (argv, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout + done.stderr

    def annex(self, *argv: str, fails: bool = False) -> str:
        return self.git("annex", *argv, fails=fails)


def bare(path: Path) -> Repository:
    return Repository.init(path, bare=True, description=path.name)


def test_git_annex_works_as_with_its_own_server(served: Served, tmp_path: Path, git_annex: str) -> None:
    with bare(tmp_path / "lab.git") as lab:
        served.admit("alice")
        served.start(str(tmp_path / "lab.git"))
        work = Work(tmp_path / "work", served, "alice")

        work.git("clone", "-q", served.url("lab"), "work")
        work.annex("init", "-q", "work")
        (work.path / "large").write_bytes(LARGE)
        (work.path / "small").write_bytes(b"small")
        work.annex("add", "-q", ".")
        work.git("commit", "-qm", "files")
        work.annex("sync", "-q", "--content", "origin")
        keys = [Key.parse(work.annex("lookupkey", name).strip()) for name in ("large", "small")]
        assert all(lab.content.present(key) for key in keys)
        work.annex("drop", ".")
        work.annex("get", "-J2", ".")
        assert (work.path / "large").read_bytes() == LARGE
        work.annex("fsck", "-q", "--from", "origin", ".")
        work.annex("move", "--to", "origin", "small")
        work.annex("move", "--from", "origin", "small")
        work.annex("sync", "-q", "origin")
        assert [lab.content.present(key) for key in keys] == [True, False]
        work.annex("copy", "--to", "origin", "small")
        work.annex("drop", "--from", "origin", "large")
        assert [lab.content.present(key) for key in keys] == [False, True]

        again = Work(tmp_path / "again", served, "alice")
        again.git("clone", "-q", served.url("lab"), "again")
        again.annex("init", "-q", "again")
        again.annex("get", "small")
        assert "[origin]" in again.annex("whereis", "small")
        assert served.stop() == 0
    assert any("git-receive-pack" in line and " alice ssh " in line for line in served.lines)
