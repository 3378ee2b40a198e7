"""What goes some at once, while the real git-annex does the same, or the opposite, to the same keys."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from places import Place, content_of, in_process, key_of

from annexpy.actions.copy import copy
from annexpy.actions.drop import drop_many
from annexpy.errors import TransferInProgress
from annexpy.keys.key import Key
from annexpy.policy.numcopies import Copies
from annexpy.remote.local import Local
from annexpy.repo.repository import Repository

pytestmark = pytest.mark.interop

CONTENTS = {key_of(content): content for content in (content_of(number, 600) for number in range(48))}
KEYS = list(CONTENTS)
BEHIND = 8


@contextmanager
def git_annex_in(place: Place, *words: str) -> Iterator[Callable[[Sequence[Key]], Iterator[bool]]]:
    """One ``git annex`` for many keys: whether it did what *words* say to each, as it gets to it."""
    with subprocess.Popen(
        ["git", "annex", *words, "--batch-keys", "--json", "--json-error-messages"],
        cwd=place.path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        given, said = process.stdin, process.stdout

        def ask(keys: Sequence[Key]) -> Iterator[bool]:
            given.write("".join(f"{key}\n" for key in keys))
            given.flush()
            for _ in keys:
                line = said.readline()
                yield bool(line.strip()) and bool(json.loads(line)["success"])

        yield ask
        given.close()
        said.read()


def two_that_know_each_other(folder: Path, contents: Sequence[bytes]) -> tuple[Place, Place]:
    one, two = Place.make(folder / "one.git", contents), Place.make(folder / "two.git", contents)
    for place, other, name in ((one, two, "two"), (two, one, "one")):
        place.git("remote", "add", name, str(other.path))
        place.set(f"remote.{name}.annex-uuid", other.uuid)
        with Repository.open(place.path) as repository:
            for key in KEYS:
                repository.branch.set_present(key, other.uuid, True)
            repository.branch.commit_now()
    return one, two


def drop_from_both_sides(folder: Path, rounds: int) -> tuple[int, int]:
    """git-annex drops from one, we from the other; what was dropped there, and here."""
    one, two = two_that_know_each_other(folder, list(CONTENTS.values()))
    dropped = [0, 0]

    async def ours(keys: Sequence[Key]) -> int:
        async with in_process(one, "one") as there, in_process(two, "two") as here:
            dropping = drop_many(keys, from_=here, others=[there], copies=Copies())
            return sum([result.ok async for result in dropping])

    with git_annex_in(one, "drop") as git_annex:
        for start in range(rounds):
            order = KEYS[start % 48 :] + KEYS[: start % 48]
            for place in (one, two):
                for key, content in CONTENTS.items():
                    if place.object(key) is None:
                        place.lay(key, content)
            for number, ok in enumerate(git_annex(order)):
                dropped[0] += ok
                if number % BEHIND == start % BEHIND:  # it is at the first of these now
                    dropped[1] += anyio.run(ours, order[number + 1 : number + 1 + BEHIND])
            for key, content in CONTENTS.items():
                assert one.holds(key, content) or two.holds(key, content), f"round {start}: the last copy is gone"
    for place in (one, two):
        holds = {key for key, content in CONTENTS.items() if place.holds(key, content)}
        assert {key for key, holders in place.logged(KEYS).items() if place.uuid in holders} == holds
    return dropped[0], dropped[1]


def test_drops_from_both_sides_leave_one_copy(tmp_path: Path, git_annex: str) -> None:
    theirs, ours = drop_from_both_sides(tmp_path, 3)

    assert theirs
    assert ours


@pytest.mark.campaign
def test_many_drops_from_both_sides_leave_one_copy(tmp_path: Path, git_annex: str) -> None:
    print(drop_from_both_sides(tmp_path, 200))


def test_the_same_keys_come_in_by_both_at_once(tmp_path: Path, git_annex: str) -> None:
    """Whoever comes second waits for nobody and breaks nothing; each transfer is seen by the other."""
    source, target = Place.make(tmp_path / "source.git", CONTENTS.values()), Place.make(tmp_path / "target.git")
    target.git("remote", "add", "source", str(source.path))
    target.set("remote.source.annex-uuid", source.uuid)

    async def ours(keys: Sequence[Key]) -> None:
        with Repository.open(target.path) as repository:
            taker = Local(repository, durability="fast")
            async with in_process(source, "source") as giver:
                async for transfer in copy(giver, taker, keys):
                    assert transfer.ok or isinstance(transfer.error, TransferInProgress), transfer.error
            await taker.aclose()

    with git_annex_in(target, "get", "--from=source") as git_annex:
        for number, _ in enumerate(git_annex(KEYS)):
            if number % BEHIND == 0:
                anyio.run(ours, KEYS[number + 1 : number + 1 + BEHIND // 2])

    assert all(target.holds(key, content) for key, content in CONTENTS.items())
    assert {key for key, holders in target.logged(KEYS).items() if target.uuid in holders} == set(KEYS)
    assert target.whereis(KEYS) == target.logged(KEYS)
    left = target.git_dir / "annex" / "transfer" / "download"
    assert [path for path in left.rglob("*") if path.is_file()] == []
    assert list((target.git_dir / "annex" / "tmp").iterdir()) == []
