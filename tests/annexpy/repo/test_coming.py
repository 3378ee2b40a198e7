"""What is on its way, told between processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from places import OURS

from annexpy.keys.key import Key
from annexpy.repo.coming import Coming
from annexpy.repo.held import HeldSizes
from annexpy.repo.repository import Repository
from annexpy.repo.settings import Lockdown
from annexpy.uuids import UUID

KEY = Key.parse("SHA256-s1000--" + "0" * 64)
A, B = UUID("a"), UUID("b")

OTHER = """
import sys
from annexpy.keys.key import Key
from annexpy.repo.held import HeldSizes
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID
with Repository.open(sys.argv[1]) as repository:
    held = HeldSizes(repository)
    held.begin(UUID("a"), Key.parse(sys.argv[2]))
    print("begun", flush=True)
    sys.stdin.readline()
    held.end(UUID("a"), Key.parse(sys.argv[2]), stays=False)
    print("ended", flush=True)
    sys.stdin.readline()
"""


def test_what_another_process_has_under_way_counts_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    Repository.init(tmp_path, bare=True).close()
    argv = [sys.executable, "-c", OTHER, str(tmp_path), str(KEY)]

    def begun() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(OURS), cwd=tmp_path
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        return process

    with Repository.open(tmp_path) as repository:
        held = HeldSizes(repository, fresh=0)
        assert held.sizes() == {}
        with begun() as one, begun() as two:
            assert held.sizes() == {A: 2000}
            held.begin(A, KEY)
            assert held.sizes() == {A: 3000}
            held.end(A, KEY, stays=False)
            for process in (one, two):
                assert process.stdin is not None
                assert process.stdout is not None
            one.stdin.write("\n")  # type: ignore[union-attr]
            one.stdin.flush()  # type: ignore[union-attr]
            assert one.stdout.readline() == "ended\n"  # type: ignore[union-attr]
            held.look_elsewhere()
            assert held.sizes() == {A: 1000}
            two.kill()
            two.wait()
            held.look_elsewhere()
            assert held.sizes() == {}
            assert len([*(tmp_path / "annex/annexpy/coming").iterdir()]) == 2, "that of the one that ended is no more"
            one.kill()
        held.close()


def test_files_that_make_no_sense_count_nothing(tmp_path: Path) -> None:
    with Repository.init(tmp_path, bare=True) as repository:
        first, second = (Coming(repository.files, Lockdown()) for _ in range(2))
        first.tell({A: 5, B: 0})
        assert second.others() == {A: 5}
        assert first.others() == {}
        folder = tmp_path / "annex/annexpy/coming"
        (file,) = folder.iterdir()
        for content in (b"", b"{", b"[]", b'{"a": "x"}', b"\xff"):
            file.write_bytes(content)
            assert second.others() == {}
        (folder / "left-behind").write_bytes(b'{"a": 7}')
        assert second.others() == {}
        assert [*folder.iterdir()] == [file]
        first.tell({})
        first.close()
        first.close()
        assert not [*folder.iterdir()]
