"""``python -m benchmarks``: the same work by us and by the real git-annex, interleaved in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.backfill import backfill
from benchmarks.branch import branch
from benchmarks.cycle import OFTEN, ONCE, Cycle
from benchmarks.harness import HEAD, Row, annexpy, environment, git_annex, remove, tmpfs
from benchmarks.httpd import httpd
from benchmarks.memory import TARGET, memory
from benchmarks.references import references
from benchmarks.served import MOST, campaigns, server_memory
from benchmarks.sshd import our_sshd, sshd
from benchmarks.startup import startup

KINDS = ["startup", "local", "ssh", "http", "large", "large-ssh", "large-http", "cluster", "stock", "branch", "memory"]
KINDS += ["their-shell", "large-our-ssh", "large-cluster", "server-memory", "campaigns", "ext4", "backfill"]
LOCAL = {"copy --to": 15.0, ONCE: 1.0, OFTEN: 3.0, "drop": 8.0, "get": 10.0, "drop --from": 15.0}
LOCAL_1000 = {"copy --to": 10.0, "drop": 4.0, "get": 6.0, "drop --from": 10.0}
SSH = {"copy --to": 8.0, "get": 7.0, "drop --from": 7.0}
SSH_1000 = {"copy --to": 4.5, "get": 4.0, "drop --from": 3.5}
THEIR_SHELL = {"copy --to": 1.0, OFTEN: 3.0, "get": 2.5, "drop --from": 3.0}
HTTP = {"copy --to": 10.0, OFTEN: 3.0, "get": 9.0, "drop --from": 8.0}
HTTP_1000 = {"copy --to": 7.0, "get": 6.0, "drop --from": 5.0}
LARGE = {"copy --to": 3.5, "get": 3.5}
CLUSTER = {"copy --to": 7.0, "get": 4.0, "drop --from": 6.0}
CLUSTER_HTTP = {"copy --to": 18.0, "get": 11.0, "drop --from": 8.0}
LARGE_J4 = {"copy --to": 2.4, "get": 2.4}
LARGE_HTTP_J4 = {"copy --to": 3.0, "get": 3.0}
LARGE_CLUSTER = {"copy --to": 4.5}
NEVER_SLOWER = {"copy --to": 1.0, "drop": 1.0, "get": 1.0, "drop --from": 1.0}
LARGE_SSH = {"copy --to": 2.7, "get": 2.7}
LARGE_OUR_SSH = {"copy --to": 3.3, "get": 3.3}


class _Measuring:
    """What was asked for, where it is measured, and what has been found."""

    def __init__(self, given: argparse.Namespace, base: Path, env: Mapping[str, str]) -> None:
        self.given, self.base, self.env = given, base, env
        self.rows: list[Row] = []
        self.too_much: list[str] = []
        self.report: dict[str, object] = {}

    def show(self, more: list[Row]) -> None:
        for row in more:
            print(row.line(), flush=True)
        self.rows.extend(more)

    def references(self, host: str) -> None:
        found = references(self.base, self.env, ssh=["ssh", host])
        self.report["references, MB/s"] = found
        print("references, MB/s: " + ", ".join(f"{name} {rate}" for name, rate in found.items()))

    def startup(self) -> None:
        (self.base / "startup").mkdir()
        self.report["startup"] = times = startup(self.base / "startup", self.env)
        for name, figures in times.items():
            print(f"{name:<44}{figures['ms']:8.1f} ms {figures['x']:6.2f} x python -c pass")

    def cycles(self, kind: str, cycles: list[dict[str, Any]]) -> None:
        for number, cycle in enumerate(cycles):
            self._cycle(self.base / f"{kind}{number}", self.given.durability, cycle)

    def _cycle(self, place: Path, durability: str, cycle: Mapping[str, Any]) -> None:
        self.show(Cycle(place, self.env, pairs=self.given.pairs, durability=durability, **cycle).rows())
        remove(place)

    def backfill(self, host: str, server: int) -> None:
        given = self.given
        shells = {"remote.{name}.annex-shell": ("git-annex-shell", annexpy("annexpy-shell"))}
        ssh = {"url": f"ssh://{host}{{path}}", "config": shells, "server": server}
        small, large = {"files": given.files}, {"files": 1, "size": given.size << 20}
        for number, cycle in enumerate(
            ({**small, "kind": "local"}, {**small, **ssh, "kind": "ssh"}, {**large, "kind": "local"})
        ):
            place = self.base / f"backfill{number}"
            self.show(backfill(place, self.env, pairs=given.pairs, **cycle))
            remove(place)

    def branch(self) -> None:
        (self.base / "branch").mkdir()
        self.show(branch(self.base / "branch", self.env, keys=self.given.keys, pairs=self.given.pairs))

    def memory(self) -> None:
        (self.base / "memory").mkdir()
        files = self.given.files
        self.report["memory"] = grown = memory(self.base / "memory", self.env, few=files, many=10 * files)
        for name, figures in grown.items():
            told = ", ".join(f"{what} {figure}" for what, figure in figures.items())
            print(f"{'memory: ' + name:<44}{told} (want {TARGET:g} or less)", flush=True)
        self.too_much += [f"memory: {name}" for name, figures in grown.items() if figures["KiB-per-key"] > TARGET]

    def server_memory(self) -> None:
        (self.base / "served").mkdir()
        self.report["server-memory"] = peaks = server_memory(
            self.base / "served", self.env, size=(self.given.size << 20) // 8, durability=self.given.durability
        )
        for name, peak in peaks.items():
            print(f"{name + ' server with 16 transfers at once':<44}{peak:8.1f} MiB (want {MOST[name]:g} or less)")
        self.too_much += [f"memory of the {name} server" for name, peak in peaks.items() if peak > MOST[name]]

    def campaigns(self) -> None:
        self.report["campaigns"] = told = []
        for line in campaigns(self.env):
            told.append(line)
            print(line, flush=True)

    def ext4(self) -> None:
        with tempfile.TemporaryDirectory(prefix="annexpy-bench-", dir=".") as disk:
            for durability in ("fast", "full"):
                place = Path(disk).resolve() / durability
                cycle = {"files": min(self.given.files, 1000), "kind": f"disk, {durability}", "targets": {}}
                self._cycle(place, durability, cycle)


def main() -> int:
    given = _arguments()
    chosen = given.only or KINDS
    base = tmpfs()
    measuring = _Measuring(given, base, environment(base / "home"))
    try:
        with sshd(base / "sshd", base / "home", measuring.env["PATH"]) as (host, server):
            measuring.references(host)
            if "startup" in chosen:
                measuring.startup()
            print(HEAD)
            for kind, cycles in _cycles(given, measuring.env, host, server).items():
                if kind in chosen:
                    measuring.cycles(kind, cycles)
            if "backfill" in chosen:
                measuring.backfill(host, server)
            for kind, measure in (
                ("branch", measuring.branch),
                ("memory", measuring.memory),
                ("server-memory", measuring.server_memory),
                ("campaigns", measuring.campaigns),
                ("ext4", measuring.ext4),
            ):
                if kind in chosen:
                    measure()
    finally:
        remove(base)
    if given.json:
        Path(given.json).write_text(json.dumps(_report(measuring), indent=1) + "\n")
    missed = [row.name for row in measuring.rows if row.target and row.ratio is not None and row.ratio < row.target]
    print("below target: " + (", ".join(missed + measuring.too_much) or "none"))
    return 0


def _report(measuring: _Measuring) -> dict[str, object]:
    version = subprocess.run([git_annex(), "version", "--raw"], capture_output=True, text=True, check=True).stdout
    return {
        "python": platform.python_version(),
        "git-annex": version,
        "cores": os.cpu_count(),
        "pairs": measuring.given.pairs,
        "durability": measuring.given.durability,
        **measuring.report,
        "rows": [row.as_json() for row in measuring.rows],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=KINDS)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512, help="MiB of the large file")
    parser.add_argument(
        "--durability", choices=["fast", "full"], default="fast", help="git-annex never syncs: fast is like for like"
    )
    parser.add_argument("--json", metavar="FILE")
    return parser.parse_args()


def _cycles(
    given: argparse.Namespace, env: Mapping[str, str], host: str, server: int
) -> dict[str, list[dict[str, Any]]]:
    """Kind → what is copied, dropped and fetched, as arguments of ``Cycle``."""
    many = given.files >= 5000
    small = {"files": given.files}
    large = {"files": 1, "size": given.size << 20}
    several = {"files": max(4, given.size // 10), "size": 10 << 20}  # for the jobs of git-annex
    shells = {"remote.b.annex-shell": ("git-annex-shell", annexpy("annexpy-shell"))}
    ssh = {"kind": "ssh", "url": f"ssh://{host}{{base}}/b.git", "config": shells, "server": server}
    our_ssh = {
        **ssh,
        "kind": "our ssh server",
        "server": None,
        "serving": partial(our_sshd, env=env, durability=given.durability, theirs=server),
    }
    their_shell = {
        **ssh,
        "kind": "ssh to git-annex-shell",
        "config": {name: (theirs, theirs) for name, (theirs, _) in shells.items()},
    }
    http = {"kind": "http", "serving": partial(httpd, env=env, durability=given.durability)}
    cluster = {**ssh, "kind": "cluster of 3, ssh", "nodes": 3}
    cluster_http = {**http, "kind": "cluster of 3, http", "nodes": 3}
    stock = {**small, "targets": NEVER_SLOWER, "stock": True}
    return {
        "local": [{**small, "kind": "local", "targets": LOCAL if many else LOCAL_1000}],
        "ssh": [
            {**small, **ssh, "targets": SSH if many else SSH_1000, "rsync": f"{host}:" if shutil.which("rsync") else ""}
        ],
        "their-shell": [{**small, **their_shell, "targets": THEIR_SHELL}],
        "http": [{**small, **http, "targets": HTTP if many else HTTP_1000}],
        "large": [
            {**large, "kind": "local", "targets": LARGE},
            {**several, "kind": "local, -J4", "targets": LARGE_J4, "jobs": 4},
        ],
        "large-ssh": [{**large, **ssh, "targets": LARGE_SSH}],
        "large-our-ssh": [{**large, **our_ssh, "targets": LARGE_OUR_SSH}],
        "large-http": [
            {**large, **http, "targets": LARGE},
            {**several, **http, "kind": "http, -J4", "targets": LARGE_HTTP_J4, "jobs": 4},
        ],
        "cluster": [
            {**small, **cluster, "targets": CLUSTER},
            {**small, **cluster_http, "targets": CLUSTER_HTTP},
        ],
        "large-cluster": [
            {**large, **cluster, "targets": LARGE_CLUSTER},
            {**large, **cluster_http, "targets": LARGE_CLUSTER},
        ],
        "stock": [
            {**stock, **ssh, "kind": "stock client, ssh"},
            {**stock, **http, "kind": "stock client, http"},
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
