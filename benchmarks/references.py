"""Plain tools and physical limits, in the same run as everything they are compared with."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

__all__ = ["hash_alone", "references"]


def hash_alone(size: int) -> float:
    """Seconds that SHA-256 takes for *size* bytes, with nothing read and nothing written."""
    digest, piece = hashlib.sha256(), b"\1" * (1 << 20)
    begin = time.perf_counter()
    for _ in range(size >> 20):
        digest.update(piece)
    return time.perf_counter() - begin


def references(
    base: Path, env: Mapping[str, str], *, size: int = 256 << 20, ssh: list[str] | None = None
) -> dict[str, float]:
    """MB/s of ``cp``, of SHA-256 alone, and of ``ssh -c aes128-gcm cat`` where there is a server; best of three."""
    source, target = base / "reference", base / "reference-copy"
    with source.open("wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))
    shutil.copyfile(source, target)  # touch the pages once: first touch costs more than the copy

    def best(work: object) -> float:
        assert callable(work)
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            work()
            times.append(time.perf_counter() - begin)
        return round(size / min(times) / 1e6, 1)

    def digest() -> None:
        with source.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    found = {
        "cp": best(lambda: subprocess.run(["cp", str(source), str(target)], check=True)),
        "sha256": best(digest),
    }
    if ssh:

        def cat() -> None:
            with target.open("wb") as out:
                subprocess.run(
                    [*ssh[:-1], "-c", "aes128-gcm@openssh.com", ssh[-1], "cat", str(source)],
                    stdout=out,
                    env=dict(env),
                    check=True,
                )

        found["ssh -c aes128-gcm cat"] = best(cat)
    source.unlink()
    target.unlink()
    return found
