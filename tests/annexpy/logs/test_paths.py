from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.keys.key import Key
from annexpy.keys.layout import hash_dir_lower
from annexpy.logs.paths import FORMATS, Log, branch_path, identify, journal_file, key_log, log_key

CASES = json.loads((Path(__file__).parents[2] / "vectors" / "escaping.json").read_text("utf-8"))["cases"]
KEY = Key.parse(b"WORM-s5-m1289672605--file")


@pytest.mark.vectors
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"][:40])
def test_log_and_journal_names_of_the_vectors(case: dict[str, str]) -> None:
    key = Key.parse(case["key"].encode("latin-1"))
    path, journal = case["branch_log"].encode("latin-1"), case["journal"].encode("latin-1")

    assert key_log(key) == path
    assert log_key(path) == key
    assert identify(path) == (Log.LOCATION, key)
    assert journal_file(path) == journal
    assert branch_path(journal) == path


@pytest.mark.parametrize("log", [log for log in Log if log.per_key])
@pytest.mark.parametrize("levels", [1, 2])
def test_each_log_of_a_key_is_recognised(log: Log, levels: int) -> None:
    for name in (b"a", b"a.log", b"a.log.web", b"a:b&c%d/e_f", b"", b"x.log.met.log"):
        key = Key(b"WORM", name, 1)
        path = key_log(key, log, levels=levels)

        assert identify(path, levels=levels) == (log, key)
        assert log_key(path, log, levels=levels) == key
        assert identify(path, levels=3 - levels) is None


@pytest.mark.parametrize("log", [log for log in Log if not log.per_key])
def test_each_log_at_the_top_is_recognised(log: Log) -> None:
    assert identify(log.value) == (log, None)
    assert identify(b"aaa/bbb/" + log.value) is None


def test_every_log_has_a_format() -> None:
    assert set(FORMATS) == set(Log)


@pytest.mark.parametrize(
    "path",
    [
        b"aaa/bbb/WORM-s5-m1289672605--file.log",
        b"WORM-s5-m1289672605--file.log",
        hash_dir_lower(KEY)[:4] + b"WORM-s5-m1289672605--file.log",
        hash_dir_lower(KEY) + b"x/WORM-s5-m1289672605--file.log",
        hash_dir_lower(KEY) + b"WORM-s05-m1289672605--file.log",
        hash_dir_lower(Key(b"WORM", b"a:b")) + b"WORM--a:b.log",
        hash_dir_lower(KEY) + b"nokey.log",
        hash_dir_lower(KEY) + b".log",
        hash_dir_lower(KEY) + b"WORM-s5-m1289672605--file.log.xyz",
        b"other.log",
        b"export.tree/x",
        b"",
    ],
)
def test_what_git_annex_does_not_see_is_no_log(path: bytes) -> None:
    assert identify(path) is None


@given(st.binary(max_size=20))
def test_the_journal_name_is_a_bijection(path: bytes) -> None:
    name = journal_file(path)

    assert b"/" not in name
    assert branch_path(name) == path
