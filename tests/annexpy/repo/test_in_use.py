"""Counts of requests, shared by processes that may be killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from annexpy.repo.files import DiskFiles
from annexpy.repo.in_use import InUse
from annexpy.uuids import UUID

A, B = UUID("aaaaaaaa-0000-4000-8000-000000000001"), UUID("bbbbbbbb-0000-4000-8000-000000000002")
OTHER = """
import sys
from annexpy.repo.files import DiskFiles
from annexpy.repo.in_use import InUse
node = InUse(DiskFiles(sys.argv[1])).node(sys.argv[2])
for _ in range(3):
    node.begin()
node.end()
print("ready", flush=True)
sys.stdin.read()
"""


def test_each_sees_what_the_others_have_under_way(tmp_path: Path) -> None:
    (tmp_path / "annex").mkdir()
    one, other = InUse(DiskFiles(tmp_path)), InUse(DiskFiles(tmp_path))
    mine, theirs, elsewhere = one.node(A), other.node(A), other.node(B)

    mine.begin()
    theirs.begin()
    theirs.begin()
    assert (mine.others(), theirs.others(), elsewhere.others()) == (2, 1, 0)
    theirs.end()
    assert mine.others() == 1
    other.close()
    assert mine.others() == 0
    mine.end()
    one.close()


def test_what_a_killed_process_had_under_way_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "annex").mkdir()
    mine = InUse(DiskFiles(tmp_path)).node(A)
    with subprocess.Popen(
        [sys.executable, "-c", OTHER, str(tmp_path), A],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[3])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert mine.others() == 2
        process.kill()
        process.wait()
        assert mine.others() == 0


def test_the_last_error_is_kept_for_whoever_looks(tmp_path: Path) -> None:
    (tmp_path / "annex").mkdir()
    node = InUse(DiskFiles(tmp_path)).node(A)
    assert node.last_error() is None
    node.down("cannot connect", 1700000000.5, 0)
    node.down("n1: no answer to PUT within 5 s", 1700000001.5, 1700000009)
    other = InUse(DiskFiles(tmp_path)).node(A)

    assert other.last_error() == ("n1: no answer to PUT within 5 s", 1700000001.5)
    assert other.told_down(1700000005) == ("n1: no answer to PUT within 5 s", 1700000009)
    assert other.told_down(1700000009) is None
    assert other.told_down(1600000000) is None, "the clock has stepped"
    node.up()
    assert other.told_down(1700000005) is None
    assert other.last_error() == ("n1: no answer to PUT within 5 s", 1700000001.5)


def test_where_nothing_can_be_written_nobody_counts(tmp_path: Path) -> None:
    (tmp_path / "annex").write_text("no folder")
    node = InUse(DiskFiles(tmp_path)).node(A)
    node.begin()
    node.down("away", 1.0, 2.0)
    assert node.others() == 0
    assert node.last_error() is None
    node.end()
