"""Copy, look, drop, get and drop --from: locally, to servers and to clusters, with all that git-annex does."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.harness import Figures, Row, annexpy, git_annex, run, run_beside, warm_pages
from benchmarks.references import hash_alone
from benchmarks.repositories import agree, git, keys_of, make_pair, names_of

__all__ = ["Cycle", "Serving"]

Serving: TypeAlias = Callable[[Path, bool], AbstractContextManager[int]]
"""Folder of a side, and whether it is ours → the process of a server for ``b.git`` there, which ``w`` was told of."""

Once: TypeAlias = Callable[[], Figures]

PUT: Final = "copy --to"
ONCE: Final = "presence"
OFTEN: Final = "presence, each key ten times, without the start"
"""What a key costs: less what it takes to ask for a single one. Not for few files: that would be noise."""
_MANY: Final = 1000
ASKED: Final = 10


@dataclass(slots=True)
class Cycle:
    """copy → presence → drop → get → drop --from, some times on either side, in turn.

    Attributes:
        base: New folder for everything.
        env: Environment of all commands.
        files: How many.
        pairs: How often.
        kind: What the rows are called.
        durability: Of our side.
        targets: Ratios wanted, by step.
        size: Bytes of a file.
        url: Where ``w`` finds ``b``; ``{base}`` is the folder of the side.
        config: More git configuration of ``w``: for their side and for ours.
        serving: Runs a server for a side, as long as it is entered.
        server: The process of one that is there already, for both sides.
        nodes: ``b`` is the gateway of a cluster of so many nodes, and the cluster is what is used.
        stock: The client is the real git-annex on both sides, and what is compared are the servers.
        jobs: How many jobs git-annex may use (its ``-J``).
        rsync: What ``rsync`` puts before a path at the other end, to copy the same as a plain tool; "": not at all.
    """

    base: Path
    env: Mapping[str, str]
    files: int
    pairs: int
    kind: str
    durability: str
    targets: Mapping[str, float]
    size: int = 4096
    url: str = "../b.git"
    config: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    serving: Serving | None = None
    server: int | None = None
    nodes: int = 0
    stock: bool = False
    jobs: int = 1
    rsync: str = ""

    def rows(self) -> list[Row]:
        """Run it all. The real git-annex must agree with the outcome."""
        names = names_of(self.nodes)
        make_pair(self._theirs, self.env, files=self.files, size=self.size, nodes=self.nodes)
        shutil.copytree(self._theirs, self._ours, symlinks=True)
        for side in (self._theirs, self._ours):
            self._set_up(side, names)
        # What a server does is up to the repository: --durability is about the client's side.
        for name in ("b", *names):
            git("git", "config", "annexpy.durability", self.durability, cwd=self._ours / f"{name}.git", env=self.env)
        keys = keys_of(self._theirs / "w", self.env)
        found = self._measured(keys)
        agree(self._ours, self.env, self.files, nodes=self.nodes)
        return found

    @property
    def _theirs(self) -> Path:
        return self.base / "theirs"

    @property
    def _ours(self) -> Path:
        return self.base / "ours"

    @property
    def _large(self) -> bool:
        return self.size > 1 << 20

    def _set_up(self, side: Path, names: list[str]) -> None:
        git("git", "config", "remote.b.url", self.url.format(base=side), cwd=side / "w", env=self.env)
        for name, value in self.config.items():
            git("git", "config", name, value[side == self._ours], cwd=side / "w", env=self.env)
        for node in names:
            git("git", "config", f"remote.{node}.url", str(side / f"{node}.git"), cwd=side / "b.git", env=self.env)

    def _measured(self, keys: bytes) -> list[Row]:
        with ExitStack() as stack:
            servers: dict[Path, int] = {}
            for side in (self._theirs, self._ours):
                if self.serving is not None:
                    servers[side] = stack.enter_context(self.serving(side, side == self._ours))
                elif self.server is not None:
                    servers[side] = self.server
            steps = self._steps(keys, servers)
            rows = {name: self._row(name) for name in steps}
            to_one = Row(f"{self.kind}: put to one | to {self.nodes}, both ours", self.files, 0.5, rows[PUT].size)
            plainly = Row(f"{self.kind}: rsync | ours, to one", self.files, 0.25, rows[PUT].size)
            for number in range(self.pairs):
                for name, (theirs, ours) in steps.items():
                    rows[name].pair(theirs, ours, swap=bool(number % 2))
                    if self._large and name in (PUT, "get"):
                        rows[name].alone.append(self.files * hash_alone(self.size))
                if self.nodes and not self.stock:
                    to_one.pair(self._we("copy", ".", "b", keys=keys, servers=servers), lambda: rows[PUT].ours[-1])
                    self._we("drop", "b", "--other", ".", keys=keys, servers=servers)()
                if self.rsync:
                    plainly.pair(self._rsynced(number), lambda: rows[PUT].ours[-1])
            steps[PUT][1]()  # half a cycle more, so that there is something to agree on
        return [*rows.values(), *(row for row in (to_one, plainly) if row.ours)]

    def _row(self, name: str) -> Row:
        what = f"{self.files} x {self.size >> 20} MiB" if self._large else f"{self.files} x {self.size >> 10} KiB"
        count = self.files * (ASKED if name == OFTEN else 1)
        return Row(f"{self.kind}, {what}: {name}", count, self.targets.get(name), self.size * count * self._large)

    def _steps(self, keys: bytes, servers: Mapping[Path, int]) -> dict[str, tuple[Once, Once]]:
        """Name → what git-annex does, and what we do. Presence only where a ratio of it is wanted."""
        remote = "b-safe" if self.nodes else "b"
        words: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
            PUT: (("copy", "--to", remote, "."), ("copy", ".", remote)),
            ONCE: (("checkpresentkey", "--batch", remote), ("check", remote)),
            OFTEN: (("checkpresentkey", "--batch", remote), ("check", remote)),
            "drop": (("drop", "."), ("drop", ".", "--other", remote)),
            "get": (("get", "."), ("get", remote, "-C", ".")),
            "drop --from": (("drop", "--from", remote, "."), ("drop", remote, "--other", ".")),
        }
        steps: dict[str, tuple[Once, Once]] = {}
        for name, (theirs, ours) in words.items():
            asks = name in (ONCE, OFTEN)
            if (asks and name not in self.targets) or (name == OFTEN and self.files < _MANY):
                continue
            first, second = self._both(theirs, ours, keys * (ASKED if name == OFTEN else 1), asks, servers)
            if name == OFTEN:
                starts = self._both(theirs, ours, keys.splitlines(keepends=True)[0], asks, servers)
                first, second = _without(starts[0], first), _without(starts[1], second)
            steps[name] = first, second
        return steps

    def _both(
        self, theirs: tuple[str, ...], ours: tuple[str, ...], keys: bytes, asks: bool, servers: Mapping[Path, int]
    ) -> tuple[Once, Once]:
        asked = keys if asks else None
        second = (
            self._annex(self._ours, *theirs, stdin=asked, servers=servers)
            if self.stock
            else self._we(*ours, keys=keys, servers=servers)
        )
        return self._annex(self._theirs, *theirs, stdin=asked, servers=servers), second

    def _annex(self, side: Path, *words: str, stdin: bytes | None, servers: Mapping[Path, int]) -> Once:
        jobs = [] if self.jobs == 1 or stdin is not None else [f"-J{self.jobs}"]
        return self._once([git_annex(), *words, *jobs, "-q"], side, stdin, servers)

    def _we(self, *words: str, keys: bytes, servers: Mapping[Path, int]) -> Once:
        jobs = [] if self.jobs == 1 else [f"-J{self.jobs}"]
        argv = [annexpy(), *words, *jobs, "--batch", "--quiet", "--durability", self.durability]
        return self._once(argv, self._ours, keys, servers)

    def _rsynced(self, number: int) -> Once:
        """The same contents, followed from their links, into a new folder at the other end."""
        target = f"{self.rsync}{self._ours}/rsynced{number}"
        return self._once(["rsync", "-aL", "--exclude=.git", "./", target], self._ours, None, {})

    def _once(self, argv: list[str], side: Path, stdin: bytes | None, servers: Mapping[Path, int]) -> Once:
        def once() -> Figures:
            if self._large:
                warm_pages(self.base, max(self.nodes, 2) * self.size * self.files)
            if side in servers:
                return run_beside(servers[side], argv, cwd=side / "w", env=self.env, stdin=stdin)
            return run(argv, cwd=side / "w", env=self.env, stdin=stdin)

        return once


def _without(start: Once, whole: Once) -> Once:
    """What *whole* takes beyond *start*, run right before it."""

    def once() -> Figures:
        before, after = start(), whole()
        return Figures(after.wall - before.wall, after.cpu - before.cpu, after.rss)

    return once
