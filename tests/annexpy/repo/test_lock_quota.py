"""Content locks that are counted by all processes of a repository."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import CLIENT, SHELL, Place, content_of, key_of

from annexpy.clock import LOCK_RETENTION
from annexpy.repo.lock_quota import SharedLockQuota
from annexpy.repo.repository import Repository
from annexpy.server.limits import PER_CLIENT, PER_CROWD


class FakeClock:
    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.time


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def repository(tmp_path: Path, clock: FakeClock) -> Iterator[Repository]:
    Repository.init(tmp_path / "r", bare=True).close()
    with Repository.open(tmp_path / "r", clock=clock) as opened:
        yield opened


def test_every_process_sees_what_the_others_have_given(repository: Repository) -> None:
    one, two = (SharedLockQuota(repository, limit=2, crowd=3) for _ in range(2))
    assert one.take("c", "ann")
    assert two.take("c", "ann")
    assert not one.take("c", "ann")
    assert one.take("d", "ann")
    assert not two.take("e", "ann"), "all clients of ann have three"
    assert two.take("c", "bob"), "whatever it calls itself, it is bob's"
    two.give_back("c", "ann", left_behind=False)
    assert one.take("e", "ann")


def test_what_is_left_behind_counts_as_long_as_the_content_stays_locked(
    repository: Repository, clock: FakeClock
) -> None:
    one, two = (SharedLockQuota(repository, limit=2, crowd=9) for _ in range(2))
    assert one.take("c", "")
    one.give_back("c", "", left_behind=True)
    assert one.take("c", "")  # and its process is killed: nobody gives it back
    assert not two.take("c", "")
    clock.time += LOCK_RETENTION
    assert two.take("c", "")
    assert two.take("c", "")


def test_a_file_that_is_torn_lost_or_from_the_future_refuses_nothing(repository: Repository, clock: FakeClock) -> None:
    file = Path(repository.path, "annex", "annexpy", "content-locks")
    quota = SharedLockQuota(repository, limit=1, crowd=9)
    assert quota.take("c", "")
    record = file.read_bytes()
    for content in (b"", record[:-1], b"\xff" * 4001):
        file.write_bytes(content)
        assert quota.take("c", "")
        assert len(file.read_bytes()) == len(record)
        quota.give_back("c", "", left_behind=False)
    clock.time += 10 * LOCK_RETENTION
    assert quota.take("c", "")
    clock.time = 0.0  # the clock was wrong
    assert quota.take("c", "")


def test_annexpy_shell_refuses_a_client_that_has_locked_too_much(tmp_path: Path) -> None:
    content = content_of(1)
    place, key = Place.make(tmp_path / "place", [content]), key_of(content)
    with Repository.open(place.path) as repository:
        quota = SharedLockQuota(repository, limit=PER_CLIENT, crowd=PER_CROWD)
        for _ in range(PER_CLIENT - 1):
            assert quota.take(CLIENT, "")

        def shell(client: str) -> subprocess.Popen[str]:
            argv = [*SHELL, "p2pstdio", str(place.path), client, "--uuid", place.uuid]
            return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def locks(process: subprocess.Popen[str]) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"VERSION 4\nLOCKCONTENT {key}\n")
            process.stdin.flush()
            return [process.stdout.readline() for _ in range(3)][-1].strip()

        with shell(CLIENT) as first, shell(CLIENT) as second, shell("somebody-else") as other:
            assert locks(first) == "SUCCESS"
            assert locks(second) == "ERROR too many content locks are held for this client"
            assert locks(other) == "SUCCESS"
            for process in (first, second, other):
                process.kill()
        assert not quota.take(CLIENT, ""), "the one that was killed may have been relied on"
