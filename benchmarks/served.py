"""What a server of ours costs: memory with sixteen transfers at once, and what the campaigns of the tests measure."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.harness import annexpy, peak_of, remove, run
from benchmarks.httpd import httpd
from benchmarks.repositories import keys_of, make_pair
from benchmarks.sshd import our_sshd

__all__ = ["MOST", "campaigns", "server_memory"]

MOST = {"http": 64.0, "ssh": 96.0}
"""MiB."""
_TRANSFERS = 16
_TESTS = {
    "test_far_away.py": "presence",
    "test_one_throttled_node.py": "",
    "test_server_with_many_connections.py": "idle or sixteen",
    "../glimmer_store/test_fs_parts.py": "1G",
}
"""Files from tests/requirements, and which of their tests. What they print is what they have measured."""


def server_memory(base: Path, env: Mapping[str, str], *, size: int, durability: str) -> dict[str, float]:
    """Peak MiB of a server that sixteen contents of *size* bytes come from at once, and then go to."""
    peaks = {}
    for name in MOST:
        side = base / name
        make_pair(side, env, files=_TRANSFERS, size=size)
        subprocess.run(
            ["git", "config", "annexpy.durability", durability], cwd=side / "b.git", env=dict(env), check=True
        )
        keys = keys_of(side / "w", env)
        with _server(name, side, env, durability) as server:
            for words in (("copy", ".", "b"), ("drop", ".", "--other", "b"), ("get", "b", "-C", ".")):
                argv = [annexpy(), *words, "--batch", "--quiet", "--jobs", str(_TRANSFERS), "--durability", durability]
                run(argv, cwd=side / "w", env=env, stdin=keys)
            peaks[name] = peak_of(server)
        remove(side)
    return peaks


def _server(name: str, side: Path, env: Mapping[str, str], durability: str) -> AbstractContextManager[int]:
    if name == "http":
        return httpd(side, True, env=env, durability=durability)
    return our_sshd(side, True, env=env, durability=durability, theirs=0)


def campaigns(env: Mapping[str, str]) -> Iterator[str]:
    """What the long forms of these tests have measured, a line each; a failure is a line too."""
    folder = Path(__file__).parents[1] / "tests" / "requirements"
    for file, which in _TESTS.items():
        argv = [sys.executable, "-m", "pytest", "-q", "-s", "--campaign", "-p", "no:cacheprovider", "-k", which, file]
        done = subprocess.run(argv, cwd=folder, env=dict(env), capture_output=True, text=True, check=False)
        lines = [line.lstrip(".") for line in done.stdout.splitlines()]
        yield from (
            f"{Path(file).stem[5:]}: {line}"
            for line in lines
            if line.startswith(("{", "p99", "FAILED")) or " in " in line
        )
