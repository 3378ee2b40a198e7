"""Commands of annexpy and of the real git-annex in turn, and at the same time, on the same repositories."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from places import Place, annexpy, content_of, key_of

from annexpy.keys.key import Key

pytestmark = pytest.mark.interop

OTHER = "11111111-1111-4111-8111-111111111111"


# -- in turn ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pushed_to(tmp_path: Path, git_annex: str) -> tuple[Place, Key]:
    """A repository into which somebody pushed what nobody has merged: a copy elsewhere, and numcopies."""
    content = content_of(1)
    place, other = Place.make(tmp_path / "r.git", [content]), Place.make(tmp_path / "other.git", [content])
    key = key_of(content)
    other.git("remote", "add", "r", str(place.path))
    other.git("annex", "setpresentkey", str(key), OTHER, "1")
    other.git("annex", "numcopies", "3")
    other.git("annex", "merge")
    place.git("remote", "add", "other", str(other.path))
    place.set("remote.other.annex-uuid", other.uuid)
    other.git("push", "-q", "r", "git-annex:refs/heads/synced/git-annex")
    return place, key


def test_what_was_pushed_here_is_known_to_the_next_command(pushed_to: tuple[Place, Key]) -> None:
    place, key = pushed_to
    (line,) = annexpy(place.path, "whereis", key)

    assert {one["uuid"] for one in line["whereis"]} > {place.uuid, OTHER}
    assert place.whereis([key])[key] == {one["uuid"] for one in line["whereis"]}


def test_a_drop_obeys_numcopies_that_was_pushed_here(pushed_to: tuple[Place, Key]) -> None:
    place, key = pushed_to
    annexpy(place.path, "drop", ".", key, fails=True)

    assert place.object(key) is not None


def test_annex_merge_annex_branches_is_obeyed(pushed_to: tuple[Place, Key]) -> None:
    place, key = pushed_to
    place.set("annex.merge-annex-branches", "false")
    (line,) = annexpy(place.path, "whereis", key)

    assert [one["uuid"] for one in line["whereis"]] == [place.uuid]
    assert place.whereis([key])[key] == {place.uuid}


# -- at the same time -------------------------------------------------------------------------------------------------


def at_once(*commands: Callable[[], object]) -> None:
    with ThreadPoolExecutor(len(commands)) as pool:
        for done in [pool.submit(command) for command in commands]:
            done.result()


def test_commands_of_both_at_the_same_time_lose_no_line_and_no_content(tmp_path: Path, git_annex: str) -> None:
    """They add, copy, put and check side by side; then both drop the same files."""
    contents = {f"f{number}": content_of(number) for number in range(24)}
    path = tmp_path / "work"
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    subprocess.run(["git", "annex", "init", "-q", "work"], cwd=path, check=True)
    work, one, two = Place(path), Place.make(tmp_path / "one.git"), Place.make(tmp_path / "two.git")
    for name, remote in (("one", one), ("two", two)):
        work.git("remote", "add", name, str(remote.path))
    work.set("annex.backend", "SHA256")

    def annex(*words: str) -> None:
        work.git("annex", *words)

    def add(*names: str) -> None:
        for name in names:
            (path / name).write_bytes(contents[name])
        annex("add", "-q", *names)

    names = list(contents)
    keys = [key_of(content) for content in contents.values()]
    more = [tmp_path / f"more{number}" for number in range(6)]
    put = [content_of(100 + number) for number in range(6)]
    for file, content in zip(more, put, strict=True):
        file.write_bytes(content)
    add(*names[:16])

    at_once(
        lambda: add(*names[16:]),
        lambda: annex("copy", "-q", "--to", "one", *names[:8]),
        lambda: annexpy(path, "copy", ".", "two", *keys[:16]),
        lambda: annexpy(path, "put", "one", "--backend", "SHA256", *more),
        lambda: annex("fsck", "-q", "--fast", *names[:16]),
    )

    def where() -> dict[Key, set[str]]:
        return {
            key: {place.uuid for place in (work, one, two) if place.holds(key, content)}
            for key, content in zip(keys, contents.values(), strict=True)
        }

    assert where() == work.logged(keys) == work.whereis(keys)
    assert [len(holders) for holders in where().values()] == [3] * 8 + [2] * 8 + [1] * 8
    assert all(holders == {one.uuid} for holders in work.logged(map(key_of, put)).values())
    assert all(one.holds(key_of(content), content) for content in put)

    at_once(
        lambda: subprocess.run(["git", "annex", "drop", "-q", *names], cwd=path, capture_output=True, check=False),
        lambda: annexpy(path, "drop", "--other", "two", ".", *reversed(keys), fails=None),
    )

    assert where() == work.logged(keys) == work.whereis(keys)
    assert [len(holders) for holders in where().values()] == [2] * 8 + [1] * 16
    for place in (work, one, two):
        place.git("fsck", "--strict", "--no-dangling")
