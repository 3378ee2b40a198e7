"""Who may only add: whatever is said, in any order and in any number of sessions, nothing goes and nothing changes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annexpy.keys.backend import verifier
from annexpy.keys.key import Key
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository
from annexpy.server.serve import ServerMode, serve
from annexpy.transport.base import Transport
from annexpy.transport.memory import memory_pair

CONTENTS = [b"", b"abc" * 20, b"abc" * 20 + b"d", bytes(5000), b"worm one", b"worm two"]
KEYS = [Key.parse(f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}.dat") for data in CONTENTS[:4]]
KEYS += [Key.parse("WORM-s8-m1--x"), Key.parse("WORM-s8-m2--y")]
THERE = KEYS[1]

key = st.sampled_from(KEYS).map(lambda one: one.raw)
body = st.one_of(st.sampled_from(CONTENTS), st.binary(max_size=70))
PUTS = st.builds(
    lambda key, body, more, word: b"PUT x %b\nDATA %d\n%b%b" % (key, max(0, len(body) + more), body, word),
    key,
    body,
    st.sampled_from([0, 0, 0, 0, 1, -1, 10_000]),
    st.sampled_from([b"VALID\n", b"VALID\n", b"INVALID\n", b"", b"REMOVE x\n"]),
)
OTHERS = st.builds(
    lambda template, key: template.replace(b"KEY", key),
    st.sampled_from(
        [
            *(b"REMOVE KEY\n", b"REMOVE-BEFORE 9999999999 KEY\n", b"REMOVE-BEFORE -1 KEY\n", b"LOCKCONTENT KEY\n"),
            *(b"UNLOCKCONTENT\n", b"GET 0 x KEY\nSUCCESS\n", b"CHECKPRESENT KEY\n", b"DATA-PRESENT KEY\n", b"VALID\n"),
            *(b"BYPASS x\nREMOVE KEY\n", b"CONNECT git-receive-pack\n", b"VERSION 0\n", b"VERSION 4\n", b"DATA 3\nabc"),
            *(b"LOCKCONTENT KEY\nREMOVE KEY\n", b"PUT KEY KEY\n", b"REMOVE KEY\nREMOVE KEY\n", b"NOTIFYCHANGE\n"),
        ]
    ),
    key,
)
SESSIONS = st.lists(st.lists(st.one_of(PUTS, OTHERS, st.binary(max_size=30)), max_size=6), min_size=1, max_size=3)


def contents(local: Local, repository: Repository) -> dict[Key, bytes]:
    found = {}
    for one in sorted(repository.content.keys(), key=str):
        with repository.content.open(one) as stored:
            found[one] = stored.pread(stored.size + 1, 0)
    return found


async def session(local: Local, said: Sequence[bytes]) -> bytes:
    """All of *said*, whatever the server answers, and then a hang-up."""
    ours, theirs = memory_pair(capacity=1 << 20)
    heard = b""

    async def listen(wire: Transport) -> None:
        nonlocal heard
        with suppress(Exception):
            while data := await wire.receive():
                heard += data

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            group.start_soon(listen, ours)
            for piece in (b"VERSION 4\n", *said):
                if piece:
                    await ours.send(piece)
            ours._out.ended = True
            ours._out.wake()
            await serve(theirs, local, mode=ServerMode.APPEND_ONLY)
            await theirs.aclose()
    return heard


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository.init(tmp_path_factory.mktemp("append") / "it.git", bare=True)


@given(SESSIONS)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_is_there_goes_or_changes(repository: Repository, sessions: list[list[bytes]]) -> None:
    async def main() -> None:
        local = Local(repository, commit=False)
        before = contents(local, repository)
        if THERE not in before:
            heard = await session(local, [b"PUT x %b\nDATA 60\n%bVALID\n" % (THERE.raw, CONTENTS[1])])
            assert heard.endswith(b"SUCCESS\n"), heard
            before = contents(local, repository)
        assert before[THERE] == CONTENTS[1]
        for said in sessions:
            await session(local, said)
            now = contents(local, repository)
            assert now.items() >= before.items(), said
            for one in now.keys() - before.keys():
                check = verifier(one)
                if check is None:
                    assert len(now[one]) == one.size, said
                else:
                    check.update(now[one])
                    assert check.matches(), said
            before = now
            line = repository.branch.locations(THERE).present
            assert repository.uuid in line, said

    anyio.run(main)


def test_sessions_like_these_remove_where_that_is_allowed(tmp_path: Path) -> None:
    """The same REMOVE, from somebody who may: so the test above can fail."""

    async def main() -> None:
        with Repository.init(tmp_path / "it.git", bare=True) as repository:
            local = Local(repository, commit=False)
            await session(local, [b"PUT x %b\nDATA 60\n%bVALID\n" % (THERE.raw, CONTENTS[1])])
            assert THERE in contents(local, repository)
            ours, theirs = memory_pair(capacity=1 << 20)
            await ours.send(b"VERSION 4\nREMOVE %b\n" % THERE.raw)
            ours._out.ended = True
            await serve(theirs, local, mode=ServerMode.WRITE)
            assert contents(local, repository) == {}

    anyio.run(main)
