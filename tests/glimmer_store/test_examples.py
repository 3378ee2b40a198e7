"""The examples hold what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_near_miss_cannot_happen(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "near_miss.py", tmp_path / "base"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )

    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "scratch, which does not outlive the job\n          remedy: write the output below" in done.stdout
    assert "derivative-sub-01-T1w-brain.md: 3 proven copies, 3 needed" in done.stdout
    for vault in ("vault1.git", "vault2.git", "vault3.git"):
        nodes = subprocess.run(
            ["git", "-C", tmp_path / "base" / vault, "ls-tree", "-r", "--name-only", "HEAD", "rokb/derivatives"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert nodes.stdout == "rokb/derivatives/derivative-sub-01-T1w-brain.md\n"
