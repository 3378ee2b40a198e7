"""The clock of this machine: one beginning for a boot, another one for the next."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import pairwise, permutations
from random import Random
from uuid import UUID as AnyUUID

import pytest

from annexpy.clock import LOCK_RETENTION, MAX_REMOVAL_AHEAD, Deadline
from annexpy.keys.key import Key
from annexpy.remote.memory import MemoryRemote
from annexpy.system import CLOCK, SystemClock
from annexpy.uuids import UUID

KEY = Key.parse(b"SHA256E-s1--" + b"0" * 64)
ME = UUID("87ab9089-b663-40ac-b7c2-52e054520871")


def boots(count: int) -> list[bytes]:
    dice = Random(count)
    return [str(AnyUUID(int=dice.getrandbits(128), version=4)).encode() for _ in range(count)]


def test_it_is_the_same_in_every_process() -> None:
    shown = "from annexpy.system import CLOCK; print(CLOCK.now())"

    before = CLOCK.now()
    other = float(subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True).stdout)

    assert before <= other <= CLOCK.now()


def test_it_goes_as_fast_as_time_does_and_is_known_to_a_millisecond() -> None:
    first, steady = CLOCK.now(), time.monotonic()
    while (passed := CLOCK.now() - first) < 0.01:
        pass

    assert time.monotonic() - steady > 0.009
    assert passed > 0
    assert CLOCK.now() < 2**31  # some peers may keep it in 32 bits


def test_where_boots_are_not_told_apart_it_begins_at_0() -> None:
    clock = SystemClock(b"")

    assert abs(clock.now() - time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))) < 1


def test_boots_begin_far_apart() -> None:
    beginnings = sorted(SystemClock(boot).now() for boot in boots(500))

    near = sum(later - before <= MAX_REMOVAL_AHEAD for before, later in pairwise(beginnings))
    assert near <= 3  # of 125,000 pairs; at 0 they would all be


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_removal_deadline_of_another_boot_removes_nothing() -> None:
    clocks = [SystemClock(boot) for boot in boots(12)]
    for given, then in permutations(clocks, 2):
        remote = MemoryRemote(ME, clock=then, objects={KEY: b"x"})

        result = await remote.remove_content(KEY, deadline=Deadline(given.now() + LOCK_RETENTION))

        assert not result.ok
        assert await remote.check_present(KEY)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_removal_deadline_of_the_same_boot_removes() -> None:
    remote = MemoryRemote(ME, clock=SystemClock(boots(1)[0]), objects={KEY: b"x"})

    result = await remote.remove_content(KEY, deadline=Deadline(SystemClock(boots(1)[0]).now() + LOCK_RETENTION))

    assert result.ok
