from __future__ import annotations

import pytest

from annexpy.errors import InvalidInput
from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.settings import MINCOPIES, NUMCOPIES, CopiesLog

NOW = VectorClock(150 * SECOND)


@pytest.mark.parametrize("log", [NUMCOPIES, MINCOPIES])
@pytest.mark.parametrize(
    ("content", "number"),
    [
        (b"100s 2\n100s 3\n50s 9\n", 3),
        (b"100s 0\n", 1),
        (b"100s -2\n", 1),
        (b"100s 3x\n", 3),
        (b"100s 99999999999999999999\n", 7766279631452241919),
        (b"100s 9223372036854775808\n", 1),
        (b"3\n", None),
        (b"100s\t3\n", None),
        (b" 100s 3\n", None),
        (b"100s \n", None),
        (b"100s 3", 3),
        (b"100s 3\r\n", 3),
        (b"", None),
    ],
)
def test_the_newest_number_counts_and_of_equal_clocks_the_larger(
    log: CopiesLog, content: bytes, number: int | None
) -> None:
    assert log.parse(content) == number


def test_a_new_number_replaces_all_lines_and_the_same_one_none() -> None:
    content = b"100s 2\n100s 3\n50s 9\n"

    assert NUMCOPIES.set(content, 4, NOW) == b"150s 4\n"
    assert NUMCOPIES.set(b"200s 2\n", 4, NOW) == b"201s 4\n"
    assert NUMCOPIES.set(content, 3, NOW) is content


@pytest.mark.parametrize("number", [0, -1, 2**63])
def test_no_number_below_one_is_written(number: int) -> None:
    with pytest.raises(InvalidInput, match="number of copies"):
        NUMCOPIES.set(b"", number, NOW)
