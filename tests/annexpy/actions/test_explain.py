"""An explanation names every rule and every copy, and removes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from annexpy.actions.explain import explain
from annexpy.actions.facts import Facts
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote.memory import MemoryRemote
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

pytestmark = pytest.mark.anyio

KEY = Key.parse(b"WORM-s1-m1--a")
A, B, C = (UUID(f"{letter * 8}-1111-4111-8111-111111111111") for letter in "abc")


class Clock:
    def now(self) -> float:
        return 1000.0

    def booted(self) -> float:
        return 0.0

    def wall(self) -> float:
        return 1000.0


def place(uuid: UUID, name: str, *, has: bool = True) -> MemoryRemote:
    return MemoryRemote(uuid, name=name, clock=Clock(), objects={KEY: b"x"} if has else {})


async def test_a_permission_shows_its_locks_and_margins() -> None:
    here, vault = place(A, "here"), place(B, "vault")

    why = await explain(KEY, from_=here, others=[vault], clock=Clock())

    assert why.allowed
    assert why.lines() == [
        "WORM-s1-m1--a in here",
        "must stay: numcopies 1 (default), mincopies 1 (default)",
        "counted: vault, locked for 600 more s",
        "no hash says what the content must be, so a copy that is present may still be wrong",
        "may be dropped, within 600 s",
    ]
    assert here.objects


async def test_a_refusal_shows_every_copy_and_why_it_does_not_count() -> None:
    others = [place(B, "vault"), place(C, "shelf", has=False)]

    why = await explain(KEY, from_=place(A, "here"), others=others, copies=Copies(2, 2), clock=Clock())

    assert not why.allowed
    assert why.lines()[1:] == [
        "must stay: numcopies 2 (default), mincopies 2 (default)",
        "counted: vault, locked",
        "not counted: shelf (it is not present)",
        "may not be dropped: 1 of 2 needed",
    ]


async def test_what_a_repository_knows_decides(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        branch = repository.branch
        branch.change(b"trust.log", lambda _: f"{B} 1 timestamp=1s\n{C} 0 timestamp=1s\n".encode())
        branch.change(b"numcopies.log", lambda _: b"1s 2\n")
        branch.change(b"uuid.log", lambda content: content + f"{B} tape timestamp=1s\n".encode())
        for uuid in (A, B, C):
            branch.set_present(KEY, uuid, True)

        why = await explain(KEY, from_=place(A, "here"), others=[], facts=Facts(repository), clock=Clock())

    assert why.where is not None
    assert why.where.copies == 2
    assert why.lines() == [
        "WORM-s1-m1--a in here",
        f"recorded: {A}",
        f"recorded: {B} -- tape",
        f"recorded: {C}",
        "must stay: numcopies 2 (numcopies.log), mincopies 1 (default)",
        "counted: tape, trusted",
        f"not counted: {A} (it is where the content would be dropped)",
        f"not counted: {C} (the repository is untrusted)",
        "may not be dropped: 1 of 2 needed",
    ]


async def test_each_repository_is_named_once_by_its_remote_where_there_is_one(tmp_path: Path) -> None:
    with Repository.init(tmp_path / "r", bare=True) as repository:
        repository.branch.change(b"trust.log", lambda _: f"{A} 1 timestamp=1s\n{B} 0 timestamp=1s\n".encode())
        for uuid, name in ((A, "disk"), (B, "tape")):
            line = f"{uuid} the {name} timestamp=1s\n".encode()
            repository.branch.change(b"uuid.log", lambda content, line=line: content + line)
            repository.branch.set_present(KEY, uuid, True)
        nodes = [place(A, "gate-disk"), place(B, "gate-tape")]

        why = await explain(KEY, from_=nodes[0], others=nodes, facts=Facts(repository), clock=Clock())

    assert [line for line in why.lines() if "counted" in line] == [
        "not counted: gate-disk (it is where the content would be dropped)",
        "not counted: gate-tape (the repository is untrusted)",
    ]
