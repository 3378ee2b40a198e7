from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annexpy.logs.number import leading_integer
from annexpy.logs.sizes import parse_size
from annexpy.repo.repository import Repository

# each was put to git annex matchexpression, as largerthan=
SIZES = [
    ("1", 1), ("0003", 3), ("1.", 1), ("-1", -1), ("0x1F", 31), ("0o17", 15), ("1e3", 1000), ("1E-1", 0),
    ("1e", 10**18), ("2.5", 2), ("3.5", 4), ("2.9", 3), ("0.0029k", 3), ("1_000", 1), ("2b!", 2), ("1kib2", 1024),
    ("2-2", 2), ("1k", 1000), ("1kB", 1000), ("1KIB", 1024), ("1ki", 1024), ("8kbit", 1000), ("1kilobits", 125),
    ("1mbit", 125_000),
    ("1byte", 1), ("2Bytes", 2), ("1kilobyte", 1000), ("1mebibytes", 1 << 20), ("1R", 10**27), ("1quettabyte", 10**30),
    ("1yobibyte", 1 << 80), ("1ebit", 10**18 // 8), ("1 2", 1), ("1 b 2", 1), (" 1", 1), ("1 K b", 1000),
]  # fmt: skip
NO_SIZES = [
    *("", "x", ".5", "+1", "--1", "1foo", "1bit", "8bits", "1kibit", "1kibibits", "1mbits", "1kbytes", "1bs", "1gibs"),
    *("1i", "1ms", "1kilo", "1octet", "2é", "1RiB", "1robibyte", "1rbit", "1o", "megabyte", "1ri"),
]


@pytest.mark.parametrize(("text", "size"), SIZES)
def test_a_size_is_what_it_is_for_git_annex(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", NO_SIZES)
def test_what_is_no_size_for_git_annex_is_none(text: str) -> None:
    assert parse_size(text) is None


@given(st.integers(0, 10**40))
def test_a_number_is_itself_to_the_last_digit(number: int) -> None:
    assert parse_size(str(number)) == number
    assert parse_size(f"{number} kB") == number * 1000


@given(st.text(max_size=30))
def test_any_text_is_a_size_or_none(text: str) -> None:
    size = parse_size(text)

    assert size is None or isinstance(size, int)


@pytest.mark.interop
@pytest.mark.parametrize("text", ["2.5", "3.5", "1.1kB", "0.7KiB", "9kbit", "1e1kilobits", "0x10", "1_0k"])
def test_a_byte_more_or_less_is_seen_by_git_annex(git_annex: str, tmp_path: Path, text: str) -> None:
    size = parse_size(text)
    assert size is not None
    Repository.init(tmp_path).close()

    def matches(expression: str, given: int) -> bool:
        command = [git_annex, "matchexpression", expression, f"--size={given}"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0

    assert matches(f"largerthan={text}", size + 1)
    assert not matches(f"largerthan={text}", size)
    assert not matches(f"smallerthan={text}", size)
    assert matches(f"smallerthan={text}", size - 1)


@pytest.mark.parametrize(("before", "after"), [("\r\n", "-"), ("\r\n", "x"), ("( ", "1"), ("(", "x"), ("\xa0 ", "")])
def test_many_blanks_or_brackets_cost_no_more_than_other_bytes(before: str, after: str) -> None:
    """Each of them was looked at once for all others; found by fuzzing. A hundred thousand took minutes."""
    text = before * 100_000 + after
    started = time.process_time()
    assert parse_size(text) is None
    assert leading_integer(text.encode()) is None
    assert time.process_time() - started < 5


def test_as_many_brackets_as_anybody_likes_are_closed_one_by_one() -> None:
    started = time.process_time()
    assert leading_integer(b"( " * 100_000 + b"7" + b" )" * 100_000) == 7
    assert time.process_time() - started < 5
