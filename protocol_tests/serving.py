"""An HTTP server of a repository that the harness has made, for as long as a check lasts."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from protocol_tests.place import Unusable, fill

__all__ = ["serving"]

_START: Final = 60.0
_POLL: Final = 0.02


@contextmanager
def serving(template: str, path: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Run the command *template* in *path*, with ``{path}`` and ``{port}``; the URL above all repositories.

    Raises:
        Unusable: It ends, or does not listen within a minute.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    argv = fill(template, path=str(path), port=str(port))
    try:
        server = subprocess.Popen(
            argv,
            cwd=path,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise Unusable(f"--http-server: {error}") from error
    try:
        _wait(server, port)
        yield f"http://127.0.0.1:{port}/git-annex"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait(server: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + _START
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_POLL)
    raise Unusable(f"--http-server: it does not listen at {{port}}; exit code {server.poll()}")
