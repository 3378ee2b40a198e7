from __future__ import annotations

import json
from pathlib import Path

import pytest

from annexpy.logs.line import SECOND, VectorClock
from annexpy.logs.location import LocationLog, Presence, clusters_of, set_location
from annexpy.uuids import UUID, is_cluster

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "location_log.json").read_text("utf-8"))
A, B, C = (UUID(VECTORS[name]) for name in "ABC")
CLUSTER = UUID("ac702100-873f-876c-a12c-4026b11e785c")
NOW = VectorClock(150 * SECOND)


@pytest.mark.vectors
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_present_repositories_of_the_vectors(case: dict[str, object]) -> None:
    content = str(case["input"]).encode()
    expected = sorted(uuid for uuid in case["present"] if not is_cluster(uuid))  # type: ignore[attr-defined]

    assert LocationLog.parse(content).present == expected
    assert set_location(content, A, True, NOW).decode() == case["after_set_A_1_at_clock_150"]
    assert set_location(content, A, False, NOW).decode() == case["after_set_A_0_at_clock_150"]


def test_status_and_clock_of_each_repository() -> None:
    log = LocationLog.parse(f"100s 1 {A}\n200s 0 {B}\n".encode())

    assert (log.status(A), log.clock(A)) == (Presence.PRESENT, 100 * SECOND)
    assert (log.status(B), log.clock(B)) == (Presence.MISSING, 200 * SECOND)
    assert (log.status(C), log.clock(C)) == (Presence.MISSING, None)


def test_a_key_is_dead_when_nothing_but_dead_lines_is_left() -> None:
    assert LocationLog.parse(f"1s X {A}\n1s X {B}\n".encode()).is_dead
    assert LocationLog.parse(f"1s X {A}\n1s X {B}\n".encode()).dead == [A, B]
    assert not LocationLog.parse(f"1s X {A}\n1s 0 {B}\n".encode()).is_dead
    assert LocationLog.parse(b"no line\n").is_dead


def test_a_cluster_is_shown_while_a_living_node_has_the_content() -> None:
    log = LocationLog.parse(f"1s 1 {A}\n1s 0 {B}\n".encode())

    assert log.locations({CLUSTER: [A, B]}) == [A, CLUSTER]
    assert log.locations({CLUSTER: [B, C]}) == [A]
    assert log.locations({CLUSTER: [A, B]}, dead=[A]) == []
    assert clusters_of([A], {CLUSTER: [A]}) == [CLUSTER]


def test_a_cluster_is_never_present_and_never_written() -> None:
    log = LocationLog.parse(f"1s 1 {CLUSTER}\n".encode())
    content = f"1s 1 {A}\n".encode()

    assert log.present == []
    assert set_location(content, CLUSTER, True, NOW) is content


def test_bytes_that_are_no_text_survive() -> None:
    log = LocationLog.parse(b"1s 1 \xff\xfe\n")

    assert [uuid.encode("utf-8", "surrogateescape") for uuid in log.present] == [b"\xff\xfe"]
