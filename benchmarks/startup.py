"""Start-up: what every command and every ssh session pays."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.harness import annexpy, git_annex

__all__ = ["startup"]


def startup(base: Path, env: Mapping[str, str], *, rounds: int = 15) -> dict[str, dict[str, float]]:
    """Milliseconds, interleaved; ``x`` is the multiple of ``python -c pass``, pair by pair."""
    bare = base / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], env=dict(env), check=True)
    subprocess.run([git_annex(), "init", "-q", "bare"], cwd=bare, env=dict(env), check=True)
    key = "SHA256-s0--e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    here = subprocess.run(["git", "config", "annex.uuid"], cwd=bare, env=dict(env), check=True, capture_output=True)
    present = ["setpresentkey", key, here.stdout.decode().strip(), "1"]
    subprocess.run([git_annex(), *present], cwd=bare, env=dict(env), check=True, capture_output=True)

    def whole(*argv: str) -> Callable[[], float]:
        def once() -> float:
            begin = time.perf_counter()
            subprocess.run(argv, env=dict(env), check=True, capture_output=True, cwd=bare)
            return time.perf_counter() - begin

        return once

    def until(argv: Sequence[str], lines: bytes, answers: int) -> Callable[[], float]:
        def once() -> float:
            begin = time.perf_counter()
            with subprocess.Popen(argv, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write(lines)
                child.stdin.flush()
                for _ in range(answers):
                    assert child.stdout.readline()
                took = time.perf_counter() - begin
                child.stdin.close()
                child.stdout.read()
            return took

        return once

    shell = [annexpy("annexpy-shell"), "p2pstdio", str(bare), "11111111-2222-4333-8444-555555555555"]
    theirs = [git_annex() + "-shell", *shell[1:]]
    theirs[0] = str(Path(env["HOME"]) / "bin" / "git-annex-shell")
    ask = f"VERSION 4\nCHECKPRESENT {key}\n".encode()
    what: dict[str, Callable[[], float]] = {
        "python -c pass": whole(sys.executable, "-c", "pass"),
        "annexpy --version": whole(annexpy(), "--version"),
        "annexpy whereis, one key": whole(annexpy(), "whereis", key),
        "annexpy-shell, AUTH-SUCCESS": until(shell, b"", 1),
        "annexpy-shell, first answer (VERSION)": until(shell, b"VERSION 4\n", 2),
        "annexpy-shell, first CHECKPRESENT": until(shell, ask, 3),
        "git-annex version --raw": whole(git_annex(), "version", "--raw"),
        "git-annex whereis, one key": whole(git_annex(), "whereis", "--key", key),
        "git-annex-shell, AUTH-SUCCESS": until(theirs, b"", 1),
        "git-annex-shell, first CHECKPRESENT": until(theirs, ask, 3),
    }
    taken: dict[str, list[float]] = {name: [] for name in what}
    for name in what:  # one run that is not counted: byte code and page cache
        what[name]()
    for _ in range(rounds):
        for name, once in what.items():
            taken[name].append(once())
    bare_python = taken["python -c pass"]
    return {
        name: {
            "ms": round(statistics.median(times) * 1000, 1),
            "x": round(statistics.median(t / p for t, p in zip(times, bare_python, strict=True)), 2),
        }
        for name, times in taken.items()
    }
