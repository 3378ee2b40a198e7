"""Runs of a job in processes that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from glimmer_store.jobs.ledger import Ledger

__all__ = ["backfill_argv", "family", "kill_session", "started"]


def backfill_argv(*words: str) -> list[str]:
    """``glimmer-store backfill …``."""
    return [sys.executable, "-m", "glimmer_store.cli.app", "backfill", *words]


def started(ledger: Ledger, *options: str) -> subprocess.Popen[bytes]:
    """``backfill run`` on a job, in a session of its own."""
    argv = backfill_argv("run", "--json", "--job", str(ledger.folder), *options)
    return subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)


def family(pid: int) -> list[int]:
    """Its children, theirs, and so on."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = [int(word) for word in task.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            found += [child, *family(child)]
    return found


def kill_session(run: subprocess.Popen[bytes]) -> None:
    """Kill all of a run, if it is still there."""
    if run.poll() is None:
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    if run.stdout is not None:
        run.stdout.close()
