"""Time whole processes, ours and the real git-annex in turn, and compare them pair by pair.

Machines are noisy: what counts is the ratio within a pair of neighbouring runs, and the median of
those ratios. Absolute times are printed to show the size of things.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Final

__all__ = [
    "Figures",
    "Row",
    "annexpy",
    "environment",
    "git_annex",
    "peak_of",
    "run",
    "run_beside",
    "tmpfs",
    "warm_pages",
]

BIN = Path(sys.executable).parent
_PR_SET_CHILD_SUBREAPER: Final = 36
_LOOKS: Final = 0.01
"""Seconds between two looks at the memory of a process."""


def git_annex() -> str:
    """The binary itself: the wheel's entry point is a Python script that costs 12 ms a start."""
    import git_annex as wheel

    path = Path(wheel.__file__).parent / "git-annex"
    assert path.exists(), path
    return str(path)


def annexpy(name: str = "annexpy") -> str:
    return str(BIN / name)


def tmpfs() -> Path:
    """A new folder on tmpfs, or in the temporary folder where there is none."""
    return Path(tempfile.mkdtemp(prefix="annexpy-bench-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def warm_pages(folder: Path, size: int) -> None:
    """Write and remove *size* bytes in *folder*, so that whoever writes next finds pages that are there.

    A virtual machine gives free memory back to its host, and to get it again costs more than a copy. Without this,
    who runs first pays for all who come after.
    """
    path, piece = folder / "warm", b"\1" * (1 << 20)
    with path.open("wb") as file:
        for _ in range(size >> 20):
            file.write(piece)
    path.unlink()


def environment(home: Path) -> dict[str, str]:
    """What both sides run with: their own HOME, git identity, and the same PATH."""
    shells = home / "bin"
    shells.mkdir(parents=True, exist_ok=True)
    for name in ("git-annex", "git-annex-shell"):
        if not (shells / name).exists():
            (shells / name).symlink_to(git_annex())
    (home / ".gitconfig").write_text(
        "[user]\n\tname = Bench\n\temail = bench@example.org\n[init]\n\tdefaultBranch = main\n[gc]\n\tauto = 0\n"
    )
    return {
        "HOME": str(home),
        "PATH": f"{shells}:{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHONDONTWRITEBYTECODE": "",
    }


@dataclass(frozen=True, slots=True)
class Figures:
    """One run: seconds of wall and processor time, peak memory of the process itself in MiB (see ``_Peak``)."""

    wall: float
    cpu: float
    rss: float


def run(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    stdin: bytes | None = None,
    timeout: float = 600,
    expect: int = 0,
) -> Figures:
    """Run to the end and measure. A run that fails is no measurement: it raises."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        begin = time.perf_counter()
        child = subprocess.Popen(
            argv, cwd=cwd, env=dict(env), stdout=out, stderr=err,
            stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
        )  # fmt: skip
        killer = threading.Timer(timeout, child.kill)
        killer.daemon = True
        killer.start()
        peak = _Peak(child.pid)
        if stdin is not None and child.stdin is not None:
            try:
                child.stdin.write(stdin)
                child.stdin.close()
            except BrokenPipeError:
                pass  # it ended early: the exit code below says why
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - begin
        killer.cancel()
        peak.end()
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != expect:
            err.seek(0)
            raise RuntimeError(
                f"{' '.join(argv[:6])} … ended with {child.returncode}: {err.read()[-2000:].decode(errors='replace')}"
            )
        return Figures(wall, usage.ru_utime + usage.ru_stime, peak.mib)


def run_beside(
    server: int, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: bytes | None = None
) -> Figures:
    """As ``run``; what the process *server* and its children did meanwhile, or go on doing, counts as processor time.

    git-annex does not wait for git-annex-shell to commit, and we do so for two seconds. Who runs next shall not have it
    beside him.
    """
    _adopt_orphans()
    before, ours = _cpu_of(server), _children(os.getpid())
    figures = run(argv, cwd=cwd, env=env, stdin=stdin)
    for _ in range(300):  # a session of sshd is over, and counted, a moment after its client
        if not _children(server):
            break
        time.sleep(0.05)
    left = 0.0
    while orphans := _children(os.getpid()) - ours:  # one may leave others
        for orphan in orphans:
            killer = threading.Timer(120, os.kill, (orphan, signal.SIGKILL))
            killer.daemon = True
            killer.start()
            _, status, usage = os.wait4(orphan, 0)
            killer.cancel()
            if os.waitstatus_to_exitcode(status) == -signal.SIGKILL:
                raise RuntimeError(f"what {' '.join(argv[:6])} … left running did not end")
            left += usage.ru_utime + usage.ru_stime
    return replace(figures, cpu=figures.cpu + left + _cpu_of(server) - before)


@cache
def _adopt_orphans() -> None:
    """Whose parent has ended is a child of this process from now on, and not of the system's first one."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def _children(process: int) -> set[int]:
    found: set[int] = set()
    for thread in Path(f"/proc/{process}/task").iterdir():
        try:
            found |= set(map(int, (thread / "children").read_text().split()))
        except (FileNotFoundError, ProcessLookupError):
            pass  # it has ended, and its children are those of another thread now
    return found


def _cpu_of(process: int) -> float:
    """Seconds that it and the children that it has waited for have taken."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def peak_of(process: int) -> float:
    """MiB that it had resident at most.

    Raises:
        OSError: It has ended.
    """
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    for line in lines:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(process)


class _Peak:
    """The peak of a process, looked at again and again until it ends.

    What the system says of an ended one (``ru_maxrss``) counts the process that it was forked from: us, with all that
    the benchmarks before have left in memory. Not counted are its children, and what it does in its last moments: the
    figure is for commands that last.
    """

    def __init__(self, process: int) -> None:
        self.mib, self._ended = 0.0, threading.Event()
        self._looking = threading.Thread(target=self._look, args=(process,), daemon=True)
        self._looking.start()

    def _look(self, process: int) -> None:
        try:
            self.mib = peak_of(process)
            while not self._ended.wait(_LOOKS):
                self.mib = max(self.mib, peak_of(process))
        except OSError:
            pass  # it has ended

    def end(self) -> None:
        """It has ended."""
        self._ended.set()
        self._looking.join()


@dataclass(slots=True)
class Row:
    """One operation, measured in pairs.

    Attributes:
        name: What was done.
        count: Keys (or 1), for the per-key figures.
        target: The ratio that is wanted; None when there is no peer.
        size: Bytes moved in all, for rates.
        alone: Seconds that SHA-256 of so many bytes took by itself, right beside each pair.
    """

    name: str
    count: int = 1
    target: float | None = None
    size: int = 0
    theirs: list[Figures] = field(default_factory=list)
    ours: list[Figures] = field(default_factory=list)
    alone: list[float] = field(default_factory=list)

    def pair(self, theirs: Callable[[], Figures], ours: Callable[[], Figures], *, swap: bool = False) -> None:
        """One pair; *swap* says who goes first, so that neither always runs into a warm cache."""
        if swap:
            ours_now = ours()
            self.theirs.append(theirs())
            self.ours.append(ours_now)
        else:
            self.theirs.append(theirs())
            self.ours.append(ours())
        # at once, so that a run that is stopped has not been for nothing
        a, b = self.theirs[-1], self.ours[-1]
        print(
            f"  {self.name}: git-annex {a.wall:.2f} s ({a.cpu:.2f} cpu), ours {b.wall:.2f} s ({b.cpu:.2f} cpu)",
            file=sys.stderr,
            flush=True,
        )

    @property
    def ratio(self) -> float | None:
        """Median over the pairs of theirs / ours: above 1, we are faster."""
        if not self.theirs or not self.ours:
            return None
        return statistics.median(t.wall / o.wall for t, o in zip(self.theirs, self.ours, strict=True))

    @property
    def cpu_ratio(self) -> float | None:
        """The same of the processor time of the client and what it waited for: steadier on a busy machine."""
        if not self.theirs or not self.ours:
            return None
        return statistics.median(t.cpu / o.cpu for t, o in zip(self.theirs, self.ours, strict=True))

    @property
    def share(self) -> float | None:
        """Our rate as a part of that of SHA-256 alone, start-up and end of the command included."""
        if not self.alone:
            return None
        return statistics.median(alone / o.wall for alone, o in zip(self.alone, self.ours, strict=True))

    def as_json(self) -> dict[str, object]:
        def side(runs: list[Figures]) -> dict[str, object] | None:
            if not runs:
                return None
            wall = statistics.median(r.wall for r in runs)
            return {
                "wall-s": [round(r.wall, 4) for r in runs],
                "ms-per-key": round(wall * 1000 / self.count, 4),
                "cpu-ms-per-key": round(statistics.median(r.cpu for r in runs) * 1000 / self.count, 4),
                "peak-rss-MiB": round(max(r.rss for r in runs), 1),
                **({"MB-per-s": round(self.size / wall / 1e6, 1)} if self.size else {}),
            }

        return {
            "name": self.name,
            "count": self.count,
            "git-annex": side(self.theirs),
            "ours": side(self.ours),
            "ratio": None if self.ratio is None else round(self.ratio, 2),
            "cpu-ratio": None if self.cpu_ratio is None else round(self.cpu_ratio, 2),
            "pair-ratios": [round(t.wall / o.wall, 2) for t, o in zip(self.theirs, self.ours, strict=False)],
            **({"share-of-sha256": round(self.share, 3)} if self.share is not None else {}),
            "target": self.target,
        }

    def line(self) -> str:
        def one(runs: list[Figures]) -> str:
            if not runs:
                return f"{'':>24}"
            wall, cpu = (statistics.median(getattr(r, n) for r in runs) for n in ("wall", "cpu"))
            rate = f"{self.size / wall / 1e6:7.0f} MB/s" if self.size else f"{wall * 1000 / self.count:7.3f} ms"
            return f"{rate:>12} {cpu * 1000 / self.count:6.2f} {max(r.rss for r in runs):4.0f}"

        ratio = "" if self.ratio is None else f"{self.ratio:6.1f}x  cpu {self.cpu_ratio:.1f}x"
        want = "" if self.target is None else f"(want {self.target:g})"
        share = "" if self.share is None else f"  {self.share:.0%} of sha256 alone"
        return f"{self.name:<44}{one(self.theirs)}  |{one(self.ours)}  {ratio:>8} {want}{share}"


HEAD = f"{'':<44}{'git-annex':>12} {'cpu':>6} {'MiB':>4}  |{'ours':>12} {'cpu':>6} {'MiB':>4}  {'ratio':>8}"


def remove(path: Path) -> None:
    """A repository has read-only folders in it."""
    if not path.exists():
        return
    for folder, names, _ in os.walk(path):
        for name in names:
            below = Path(folder) / name
            if not below.is_symlink():
                below.chmod(0o755)
    shutil.rmtree(path)
