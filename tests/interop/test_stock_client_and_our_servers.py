"""The stock git-annex as client of ours: over ssh, HTTP and p2p-annex; to a repository, a node and two clusters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from carriers import CONTENTS, TARGETS, Carried, agreed, judged, walk
from gateways import git
from served import curl

pytestmark = pytest.mark.interop

CARRIERS = ("shell", "ssh", "http", "p2p")
ALWAYS_THERE = ("removeKey", "storeKey", "checkPresent")
"""What testremote wants to fail at a remote that is away. Over HTTP it is there all the same, since annexUrl is set:
the same three fail with git-annex as the server."""

Make = Callable[..., Carried]


@pytest.fixture
def make(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    made: list[Carried] = []

    def world(carrier: str, target: str, *, stock: bool = False) -> Carried:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Carried(folder, monkeypatch, carrier, target, stock=stock))
        return made[-1]

    yield world
    for one in made:
        one.stop()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("carrier", CARRIERS)
def test_after_every_step_the_disks_and_the_logs_say_the_same(make: Make, carrier: str, target: str) -> None:
    world = make(carrier, target)
    keys = world.begin()
    walk(world, keys, "git-annex")
    world.stop()
    agreed(world, keys)


@pytest.mark.parametrize(("target", "node"), [("cluster", "g-3"), ("two gateways", "g-h-3")])
@pytest.mark.parametrize("carrier", ["shell", "http"])
def test_the_nodes_of_a_cluster_are_remotes_of_their_own(make: Make, carrier: str, target: str, node: str) -> None:
    world = make(carrier, target)
    key = world.begin()["a"]

    def annex(*words: str, then: str) -> None:
        assert "failed" not in git(world.path("w"), "annex", *words)
        assert world.holders(key, CONTENTS["a"]) == world.believed("w", key) == then

    annex("copy", "--to", "g-safe", "a", then="123w")
    annex("drop", "--from", node, "a", then="12w")
    annex("copy", "--to", node, "a", then="123w")
    annex("drop", "a", then="123")
    annex("get", "--from", node, "a", then="123w")
    annex("fsck", "--from", node, "a", then="123w")
    world.stop()
    assert world.believed("g", key).replace("w", "") == "123"


# -- testremote -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("carrier", ["shell", "ssh", "http"])
def test_testremote_passes_every_check_that_it_can(make: Make, carrier: str, target: str) -> None:
    world = make(carrier, target)
    world.begin()
    verdict = judged(world, "--fast", "--size=100KiB")
    assert verdict.checks == 125
    assert verdict.failed == (ALWAYS_THERE if carrier == "http" else ())


@pytest.mark.slow
@pytest.mark.campaign
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("carrier", ["shell", "ssh", "http"])
def test_the_whole_testremote_fails_nothing_that_it_passes_with_git_annex_as_the_server(
    make: Make, carrier: str, target: str
) -> None:
    verdicts = []
    for stock in (True, False):
        world = make("shell" if stock and carrier == "ssh" else carrier, target, stock=stock)
        world.begin()
        verdicts.append(judged(world))
        print(carrier, target, "git-annex" if stock else "annexpy", verdicts[-1])
    theirs, ours = verdicts
    assert ours.checks == theirs.checks > 500
    assert ours.failed == (ALWAYS_THERE if carrier == "http" else ())
    assert set(ours.failed) <= set(theirs.failed)


@pytest.mark.parametrize("stock", [True, False], ids=["git-annex", "annexpy"])
def test_testremote_never_begins_over_p2p_annex_whoever_serves(make: Make, stock: bool) -> None:
    world = make("p2p", "plain", stock=stock)
    world.begin()
    assert "git-annex: failed disabling exportree" in git(world.path("w"), "annex", "testremote", "g", fails=True)


# -- nodes that are at fault, over HTTP -------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["g-1", "g-safe"])
@pytest.mark.parametrize("fault", ["read-only", "gone", "refused", "full"])
def test_a_node_that_cannot_store_never_costs_the_only_copy(make: Make, target: str, fault: str) -> None:
    world = make("http", "cluster of one")
    key = world.begin()["c"]
    world.spoil("g", "1", fault)

    git(world.path("w"), "annex", "move", "--to", target, "c", fails=True)

    assert world.holders(key, CONTENTS["c"]) == "w"
    assert world.believed("w", key) == "w"
    world.stop()
    assert "1" not in world.believed("g", key)


def test_nodes_that_are_away_do_not_hold_up_the_others(make: Make) -> None:
    world = make("http", "cluster")
    keys = world.begin()
    world.spoil("g", "2", "refused")

    def annex(*words: str, fails: bool = False) -> None:
        git(world.path("w"), "annex", *words, fails=fails)

    def check(where: str) -> None:
        for name, key in keys.items():
            assert world.holders(key, CONTENTS[name]) == world.believed("w", key) == where

    annex("copy", "--to", "g-safe", ".")
    check("13w")
    annex("drop", ".")
    annex("get", "--from", "g-safe", ".")
    check("13w")
    annex("drop", "--from", "g-safe", "a", fails=True)
    assert world.holders(keys["a"], CONTENTS["a"]) == "w"
    world.stop()
    assert world.believed("g", keys["a"]).replace("w", "") in ("", "2")


def test_locks_that_were_not_given_use_nothing_up(make: Make) -> None:
    world = make("http", "plain")
    keys = world.begin()
    assert world.server is not None
    path = f"v4/lockcontent?key={keys['a']}&clientuuid={world.uuid('w')}"
    url = f"{world.server.url}/git-annex/{world.uuid('g')}/{path}"
    said = curl("-X", "POST", *[f"{url}&n={number}" for number in range(150)])
    assert said.count('{"locked":false}') == 150

    git(world.path("w"), "annex", "copy", "--to", "g", ".")
    git(world.path("w"), "annex", "drop", ".")

    assert [world.holders(key, CONTENTS[name]) for name, key in keys.items()] == ["g"] * 3
