"""What is remembered of a node, and for how long."""

from __future__ import annotations

import pytest
from remote_contract import A, B, HandClock

from annexpy.errors import (
    AccessDenied,
    AnnexError,
    AuthFailed,
    ConnectFailed,
    ConnectionLost,
    KeyNotPresent,
    NodesFailed,
    TimedOut,
    UnknownUUID,
)
from annexpy.remote.health import BACK_OFF, Limited, Node, Patient, reasons
from annexpy.remote.memory import MemoryRemote
from annexpy.uuids import UUID

REFUSED = ConnectFailed("there", "refused")
SILENT = TimedOut("node", "answer", 5)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def node(clock: HandClock) -> Node:
    return Node(MemoryRemote(A, name="vault"), clock, 5.0)


def request(node: Node, clock: HandClock, error: AnnexError | None = None, seconds: float = 0.0) -> None:
    began = node.begin()
    assert node.busy == 1
    clock.time += seconds
    if error is None:
        node.heard(began)
    else:
        node.failed(error, began)
    node.end(began)
    assert node.busy == 0


def test_who_costs_a_deadline_is_left_alone_for_a_minute(node: Node, clock: HandClock) -> None:
    request(node, clock, SILENT, 5.0)
    assert node.down() is SILENT
    with pytest.raises(TimedOut):
        node.begin()
    clock.time += BACK_OFF - 0.01
    assert node.down() is SILENT
    clock.time += 0.01
    assert node.down() is None


@pytest.mark.parametrize("error", [REFUSED, AuthFailed("there")])
def test_who_cannot_be_reached_is_tried_ever_more_rarely(node: Node, clock: HandClock, error: AnnexError) -> None:
    pauses = []
    for _ in range(9):
        request(node, clock, error)
        began = clock.time
        while node.down():
            clock.time += 0.5
        pauses.append(clock.time - began)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]

    request(node, clock)
    assert node.down() is None
    request(node, clock, error)
    clock.time += 1
    assert node.down() is None


def test_a_refusal_that_took_long_costs_as_much_rest(node: Node, clock: HandClock) -> None:
    request(node, clock, REFUSED, 2.5)
    clock.time += 29.9
    assert node.down()
    clock.time += 0.1
    assert not node.down()


@pytest.mark.parametrize(
    "error", [ConnectionLost("n", "it"), AccessDenied("no"), KeyNotPresent("key"), NodesFailed("c", "x", ())]
)
def test_who_answers_or_hangs_up_is_not_down(node: Node, clock: HandClock, error: AnnexError) -> None:
    request(node, clock, error, 4.0)
    assert node.down() is None


def test_an_answer_of_any_kind_ends_a_back_off(node: Node, clock: HandClock) -> None:
    for answer in (None, AccessDenied("no")):
        request(node, clock, SILENT, 5.0)
        clock.time += BACK_OFF
        request(node, clock, answer)
        assert node.down() is None
        request(node, clock)


def test_one_at_a_time_tries_whether_it_is_back(node: Node, clock: HandClock) -> None:
    request(node, clock, SILENT, 5.0)
    clock.time += BACK_OFF
    began = node.begin()
    assert node.down() is SILENT
    node.end(began)  # cancelled: nothing was learnt
    assert node.down() is None


def test_a_time_out_says_nothing_of_a_node_that_moves(node: Node, clock: HandClock) -> None:
    began = node.begin()
    clock.time += 3
    node.moves()
    clock.time += 2
    node.failed(SILENT, began)
    assert node.down() is None
    clock.time += 3
    node.failed(SILENT, began)
    assert node.down() is SILENT


def test_who_was_overtaken_is_late_for_a_minute_and_not_down(node: Node, clock: HandClock) -> None:
    assert not node.late
    node.overtaken(0.02)
    assert node.late
    assert node.down() is None
    clock.time += BACK_OFF
    assert not node.late


def test_what_requests_waited_for_in_vain_the_next_ones_do_not_wait_again(node: Node, clock: HandClock) -> None:
    node.overtaken(1.0)
    assert node.patience == 4.0
    node.overtaken(0.5)
    assert node.patience == 3.5
    node.moves()
    assert node.patience == 5.0
    for _ in range(20):
        node.overtaken(1.0)
    assert node.patience == 1.0  # who is only slow gets that much
    clock.time += BACK_OFF
    assert node.patience == 5.0
    node.overtaken(1.0)
    assert node.patience == 4.0


def test_speed_is_smoothed_and_forgotten_with_a_failure(node: Node, clock: HandClock) -> None:
    assert node.speed is None
    request(node, clock, seconds=1.0)
    assert node.speed == 1.0
    request(node, clock, seconds=9.0)
    assert node.speed == 2.0
    request(node, clock, REFUSED)
    assert node.speed is None


def test_a_node_of_unknown_uuid_goes_by_its_name(clock: HandClock) -> None:
    class Unknown(MemoryRemote):
        @property
        def uuid(self) -> UUID:
            raise UnknownUUID("not connected yet")

    assert Node(Unknown(A, name="vault 9"), clock, 5.0).uuid == "vault 9"


def test_the_reasons_of_a_cluster_are_those_of_its_nodes(node: Node) -> None:
    assert reasons(node, REFUSED) == {A: REFUSED}
    assert reasons(node, NodesFailed("inner", "x", {B: REFUSED}.items())) == {B: REFUSED}
    empty = NodesFailed("inner", "x", ())
    assert reasons(node, empty) == {A: empty}


def test_a_plain_remote_is_neither_patient_nor_limited() -> None:
    assert not isinstance(MemoryRemote(A), Patient | Limited)
