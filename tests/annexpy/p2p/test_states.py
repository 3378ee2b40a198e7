from __future__ import annotations

import pytest

from annexpy.p2p import messages as m
from annexpy.p2p.states import (
    AFTER_DATA,
    PIPELINING,
    ROWS,
    WAITING_FOR,
    Role,
    State,
    Unexpected,
    legal,
    objection,
    transitions,
)


def test_no_row_is_written_twice() -> None:
    keys = [(row.state, row.sender, row.message) for row in ROWS]
    assert len(keys) == len(set(keys))


def _following(state: State) -> set[State]:
    return {row.next for row in ROWS if row.state is state} | set(AFTER_DATA.get(state, ()))


def test_every_state_can_be_reached_and_left() -> None:
    reached = {State.GREETING, State.AUTH}
    while new := {following for state in reached for following in _following(state)} - reached:
        reached |= new
    assert reached == set(State)
    assert {state for state in State if not _following(state)} == {State.CLOSED}


def test_only_one_side_speaks_in_a_state() -> None:
    both = {state for state in State if transitions(state, Role.CLIENT) and transitions(state, Role.SERVER)}
    # RELAY carries both directions; while a put is refused early the client is still talking
    assert both == {State.RELAY, State.PUT_VALID}


def test_the_server_can_object_wherever_the_client_speaks_a_line() -> None:
    for state in State:
        rows = transitions(state, Role.CLIENT)
        if rows and state is not State.RELAY:
            assert m.Error in transitions(rows[Unexpected].next, Role.SERVER), state


def test_the_server_may_answer_error_to_every_request() -> None:
    for row in ROWS:
        if row.state is State.IDLE and row.sender is Role.CLIENT and row.message not in (m.Bypass, m.Error):
            assert m.Error in transitions(row.next, Role.SERVER), row


def test_behind_a_pipelined_request_nothing_but_one_answer_is_missing() -> None:
    for state in PIPELINING - {State.GREETING}:
        assert not transitions(state, Role.CLIENT)
        assert {row.next for row in transitions(state, Role.SERVER).values()} == {State.IDLE}


def test_pipelined_are_exactly_the_documented_requests() -> None:
    marked = {row.message for row in ROWS if row.pipelined}
    assert marked == {
        m.CheckPresent, m.Remove, m.RemoveBefore, m.GetTimestamp,
        m.Valid, m.Invalid, m.DataPresent,
    }  # fmt: skip


def test_plus_answers_exist_from_version_2_and_are_refused_below() -> None:
    plus = [row for row in ROWS if row.message in (m.SuccessPlus, m.FailurePlus, m.AlreadyHavePlus)]
    assert plus
    assert all(row.since == row.accepted == 2 for row in plus)


@pytest.mark.parametrize(
    ("message", "since"),
    [(m.Bypass, 2), (m.RemoveBefore, 3), (m.GetTimestamp, 3), (m.CheckPresent, 0), (m.Put, 0)],
)
def test_a_request_is_sent_from_its_version_on_but_taken_from_any(message: type[m.Message], since: int) -> None:
    row = transitions(State.IDLE, Role.CLIENT)[message]
    assert (row.since, row.accepted) == (since, 0)


def test_legal_names_what_may_be_said() -> None:
    assert legal(State.LOCKED, Role.CLIENT, 4) == [m.UnlockContent]
    assert legal(State.CHECK, Role.SERVER, 4) == [m.Success, m.Failure, m.Error]
    assert m.RemoveBefore not in legal(State.IDLE, Role.CLIENT, 2)
    assert m.Get in legal(State.CHECK, Role.CLIENT, 0)
    assert legal(State.GET, Role.CLIENT, 4) == []


def test_objections_are_those_of_git_annex() -> None:
    assert objection(State.IDLE, m.Unknown(b"FOO"), 4) == "unknown command"
    assert objection(State.IDLE, m.SUCCESS, 4) == "unexpected command"
    assert objection(State.GET_DONE, m.GET_TIMESTAMP, 1) == "expected SUCCESS or FAILURE"
    assert objection(State.GET_DONE, m.GET_TIMESTAMP, 2).endswith("or FAILURE or FAILURE-PLUS")


def test_every_state_in_which_something_is_owed_has_a_name_for_it() -> None:
    free = {State.AUTH, State.AUTH_REFUSED, State.IDLE, State.PUT_REFUSED, State.REFUSED, State.CLOSED}
    assert set(WAITING_FOR) == set(State) - free
