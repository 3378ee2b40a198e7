"""The stock git-annex as client of our gateway: plain, a proxied node, a cluster, a cluster of two gateways.

After every step the disks are the truth: who holds what, and that the client, the gateway and each node say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from gateways import Gateways, content_of, git

from annexpy.keys.key import Key

pytestmark = pytest.mark.interop

CONTENTS = {
    name: content_of(number, size) for number, (name, size) in enumerate({"a": 10, "b": 3_000, "c": 700_000}.items())
}


@pytest.fixture
def world(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Gateways:
    return Gateways(tmp_path, monkeypatch)


class Steps:
    """What the client does, and who holds what then.

    Places go by their letters: ``w`` the client, ``g`` a gateway, digits for nodes.
    """

    def __init__(self, world: Gateways, keys: Mapping[str, Key], gateway: str = "g") -> None:
        self.world, self.keys, self.gateway = world, keys, gateway

    def annex(self, *words: str, fails: bool = False) -> str:
        return git(self.world.path("w"), "annex", *words, fails=fails)

    def check(self, where: str) -> None:
        """That the keys are *where*, and that everybody who has to know knows."""
        found = [self.world.holders(self.keys[name], CONTENTS[name]) for name in CONTENTS]
        assert ",".join(found) == where
        known = {
            key: self.world.letters(holders) for key, holders in self.world.logged("w", self.keys.values()).items()
        }
        assert ",".join(known[self.keys[name]] for name in CONTENTS) == where, "the client's log"
        logged = self.world.logged(self.gateway, self.keys.values())
        for name, holders in zip(CONTENTS, where.split(","), strict=True):
            at_gateway = self.world.letters(logged[self.keys[name]])
            assert at_gateway.replace("w", "") == holders.replace("w", ""), "the gateway's log"


def test_steps_through_a_cluster_of_three(world: Gateways) -> None:
    world.gateway("g", nodes="123", cluster="safe")
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    annex = steps.annex

    steps.check("w,w,w")
    annex("copy", "--to", "g-safe", ".")
    steps.check("123w,123w,123w")
    annex("drop", ".")
    steps.check("123,123,123")
    annex("get", "--from", "g-safe", "a", "b")
    steps.check("123w,123w,123")
    annex("drop", "--from", "g-2", "a")
    steps.check("13w,123w,123")
    annex("copy", "--to", "g-2", "a")
    steps.check("123w,123w,123")
    annex("drop", "--from", "g-safe", "b")
    annex("drop", "--from", "g-safe", "c", fails=True)
    holders = world.holders(steps.keys["c"], CONTENTS["c"])
    assert holders == "123", "no copy outside: nothing may go"
    annex("move", "--to", "g-safe", "b")
    annex("move", "--from", "g-safe", "c")
    assert world.holders(steps.keys["b"], CONTENTS["b"]) == "123"
    assert world.holders(steps.keys["c"], CONTENTS["c"]) == "w"
    assert "failed" not in annex("fsck", "--from", "g-safe", "b")
    assert "failed" not in annex("fsck", "--from", "g-3", "b")
    annex("sync", "-q", "--content", "g")
    annex("fsck", "--fast")


def test_a_proxied_node_is_a_remote_like_any_other(world: Gateways) -> None:
    world.gateway("g", nodes="1", proxied=True)
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    annex = steps.annex

    annex("copy", "--to", "g-1", "a", "b")
    steps.check("1w,1w,w")
    annex("drop", "a", "b")
    steps.check("1,1,w")
    annex("drop", "c", fails=True)
    annex("get", "a")
    annex("move", "--to", "g-1", "c")
    steps.check("1w,1,1")
    annex("drop", "--from", "g-1", "b", fails=True)
    annex("drop", "--from", "g-1", "a")
    steps.check("w,1,1")
    annex("move", "--from", "g-1", "c")
    steps.check("w,1,w")
    assert "failed" not in annex("fsck", "--from", "g-1", "b")


def test_steps_through_a_cluster_of_two_gateways(world: Gateways) -> None:
    world.gateway("g", nodes="12", cluster="safe")
    world.gateway("h", nodes="3", extends="g", cluster="safe")
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    annex = steps.annex

    annex("copy", "--to", "g-safe", ".")
    steps.check("123w,123w,123w")
    annex("drop", ".")
    steps.check("123,123,123")
    annex("get", "--from", "g-h-3", "a")
    annex("get", "--from", "g-safe", "b")
    steps.check("123w,123w,123")
    annex("drop", "--from", "g-safe", "a", "b")
    annex("drop", "--from", "g-safe", "c", fails=True)
    steps.check("w,w,123")
    annex("move", "--from", "g-safe", "c")
    steps.check("w,w,w")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "node", "cluster", pytest.param("two", marks=pytest.mark.campaign)])
def test_testremote_passes_every_check(world: Gateways, kind: str) -> None:
    match kind:
        case "plain":
            world.gateway("g")
            remote = "g"
        case "node":
            world.gateway("g", nodes="1", proxied=True)
            remote = "g-1"
        case "cluster":
            world.gateway("g", nodes="123", cluster="safe")
            remote = "g-safe"
        case _:
            world.gateway("g", nodes="12", cluster="safe")
            world.gateway("h", nodes="3", extends="g", cluster="safe")
            remote = "g-safe"
    world.client("w", {}, remotes="g")

    said = git(world.path("w"), "annex", "testremote", "--fast", remote)

    passed = re.search(r"All (\d+) tests passed", said)
    assert passed, said[-3000:]
    assert int(passed[1]) > 50
    assert "FAIL" not in said
