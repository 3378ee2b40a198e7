"""Memory: how much more the peak of a command is for every further key."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.branch import RECORD, UUID
from benchmarks.harness import annexpy, git_annex, remove, run

__all__ = ["TARGET", "memory"]

TARGET = 0.3
"""KiB a key."""

FILL = """
import hashlib, os, sys, annexpy
from annexpy.keys.layout import object_paths
with annexpy.Repository.open(sys.argv[1]) as repository:
    for number in range(int(sys.argv[2])):
        content = b"%d" % number
        key = annexpy.Key.parse(f"SHA256E-s{len(content)}--{hashlib.sha256(content).hexdigest()}.bin")
        path = os.path.join(repository.git_dir, b"annex/objects", object_paths(key)[0])
        os.makedirs(os.path.dirname(path))
        with open(path, "wb") as file:
            file.write(content)
        os.chmod(path, 0o444)
        os.chmod(os.path.dirname(path), 0o555)
        repository.branch.set_present(key, repository.uuid, True)
        print(key)
    repository.branch.commit_now()
"""


def memory(base: Path, env: Mapping[str, str], *, few: int, many: int) -> dict[str, dict[str, float]]:
    """Peak MiB of every command at *few* and at *many* keys, and KiB for each key between."""
    low, high = (_peaks(base / str(keys), env, keys) for keys in (few, many))
    return {
        name: {
            f"MiB, {few} keys": round(low[name], 1),
            f"MiB, {many} keys": round(high[name], 1),
            "KiB-per-key": round((high[name] - low[name]) * 1024 / (many - few), 3),
        }
        for name in low
    }


def _peaks(base: Path, env: Mapping[str, str], keys: int) -> dict[str, float]:
    a, b = base / "a.git", base / "b.git"
    for repository in (a, b):
        subprocess.run(["git", "init", "-q", "--bare", str(repository)], env=dict(env), check=True)
        subprocess.run([git_annex(), "init", "-q", repository.name], cwd=repository, env=dict(env), check=True)
    subprocess.run(["git", "remote", "add", "b", "../b.git"], cwd=a, env=dict(env), check=True)
    filled = subprocess.run(
        [sys.executable, "-c", FILL, str(a), str(keys)], env=dict(env), check=True, capture_output=True
    )

    def peak(*words: str) -> float:
        return run(words, cwd=a, env=env, stdin=filled.stdout).rss

    def ours(*words: str) -> float:
        return peak(annexpy(), *words, "--batch", "--quiet", "--durability", "fast")

    peaks = {
        "copy": ours("copy", ".", "b"),
        "drop": ours("drop", ".", "--other", "b"),
        "get": ours("get", "b", "-C", "."),
        "drop --from": ours("drop", "b", "--other", "."),
        "whereis": ours("whereis"),
        "record": peak(sys.executable, "-c", RECORD, str(a), UUID),
    }
    remove(base)
    return peaks
