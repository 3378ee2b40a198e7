"""A harness is tested by broken servers: the tiny one passes, and each planted fault makes its requirement fail."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import tiny
from broken_shell import FAULTS as SHELL_FAULTS
from faults import FAULTS, Fault

from protocol_tests import REQUIREMENTS, Need, Patience, Plan, Role, Status, Subject, run, streams, try_one

BY_ID = {one.id: one for one in REQUIREMENTS}
HAS = frozenset((Need.REPOSITORY, Need.MACHINES))
FOR_OTHERS = frozenset((Need.CLUSTER,))


def subject(fault: Fault) -> Subject:
    """The tiny server with *fault*, and beside it the right one with the same contents, which may write."""
    store = fault.store()

    def connect(session: type[tiny.Session]) -> Callable[[], tuple[socket.socket, socket.socket, Callable[[], None]]]:
        def make() -> tuple[socket.socket, socket.socket, Callable[[], None]]:
            ours = tiny.start(
                store, session, fault.lie if session is not tiny.Session or fault.lie else None, fault.token
            )
            return ours, ours, ours.close

        return make

    in_mode = type("InMode", (fault.session,), {"mode": fault.mode})
    writer = streams(lambda: _plain(store), uuid=tiny.UUID, has=HAS)
    return replace(streams(connect(in_mode), uuid=tiny.UUID, token=fault.token, has=HAS), name="tiny", writer=writer)


def _plain(store: tiny.Store) -> tuple[socket.socket, socket.socket, Callable[[], None]]:
    ours = tiny.start(store)
    return ours, ours, ours.close


def plan(fault: Fault, **more: object) -> Plan:
    return Plan(role=Role(fault.mode), patience=Patience(1.5), seed=7, hold=0.8, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["write", "readonly", "appendonly"])
@pytest.mark.parametrize("token", ["", tiny.TOKEN], ids=["greeted", "token"])
def test_the_right_server_passes_every_requirement(mode: str, token: str) -> None:
    right = Fault("", "", mode=mode, token=token)

    results = run(subject(right), plan(right, examples=3), REQUIREMENTS)

    assert not [f"{r.requirement.id}: {r.reason}" for r in results if r.status is Status.FAIL]
    assert sum(r.status is Status.PASS for r in results) > (80 if mode == "write" else 25)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.requirement} {fault.what}")
def test_a_planted_fault_is_found_by_the_requirement_that_it_breaks(fault: Fault) -> None:
    result = try_one(subject(fault), plan(fault), BY_ID[fault.requirement])

    assert result.status is Status.FAIL, f"{fault.what} was not noticed: {result.reason}"
    assert result.reason
    assert any(row["dir"] == "C>S" for row in result.transcript) or fault.requirement in ("P-001", "P-002")


def test_every_requirement_of_the_line_protocol_has_been_seen_failing(capsys: pytest.CaptureFixture[str]) -> None:
    lines = {one.id for one in REQUIREMENTS if Need.LINES in one.needs and not one.needs & FOR_OTHERS}
    seen = {fault.requirement for fault in FAULTS} | set(SHELL_FAULTS.values())

    with capsys.disabled():
        print(f" [{len(lines & seen)} of {len(lines)} seen failing, {len(FAULTS) + len(SHELL_FAULTS)} faults] ", end="")
    assert lines <= seen, f"nothing makes them fail: {sorted(lines - seen)}"
    assert seen <= set(BY_ID)


def test_what_was_locked_for_a_check_is_given_back_at_its_end() -> None:
    """A server that stays, and keeps the locks of whoever vanished, would soon refuse more."""
    abandoned = []

    class Watched(tiny.Store):
        def abandon(self, key: bytes) -> None:
            abandoned.append(key)
            super().abandon(key)

    right = Fault("", "", store=Watched)
    store = right.store()
    on_trial = subject(replace(right, store=lambda: store))  # type: ignore[arg-type]
    for one in REQUIREMENTS:
        if one.theme == "lockcontent" and one.id != "P-111":  # where vanishing is what is tried
            try_one(on_trial, plan(right), one)
    end = time.monotonic() + 10
    while any(held > 0 for held in store.locks.values()) and time.monotonic() < end:
        time.sleep(0.01)

    assert not any(held > 0 for held in store.locks.values())
    assert not abandoned
