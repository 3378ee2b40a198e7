"""A real Slurm for tests: controller, one node and munge, in a folder, on the loopback."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
WHERE = f"{os.environ['PATH']}:/usr/sbin:/sbin"


@dataclass(frozen=True)
class Slurm:
    """*settings* are variables of the environment that its commands need."""

    folder: Path
    settings: dict[str, str]

    def run(self, *argv: str) -> str:
        return subprocess.run(
            argv, env={**os.environ, **self.settings}, capture_output=True, text=True, check=True
        ).stdout

    def tasks(self, job: str, state: str) -> list[str]:
        """Tasks of an array in that state, as NUMBER_TASK."""
        return self.run("squeue", "--noheader", "--array", f"--jobs={job}", f"--states={state}", "--format=%i").split()

    def requeue(self, job: str, most: int) -> int:
        """Put up to that many of its running tasks back into the queue, to begin again at once; how many."""
        done = 0
        for task in self.tasks(job, "RUNNING")[:most]:
            try:
                self.run("scontrol", "requeue", task)
            except subprocess.CalledProcessError:
                continue  # it has just ended
            done += 1
            for _ in range(200):  # Slurm waits two minutes by itself
                if task in self.tasks(job, "PENDING"):
                    self.run("scontrol", "update", f"JobId={task}", "StartTime=now")
                    break
                time.sleep(0.05)
        return done


def why_not() -> str:
    """Why there can be no Slurm here; empty when there can."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=WHERE) is None]
    if missing:
        return f"no Slurm here: {', '.join(missing)} is missing (apt install slurmctld slurmd slurm-client munge)"
    return "" if os.getuid() == 0 else "Slurm's node daemon needs root"


def _ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def _wait(what: str, folder: Path, found: object) -> None:
    for _ in range(600):
        if found():  # type: ignore[operator]
            return
        time.sleep(0.05)
    logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in folder.glob("*.log"))
    raise AssertionError(f"{what} did not start\n{logs}")


@contextmanager
def slurm(folder: Path, *, cpus: int = 4, **settings: str) -> Iterator[Slurm]:
    """Run it. *settings* are further lines of slurm.conf."""
    if why := why_not():
        pytest.skip(why)
    host = socket.gethostname().partition(".")[0]
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(32))
    (folder / "munge.key").chmod(0o400)
    controller, node = _ports(2)
    conf = {
        "ClusterName": "test", "SlurmctldHost": f"{host}(127.0.0.1)", "SlurmUser": "root", "SlurmdUser": "root",
        "AuthType": "auth/munge", "AuthInfo": f"socket={folder}/munge.sock",
        "SlurmctldPort": controller, "SlurmdPort": node, "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",
        "StateSaveLocation": folder / "state", "SlurmdSpoolDir": folder / "spool",
        "SlurmctldPidFile": folder / "slurmctld.pid", "SlurmdPidFile": folder / "slurmd.pid",
        "SlurmctldLogFile": folder / "slurmctld.log", "SlurmdLogFile": folder / "slurmd.log",
        "ProctrackType": "proctrack/linuxproc", "TaskPlugin": "task/none", "JobAcctGatherType": "jobacct_gather/none",
        "SchedulerType": "sched/backfill", "SchedulerParameters": "batch_sched_delay=0,sched_min_interval=100000",
        "SelectType": "select/cons_tres", "SelectTypeParameters": "CR_Core",
        "SlurmdParameters": "config_overrides", "MpiDefault": "none", "ReturnToService": 2, "KillWait": 1,
        **settings,
        "NodeName": f"{host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN",
        "PartitionName": f"debug Nodes={host} Default=YES MaxTime=INFINITE State=UP",
    }  # fmt: skip
    (folder / "slurm.conf").write_text("".join(f"{name}={value}\n" for name, value in conf.items()))
    running = Slurm(folder, {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": WHERE})
    environment = {**os.environ, **running.settings}
    started: list[subprocess.Popen[bytes]] = []

    def start(*argv: str) -> None:
        with (folder / f"{argv[0]}.out.log").open("wb") as log:
            started.append(subprocess.Popen(argv, env=environment, stdout=log, stderr=log, cwd=folder))

    try:
        names = {name: folder / f"munge.{end}" for name, end in (("key", "key"), ("socket", "sock"), ("pid", "pid"))}
        files = [f"--{name}{'' if name == 'socket' else '-file'}={path}" for name, path in names.items()]
        start("munged", "--force", "--foreground", *files, f"--log-file={folder}/m.log", f"--seed-file={folder}/seed")
        _wait("munged", folder, names["socket"].exists)
        start("slurmctld", "-D", "-f", str(folder / "slurm.conf"))
        start("slurmd", "-D", "-f", str(folder / "slurm.conf"))
        said = ("sinfo", "-h", "-o", "%T")
        _wait(
            "Slurm",
            folder,
            lambda: b"idle" in subprocess.run(said, env=environment, capture_output=True, check=False).stdout,
        )
        yield running
        subprocess.run(("scancel", "--user=root"), env=environment, capture_output=True, check=False)
        _wait("an empty queue", folder, lambda: not running.run("squeue", "--noheader").strip())
    finally:
        for one in reversed(started):
            one.terminate()
            one.wait(20)
