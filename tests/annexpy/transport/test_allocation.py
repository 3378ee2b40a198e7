"""Memory of large pieces stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from annexpy.transport.allocation import keep_memory

def faults_of_receiving(pieces):
    before, waiting = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
    for number in range(pieces):
        waiting.append(b"x" * (200_000 + number % 7 * 8_000))
        if len(waiting) > 16:
            waiting.clear()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_memory()
keep_memory()
faults_of_receiving(100)
print(faults_of_receiving(500))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="about glibc")
def test_pieces_that_come_and_go_are_not_fetched_anew_from_the_system() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert int(found.stdout) < 2000  # 26,000 without
