"""One job of a server in a process of its own: ``python -m glimmer_store.jobs.hosted FOLDER``.

It plans what ``asked.toml`` says, unless that was done before, and works on it to the end. Everything it does is
written down in the folder first, so it may be killed at any moment and started again.
"""

from __future__ import annotations

import fcntl
import shlex
import sys
from pathlib import Path

import anyio

import annexpy as annex
from glimmer_store.jobs.closing import close_job
from glimmer_store.jobs.ledger import SPEC, Ledger
from glimmer_store.jobs.plan import Plan, plan
from glimmer_store.jobs.run import run_job
from glimmer_store.jobs.spec import JobError, JobSpec, Place
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.waterfall import JobLog

__all__ = ["held_at", "main", "place"]


def place(name: str, uuid: annex.UUID, path: Path) -> Place:
    """A bare repository of the server, reached through ``annexpy-shell``: quotas hold there."""
    argv = [sys.executable, "-m", "annexpy.server.shell", "p2pstdio", str(path), str(uuid)]
    return Place(name, uuid, f"exec:{shlex.join(argv)}")


def held_at(place: Place) -> str:
    """Where such a repository is."""
    return shlex.split(place.url.removeprefix("exec:"))[-2]


async def _work(folder: Path) -> int:
    said = JobLog(folder)
    try:
        if not (folder / SPEC).exists():
            said.say("planning started", JobState.PROCESSING)
            asked = JobSpec.from_toml((folder / "asked.toml").read_text(encoding="utf-8"), str(folder))
            amount, _ = await plan(asked)
            await anyio.to_thread.run_sync(_check_room, asked, amount)
            await plan(asked, folder)
            said.say(f"planning succeeded - {amount.keys} keys, {amount.size} bytes")
        ran = await run_job(folder)
    except annex.AnnexError as error:
        said.say(f"job failed - {error}", JobState.FAILED)
        if (folder / SPEC).exists():
            await close_job(Ledger.open(folder), JobState.FAILED, {"error": str(error)})
        return 1
    return 0 if ran.state is JobState.SUCCEEDED else 1


def _check_room(spec: JobSpec, amount: Plan) -> None:
    """Refuse, before anything is moved, what would not fit into the quota of a destination."""
    if not spec.copies:
        return
    for dest in spec.dests:
        with annex.Repository.open(held_at(dest)) as repository:
            quota = repository.config.get_size("annexpy.quota")
            if quota is None:
                continue
            here = repository.content.keys()
            free = quota - sum(key.size or 0 for key in here)
            if amount.size > free:
                raise JobError(f"{dest.name}: {amount.size} bytes would go there, and the quota leaves {max(0, free)}")


def main() -> int:
    """Work on it; the exit code."""
    folder = Path(sys.argv[1])
    with (folder / "hosted.lock").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return 0  # one that outlived its server is still at it
        return anyio.run(_work, folder)


if __name__ == "__main__":
    sys.exit(main())
