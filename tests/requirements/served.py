"""``annexpy serve --http`` as a process of its own, and stock clients of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from places import ROOT

from annexpy.keys.key import Key

__all__ = ["Served", "Work", "curl", "serve"]


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], url: str, first: str) -> None:
        self.process, self.url = process, url
        self.lines = [first]
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(self.process.stderr)

    def until(self, words: str, seconds: float = 60) -> str:
        """The first line with *words* in it, which may be yet to come."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            found = next((line for line in self.lines if words in line), "")
            if found:
                return found
            assert self.process.poll() is None, self.lines
            time.sleep(0.02)  # another process: what it says is the only sign of it
        raise AssertionError(f"{words} is not in {self.lines}")

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.close()
        return code

    def close(self) -> None:
        """Hear its last words."""
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def serve(*args: str, **environment: str) -> Iterator[Served]:
    command = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from annexpy.cli.app import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", *args],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    match = re.search(r" at (\S+)/[^/]+\n", line)
    assert match, line + process.stderr.read()
    served = Served(process, match[1], line)
    try:
        yield served
    finally:
        if process.poll() is None:
            served.stop()
        else:
            served.close()


class Work:
    """A work tree of the real git-annex."""

    def __init__(self, path: Path, git_annex: str) -> None:
        self.path = path
        self.env = {**os.environ, "PATH": f"{Path(git_annex).parent}{os.pathsep}{os.environ['PATH']}"}
        self.env.pop("GIT_ASKPASS", None)
        self.env["GIT_TERMINAL_PROMPT"] = "0"

    def git(self, *argv: str, fails: bool = False) -> str:
        done = subprocess.run(
            ["git", *argv], cwd=self.path, env=self.env, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode != 0) == fails, (argv, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def begin(self, name: str) -> None:
        self.git("config", "annex.security.allowed-ip-addresses", "all")
        self.git("annex", "init", "-q", name)

    def add(self, name: str, content: bytes) -> Key:
        (self.path / name).write_bytes(content)
        self.git("annex", "add", "-q", name)
        self.git("commit", "-qm", name)
        return Key.parse(self.git("annex", "lookupkey", name).strip())

    @property
    def uuid(self) -> str:
        return self.git("config", "annex.uuid").strip()


def curl(*args: str) -> str:
    done = subprocess.run(["curl", "-sS", *args], capture_output=True, check=False, timeout=30)
    return (done.stdout + done.stderr).decode("latin-1")
