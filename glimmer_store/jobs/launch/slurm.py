"""Workers as a job array of Slurm: a script that names shards, and the commands that hand it in.

An array has few tasks (``MaxArraySize``, often 1001), and a job has many keys: so the tasks of an array are counted in
shards, and when there are more shards than tasks each takes every Nth. The list of shards is frozen in a file beside
the script, so that a task that is requeued does the same again, and finds what is settled already.

A task that is requeued, or runs into its time limit, loses nothing: its lease expires, and what it had copied is found
by the next. No process has to stay for the array to finish.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from glimmer_store.entry import write_whole
from glimmer_store.jobs.launch.base import Launched, worker_argv
from glimmer_store.jobs.spec import JobError

__all__ = ["Array", "SlurmLauncher", "script", "submit"]

_MOST = 1001
"""Tasks of an array where nobody says otherwise (Slurm's default of MaxArraySize)."""
_POLL = 0.5, 15.0
"""Shortest and longest pause between two looks at the queue, in seconds."""
_UNANSWERED = 40
"""Looks in a row that get no answer, until the launcher gives up."""
_WORD = re.compile(r"[\w.:=,@%+/\[\]-]+")


@dataclass(frozen=True, slots=True)
class Array:
    """One job array.

    Attributes:
        job: Folder of the job.
        shards: File with the names of the shards, one on each line.
        count: How many those are.
        throttle: Tasks that may run at once; 0: as many as Slurm lets.
        most: Tasks that an array may have.
        options: Further options of sbatch, as ``--partition=long``.
    """

    job: Path
    shards: Path
    count: int
    throttle: int = 0
    most: int = _MOST
    options: tuple[str, ...] = ()

    @property
    def tasks(self) -> int:
        """How many tasks it has."""
        return min(self.count, self.most)


def script(array: Array) -> str:
    """The batch script of *array*.

    Raises:
        JobError: An option that is none; no shards.
    """
    if array.count < 1 or array.most < 1:
        raise JobError("an array needs a shard and a task", remedy="nothing is left to be done, or --max-array is 0")
    for option in array.options:
        if not option.startswith("-") or not _WORD.fullmatch(option):
            raise JobError(f"{option!r} is no option of sbatch", remedy="give it as --partition=long")
    limit = f"%{array.throttle}" if array.throttle else ""
    folder = array.shards.parent
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name=glimmer-{array.job.name}",
        f"#SBATCH --array=0-{array.tasks - 1}{limit}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        "#SBATCH --signal=B:TERM@60",
        f"#SBATCH --output={_escaped(folder)}/%A_%a.out",
        *(f"#SBATCH {option}" for option in array.options),
        "# Workers of a glimmer-store job, one for every Nth of its shards. The ledger in the folder of the job says",
        "# what is done: this can be handed in again, stopped and requeued at any time.",
        "set -eu",
        f"mapfile -t shards < <(awk -v n={array.tasks} -v i=\"$SLURM_ARRAY_TASK_ID\" '(NR - 1) % n == i' "
        f"{shlex.quote(str(array.shards))})",
        f'exec {shlex.join(worker_argv(array.job, "--json"))} "${{shards[@]/#/--shard=}}"',
    ]
    return "\n".join(lines) + "\n"


def _escaped(folder: Path) -> str:
    if any(sign in str(folder) for sign in " \n\t\"'\\"):
        raise JobError(f"{folder}: Slurm writes no output to such a path", remedy="put the job into a folder without")
    return str(folder).replace("%", "%%")


def submit(path: Path) -> str:
    """Hand in the script at *path*; the number of the Slurm job.

    Raises:
        JobError: Slurm is not here, or does not take it.
    """
    return _slurm("sbatch", "--parsable", str(path)).strip().partition(";")[0]


def max_array_size() -> int:
    """Tasks that an array may have here; Slurm's default where it does not say."""
    try:
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _slurm("scontrol", "show", "config"), re.MULTILINE)
    except JobError:
        return _MOST
    return _MOST if found is None else max(1, int(found[1]))


def _slurm(program: str, *arguments: str) -> str:
    if shutil.which(program) is None:
        raise JobError(
            f"Slurm cannot be used: there is no {program} here", remedy="use --script-only, or --launch local"
        )
    ended = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)
    if ended.returncode:
        raise JobError(f"{program}: {ended.stderr.strip() or ended.returncode}", remedy="see the options of the script")
    return ended.stdout


@dataclass(slots=True)
class SlurmLauncher:
    """``Launcher`` over ``sbatch``.

    Attributes:
        throttle: Tasks that may run at once.
        options: Further options of sbatch.
        most: Tasks of an array; 0: what Slurm says.
        submitted: Numbers of the Slurm jobs so far.
    """

    throttle: int = 0
    options: tuple[str, ...] = ()
    most: int = 0
    submitted: list[str] = field(default_factory=list)

    def prepare(self, job: Path, shards: Sequence[str]) -> Path:
        """Freeze the list of *shards* and write the script; its path."""
        folder = job / "slurm"
        folder.mkdir(exist_ok=True)
        name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.monotonic_ns() % 1_000_000:06}"
        frozen = folder / f"{name}.shards"
        array = Array(job, frozen, len(shards), self.throttle, self.most or max_array_size(), self.options)
        text = script(array)
        write_whole(frozen, "".join(f"{shard}\n" for shard in shards).encode())
        path = folder / f"{name}.sh"
        write_whole(path, text.encode())
        return path

    async def run(self, job: Path, shards: Sequence[str]) -> list[Launched]:
        """Hand in an array and wait for its end. Who is cancelled meanwhile leaves it to Slurm."""
        number = submit(self.prepare(job, shards))
        self.submitted.append(number)
        pause, unanswered = _POLL[0], 0
        while True:
            try:
                if not _queued(number):
                    return [{"worker": f"slurm-{number}", "shards": len(shards)}]
                unanswered = 0
            except (JobError, subprocess.TimeoutExpired):  # the controller is away: the array goes on without it
                unanswered += 1
                if unanswered == _UNANSWERED:
                    raise
            await anyio.sleep(pause)
            pause = min(1.5 * pause, _POLL[1])


def _queued(number: str) -> bool:
    """Some task of it waits or runs. What Slurm has forgotten has ended."""
    try:
        return bool(_slurm("squeue", "--noheader", "--jobs", number, "--format=%i").strip())
    except JobError as error:
        if "Invalid job id" in str(error):
            return False
        raise
