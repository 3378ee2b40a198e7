"""The examples hold what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from glimmer_store.finding import Level
from glimmer_store.validate import validate

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
        clone = tmp_path / vault
        subprocess.run(["git", "clone", "-q", tmp_path / "base" / vault, clone], check=True)
        assert (clone / "rokb/derivatives/derivative-sub-01-T1w-brain.md").exists()
        found = [finding for finding in validate(clone).findings if finding.level is not Level.WARNING]
        assert not found
