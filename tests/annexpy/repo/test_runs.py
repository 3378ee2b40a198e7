"""Sorting more records than memory holds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annexpy.errors import RepositoryError
from annexpy.repo.files import DiskFiles
from annexpy.repo.records import Queued, presence_record
from annexpy.repo.runs import Runs
from annexpy.repo.settings import Lockdown

PATHS = st.sampled_from([b"a/b.log", b"a/b\tc.log", b"z.log"])
BATCHES = st.lists(
    st.tuples(st.sampled_from([b"", b"1" * 40, b"2" * 40]), st.lists(st.tuples(PATHS, st.integers(0, 99))))
)


@pytest.mark.parametrize("largest", [1, 200, 1 << 20])
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES)
def test_whatever_is_added_comes_out_in_order_as_often_as_asked(
    tmp_path: Path, largest: int, batches: list[tuple[bytes, list[tuple[bytes, int]]]]
) -> None:
    with pytest.MonkeyPatch.context() as patch, Runs(DiskFiles(tmp_path), Lockdown()) as runs:
        patch.setattr("annexpy.repo.runs._LARGEST", largest)
        patch.setattr("annexpy.repo.runs._BLOCK", 64)
        expected = []
        for base, records in batches:
            lines = [presence_record(path, time, b"1", b"u") for path, time in records]
            runs.add(lines, base)
            expected += [Queued(line, base) for line in lines]

        assert len(runs) == len(expected)
        for _ in range(2):
            found = list(runs)
            assert [record.line for record in found] == sorted(record.line for record in expected)
            assert sorted(found) == sorted(expected)


def test_nothing_is_left_behind_and_a_file_that_is_cut_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annexpy.repo.runs._LARGEST", 1)
    before = set(os.listdir("/proc/self/fd"))
    files = DiskFiles(tmp_path)
    with Runs(files, Lockdown()) as runs:
        runs.add([presence_record(b"a", 1, b"1", b"u")], b"")
        assert files.names(b"annex/annexpy/tmp") == []
        assert runs._fd is not None
        files.truncate(runs._fd, 3)
        with pytest.raises(RepositoryError, match="became shorter"):
            list(runs)
    files.close()

    assert set(os.listdir("/proc/self/fd")) == before
