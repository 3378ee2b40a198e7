"""Of the contents that move at once few are large."""

from __future__ import annotations

import anyio
import pytest
from anyio.lowlevel import checkpoint

from annexpy.actions.large import LargeTurns
from annexpy.keys.key import Key

pytestmark = pytest.mark.anyio

LARGE, SMALL, UNKNOWN = (
    b"SHA256-s%d--%064d" % (5 << 20, 1),
    b"SHA256-s%d--%064d" % (4 << 20, 2),
    b"URL--http&c%%example.org%d" % 3,
)


@pytest.mark.parametrize(
    ("raw", "jobs", "most"),
    [
        (LARGE, 1, 4),  # whoever wants fewer jobs has fewer jobs
        (LARGE, 16, 4),
        (LARGE, 64, 16),
        (UNKNOWN, 16, 4),
        (SMALL, 16, 40),
    ],
)
async def test_few_large_contents_move_at_once_and_any_number_of_small_ones(raw: bytes, jobs: int, most: int) -> None:
    key, turns = Key.parse(raw), LargeTurns(jobs)
    now = seen = 0

    async def move() -> None:
        nonlocal now, seen
        async with turns.of(key):
            now += 1
            seen = max(seen, now)
            for _ in range(50):
                await checkpoint()
            now -= 1

    async with anyio.create_task_group() as tasks:
        for _ in range(40):
            tasks.start_soon(move)

    assert (now, seen) == (0, most)
