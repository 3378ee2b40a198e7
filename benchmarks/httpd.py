"""HTTP servers on loopback for one repository: ``git annex p2phttp`` or ours."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import annexpy, git_annex
from benchmarks.repositories import git

__all__ = ["httpd"]


@contextmanager
def httpd(side: Path, ours: bool, *, env: Mapping[str, str], durability: str) -> Iterator[int]:
    """Serves ``side/b.git`` for as long as the block lasts; ``side/w`` is told where. Yields the process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = f"127.0.0.1:{port}"
    if ours:
        argv = [annexpy(), "serve", "--http", place, "--wideopen", "--quiet", "--durability", durability, "."]
    else:
        argv = [
            git_annex(),
            "p2phttp",
            "--wideopen",
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "-J2",
        ]  # with fewer it says so and ends
    git("git", "config", "remote.b.annexUrl", f"annex+http://{place}/git-annex/", cwd=side / "w", env=env)
    git("git", "config", "annex.security.allowed-ip-addresses", "all", cwd=side / "w", env=env)
    null = subprocess.DEVNULL
    server = subprocess.Popen(argv, cwd=side / "b.git", env=dict(env), stdin=null, stdout=null, stderr=null)
    try:
        for _ in range(400):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise RuntimeError(f"{argv[0]} does not listen")
        yield server.pid
    finally:
        server.terminate()
        server.wait(30)
