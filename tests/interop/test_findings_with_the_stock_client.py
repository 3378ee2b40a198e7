"""What was found in the reference, with the real git-annex as the client of our gateway.

Fact sheets p2p-protocol, section 0, A to J, and users, section 0, N1 to N9: which test shows what stands in
docs/campaigns.md. Those that are said by line in ``tests/requirements/test_gateway_answers.py`` are run here by the
stock client.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from gateways import Gateways, content_of, git

from annexpy.keys.key import Key

pytestmark = [pytest.mark.interop, pytest.mark.campaign]

CONTENT = content_of(1, 20_000)


@pytest.fixture
def world(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Gateways:
    return Gateways(tmp_path, monkeypatch)


def client(world: Gateways) -> Key:
    """``w``, with one file."""
    return world.client("w", {"file": CONTENT}, remotes="g")["file"]


def annex(world: Gateways, *words: str, fails: bool = False) -> str:
    said = git(world.path("w"), "annex", *words, fails=fails)
    assert fails or "failed" not in said
    return said


def believed(world: Gateways, key: Key) -> str:
    """By client and gateway alike."""
    found = {world.believed(place, key).replace("w", "") for place in "wg"}
    assert len(found) == 1, found
    return found.pop()


@pytest.mark.parametrize("where", ["3", "123"])
def test_what_nodes_behind_two_gateways_have_already_is_recorded(world: Gateways, where: str) -> None:
    """F, N3, N4 and N6."""
    world.gateway("g", nodes="12", cluster="safe")
    world.gateway("h", nodes="3", extends="g", cluster="safe")
    key = client(world)
    for node in where:
        world.places[node].lay(key, CONTENT)

    annex(world, "copy", "--fast", "--to", "g-safe", "file")

    assert world.holders(key, CONTENT) == "123w"
    assert world.believed("g", key).replace("w", "") == "123"
    assert set(world.believed("w", key)) <= set("123w")
    annex(world, "sync", "-q", "g")
    assert believed(world, key) == "123"


def test_what_the_preferred_nodes_have_goes_to_nobody_else(world: Gateways) -> None:
    """G."""
    world.gateway("g", nodes="123", cluster="safe")
    for node, wanted in (("1", "anything"), ("2", "anything"), ("3", "nothing")):
        git(world.path("g"), "annex", "wanted", world.uuid(node), wanted)
    key = client(world)

    for _ in range(2):
        annex(world, "copy", "--fast", "--to", "g-safe", "file")
        assert world.holders(key, CONTENT) == "12w"
        assert world.believed("g", key).replace("w", "") == world.believed("w", key).replace("w", "") == "12"
        for place in ("1", "2", "safe"):
            annex(world, "setpresentkey", str(key), world.uuid(place), "0")  # so that it is sent again


@pytest.mark.parametrize("fault", ["error-on-put", "failure-on-put", "claims", "dies-in-data", "dies-after-data"])
def test_a_node_that_answers_something_else_is_left_out(world: Gateways, fault: str) -> None:
    """E, N5 and N9."""
    world.gateway("g", nodes="123", cluster="safe")
    key = client(world)
    world.spoil("g", "2", fault)

    annex(world, "copy", "--to", "g-safe", "file")

    assert world.holders(key, CONTENT) == "13w"
    assert believed(world, key) == "13"


@pytest.mark.parametrize("fault", ["dies-in-data", "dies-after-data", "error-on-put", "claims"])
def test_a_move_that_no_node_survives_keeps_the_only_copy(world: Gateways, fault: str) -> None:
    """A, E and N9."""
    world.gateway("g", nodes="123", cluster="safe")
    key = client(world)
    for node in "123":
        world.spoil("g", node, fault)

    annex(world, "move", "--to", "g-safe", "file", fails=True)

    assert world.holders(key, CONTENT) == "w"
    assert world.believed("w", key) == "w"
    assert world.believed("g", key).replace("w", "") == ""


def test_two_drops_that_rely_on_each_other_never_remove_both_copies(world: Gateways) -> None:
    """J: each of two clients drops from one of two nodes; some of them die before they have said that they are done."""
    world.gateway("g", nodes="12", proxied=True)
    key = client(world)
    git(world.folder, "clone", "-q", str(world.path("w")), "v")
    git(world.path("v"), "annex", "init", "-q", "v")
    world.connect("v", "g")
    world.fetch(world.path("v"), "g")
    for node in "12":
        annex(world, "copy", "--to", f"g-{node}", "file")
    annex(world, "drop", "file")
    for place in "wv":
        git(world.path(place), "annex", "sync", "-q", "g")

    def drop(place: str, node: str, dies: bool) -> int:
        words = ["git", "annex", "drop", "--from", f"g-{node}", "file"]
        with subprocess.Popen(words, cwd=world.path(place), stdout=-3, stderr=-3, stdin=-3) as process:
            try:
                return process.wait(2 if dies else 100)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait(10)

    with ThreadPoolExecutor(2) as pool:
        for dies in (True, False):
            codes = list(pool.map(partial(drop, dies=dies), "wv", "12"))
            assert world.holders(key, CONTENT) in ("1", "2", "12")
    assert codes != [0, 0]
