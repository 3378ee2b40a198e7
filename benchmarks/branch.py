"""The git-annex branch: record and read many location logs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import Row, annexpy, git_annex, remove, run

__all__ = ["branch"]

UUID = "11111111-2222-4333-8444-555555555555"
RECORD = """
import sys, anyio, annexpy
async def main():
    repository = annexpy.Repository.open(sys.argv[1])
    branch, uuid = repository.branch, annexpy.parse_uuid(sys.argv[2])
    for line in sys.stdin.buffer:
        branch.set_present(annexpy.Key.parse(line[:-1]), uuid, True)
    await branch.commit()
    repository.close()
anyio.run(main)
"""


def branch(base: Path, env: Mapping[str, str], *, keys: int, pairs: int) -> list[Row]:
    """Record and read: ``setpresentkey --batch`` and ``whereis --batch-keys`` against ours."""
    record = Row(f"record {keys} location lines, new", keys, 4)
    update = Row(f"record {keys} location lines, update", keys, 2)
    read = Row(f"read {keys} location lines (whereis)", keys, 40)
    names = [f"SHA256-s{n}--{n:064x}".encode() for n in range(keys)]
    ours_in = b"".join(name + b"\n" for name in names)
    for number in range(pairs):
        sides = {}
        for side in ("theirs", "ours"):
            sides[side] = base / f"{side}{number}"
            subprocess.run(["git", "init", "-q", "--bare", str(sides[side])], env=dict(env), check=True)
            subprocess.run([git_annex(), "init", "-q", side], cwd=sides[side], env=dict(env), check=True)
        for row, uuid in ((record, UUID), (update, UUID[:-1] + "6")):
            theirs_in = b"".join(name + f" {uuid} 1\n".encode() for name in names)
            row.pair(
                lambda: run([git_annex(), "setpresentkey", "--batch"], cwd=sides["theirs"], env=env, stdin=theirs_in),  # noqa: B023
                lambda: run([sys.executable, "-c", RECORD, str(sides["ours"]), uuid], cwd=base, env=env, stdin=ours_in),  # noqa: B023
                swap=bool(number % 2),
            )
        if number < max(1, pairs // 3):  # one run of theirs takes over a minute
            theirs, ours = sides["theirs"], str(sides["ours"])
            read.pair(
                lambda: run([git_annex(), "whereis", "--batch-keys"], cwd=theirs, env=env, stdin=ours_in),  # noqa: B023
                lambda: run([annexpy(), "whereis", "--batch", "-C", ours], cwd=base, env=env, stdin=ours_in),  # noqa: B023
            )
        for path in sides.values():
            remove(path)
    return [record, update, read]
