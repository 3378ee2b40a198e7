"""``python -m benchmarks``: the same work by us and by the real git-annex, interleaved in one run."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.branch import branch
from benchmarks.harness import HEAD, Row, annexpy, environment, git_annex, remove, tmpfs
from benchmarks.httpd import httpd
from benchmarks.memory import TARGET, memory
from benchmarks.references import references
from benchmarks.small_files import small_files
from benchmarks.sshd import sshd
from benchmarks.startup import startup

KINDS = ["startup", "local", "ssh", "http", "large", "large-ssh", "large-http", "cluster", "stock", "branch", "memory"]
KINDS += ["ext4"]
LOCAL = {"copy --to": 15.0, "drop": 8.0, "get": 10.0, "drop --from": 15.0}
LOCAL_1000 = {"copy --to": 10.0, "drop": 4.0, "get": 6.0, "drop --from": 10.0}
SSH = {"copy --to": 8.0, "get": 7.0, "drop --from": 7.0}
HTTP = {"copy --to": 10.0, "get": 9.0, "drop --from": 8.0}
HTTP_1000 = {"copy --to": 7.0, "get": 6.0, "drop --from": 5.0}
LARGE = {"copy --to": 3.5, "get": 3.5}
CLUSTER = {"copy --to": 7.0, "get": 4.0, "drop --from": 6.0}
LARGE_CLUSTER = {"copy --to": 4.5}
NEVER_SLOWER = {"copy --to": 1.0, "drop": 1.0, "get": 1.0, "drop --from": 1.0}
LARGE_SSH = {"copy --to": 3.3, "get": 3.3}


def main() -> int:
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
    given = parser.parse_args()
    chosen = set(given.only or KINDS)
    base = tmpfs()
    home = base / "home"
    env = environment(home)
    report: dict[str, object] = {
        "python": platform.python_version(),
        "git-annex": subprocess.run(
            [git_annex(), "version", "--raw"], capture_output=True, text=True, check=True
        ).stdout,
        "cores": os.cpu_count(),
        "pairs": given.pairs,
        "durability": given.durability,
    }
    rows: list[Row] = []
    too_much: list[str] = []

    def show(more: list[Row]) -> None:
        for row in more:
            print(row.line(), flush=True)
        rows.extend(more)

    common = {"pairs": given.pairs, "durability": given.durability}
    shells = {"remote.b.annex-shell": ("git-annex-shell", annexpy("annexpy-shell"))}
    http = partial(httpd, env=env, durability=given.durability)
    try:
        with sshd(base / "sshd", home, env["PATH"]) as host:
            over_ssh = f"ssh://{host}{{base}}/b.git"
            found = references(base, env, ssh=["ssh", host])
            report["references, MB/s"] = found
            print("references, MB/s: " + ", ".join(f"{name} {rate}" for name, rate in found.items()))
            if "startup" in chosen:
                report["startup"] = times = startup(base / "startup", env) if (base / "startup").mkdir() is None else {}
                for name, figures in times.items():
                    print(f"{name:<44}{figures['ms']:8.1f} ms {figures['x']:6.2f} x python -c pass")
            print(HEAD)
            if "local" in chosen:
                targets = LOCAL if given.files >= 5000 else LOCAL_1000
                show(small_files(base / "local", env, files=given.files, kind="local", targets=targets, **common))
                remove(base / "local")
            if "ssh" in chosen:
                show(
                    small_files(
                        base / "ssh",
                        env,
                        files=given.files,
                        kind="ssh",
                        targets=SSH,
                        url=over_ssh,
                        config=shells,
                        **common,
                    )
                )
                remove(base / "ssh")
            if "large" in chosen:
                show(
                    small_files(
                        base / "large", env, files=1, size=given.size << 20, kind="local", targets=LARGE, **common
                    )
                )
                remove(base / "large")
            if "large-ssh" in chosen:
                show(
                    small_files(
                        base / "lssh",
                        env,
                        files=1,
                        size=given.size << 20,
                        kind="ssh",
                        targets=LARGE_SSH,
                        url=over_ssh,
                        config=shells,
                        **common,
                    )
                )
                remove(base / "lssh")
            for name, size in (("http", 4096), ("large-http", given.size << 20)):
                if name in chosen:
                    files = given.files if name == "http" else 1
                    targets = LARGE if files == 1 else HTTP if files >= 5000 else HTTP_1000
                    place = base / name
                    show(
                        small_files(
                            place, env, files=files, size=size, kind="http", targets=targets, serving=http, **common
                        )
                    )
                    remove(place)
            if "cluster" in chosen:
                show(
                    small_files(
                        base / "cluster",
                        env,
                        files=given.files,
                        kind="cluster of 3, ssh",
                        targets=CLUSTER,
                        url=over_ssh,
                        config=shells,
                        nodes=3,
                        **common,
                    )
                )
                remove(base / "cluster")
                show(
                    small_files(
                        base / "lcluster",
                        env,
                        files=1,
                        size=given.size << 20,
                        kind="cluster of 3, ssh",
                        targets=LARGE_CLUSTER,
                        url=over_ssh,
                        config=shells,
                        nodes=3,
                        **common,
                    )
                )
                remove(base / "lcluster")
            if "stock" in chosen:
                for kind, more in (("ssh", {"url": over_ssh, "config": shells}), ("http", {"serving": http})):
                    show(
                        small_files(
                            base / "stock",
                            env,
                            files=given.files,
                            kind=f"stock client, {kind}",
                            targets=NEVER_SLOWER,
                            stock=True,
                            **more,
                            **common,
                        )
                    )
                    remove(base / "stock")
            if "branch" in chosen:
                (base / "branch").mkdir()
                show(branch(base / "branch", env, keys=given.keys, pairs=given.pairs))
            if "memory" in chosen:
                (base / "memory").mkdir()
                report["memory"] = grown = memory(base / "memory", env, few=given.files, many=10 * given.files)
                for name, figures in grown.items():
                    told = ", ".join(f"{what} {figure}" for what, figure in figures.items())
                    print(f"{'memory: ' + name:<44}{told} (want {TARGET:g} or less)", flush=True)
                too_much = [f"memory: {name}" for name, figures in grown.items() if figures["KiB-per-key"] > TARGET]
            if "ext4" in chosen:
                with tempfile.TemporaryDirectory(prefix="annexpy-bench-", dir=".") as disk:
                    files = min(given.files, 1000)
                    for durability in ("fast", "full"):
                        show(
                            small_files(
                                Path(disk).resolve() / durability,
                                env,
                                files=files,
                                kind=f"disk, {durability}",
                                targets={},
                                pairs=given.pairs,
                                durability=durability,
                            )
                        )
                        remove(Path(disk).resolve() / durability)
    finally:
        remove(base)
    report["rows"] = [row.as_json() for row in rows]
    if given.json:
        Path(given.json).write_text(json.dumps(report, indent=1) + "\n")
    missed = [row.name for row in rows if row.target and row.ratio is not None and row.ratio < row.target]
    print("below target: " + (", ".join(missed + too_much) or "none"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
