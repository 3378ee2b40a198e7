"""The stock git-annex as client of our gateway over HTTP: a proxied node, a cluster, a cluster of two gateways.

The steps are those of ``test_stock_client_and_our_gateway``; the disks are the truth.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from gateways import Gateways, content_of, git
from served import serve

from annexpy.keys.key import Key

pytestmark = pytest.mark.interop

CONTENTS = {
    name: content_of(number, size) for number, (name, size) in enumerate({"a": 10, "b": 3_000, "c": 700_000}.items())
}


class HTTPGateways(Gateways):
    """A world whose client comes by HTTP."""

    def serve(self) -> None:
        self.stack = ExitStack()
        names = [str(place.path) for name, place in self.places.items() if name in "gh"]
        self.server = self.stack.enter_context(serve("--http", "127.0.0.1:0", "--wideopen", *names))
        self.url = self.server.url

    def stop(self) -> None:
        if self.server.process.poll() is None:
            assert self.server.stop() == 0
            assert not [line for line in self.server.lines if "Traceback" in line]

    def client(self, name: str, contents: Mapping[str, bytes], *, remotes: Sequence[str]) -> dict[str, Key]:
        self.serve()
        keys = super().client(name, contents, remotes=remotes)
        git(self.path(name), "annex", "info", "-q", "--fast")  # has it look at its remotes
        return keys

    def connect(self, here: str, there: str) -> None:
        if here != "w":
            super().connect(here, there)
            return
        git(self.path(here), "config", "annex.security.allowed-ip-addresses", "all")
        git(self.path(here), "remote", "add", there, f"{self.url}/{there}")


@pytest.fixture
def world(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPGateways]:
    made = HTTPGateways(tmp_path, monkeypatch)
    try:
        yield made
    finally:
        made.stop()


class Steps:
    """What the client does, and who holds what then; places go by their letters."""

    def __init__(self, world: HTTPGateways, keys: Mapping[str, Key]) -> None:
        self.world, self.keys = world, keys

    def annex(self, *words: str, fails: bool = False) -> str:
        return git(self.world.path("w"), "annex", *words, fails=fails)

    def check(self, where: str) -> None:
        """That the keys are *where*, and that the client says so."""
        found = [self.world.holders(self.keys[name], CONTENTS[name]) for name in CONTENTS]
        assert ",".join(found) == where
        logged = self.world.logged("w", self.keys.values())
        assert ",".join(self.world.letters(logged[self.keys[name]]) for name in CONTENTS) == where, "the client's log"

    def check_gateway(self, where: str) -> None:
        """The same of the gateway's log, once its server has ended. It does not know about the client."""
        self.world.stop()
        logged = self.world.logged("g", self.keys.values())
        said = [self.world.letters(logged[self.keys[name]]) for name in CONTENTS]
        assert ",".join(said).replace("w", "") == where.replace("w", ""), "the gateway's log"


def test_steps_through_a_cluster_of_three(world: HTTPGateways) -> None:
    world.gateway("g", nodes="123", cluster="safe")
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    annex = steps.annex

    annex("copy", "--to", "g-safe", ".")
    steps.check("123w,123w,123w")
    annex("drop", ".")
    steps.check("123,123,123")
    annex("get", "--from", "g-safe", "a", "b")
    steps.check("123w,123w,123")
    annex("drop", "--from", "g-2", "a")
    steps.check("13w,123w,123")
    annex("copy", "--to", "g-2", "a")
    annex("drop", "--from", "g-safe", "b")
    annex("drop", "--from", "g-safe", "c", fails=True)
    steps.check("123w,w,123")
    annex("move", "--to", "g-safe", "b")
    annex("move", "--from", "g-safe", "c")
    steps.check("123w,123,w")
    assert "failed" not in annex("fsck", "--from", "g-safe", "b")
    steps.check_gateway("123w,123,w")


def test_a_proxied_node_is_a_remote_like_any_other(world: HTTPGateways) -> None:
    world.gateway("g", nodes="1", proxied=True)
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    annex = steps.annex

    annex("copy", "--to", "g-1", "a", "b")
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
    steps.check_gateway("w,1,w")


def test_steps_through_a_cluster_of_two_gateways(world: HTTPGateways) -> None:
    world.gateway("g", nodes="12", cluster="safe")
    world.gateway("h", nodes="3", extends="g", cluster="safe")
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    annex = steps.annex

    annex("copy", "--to", "g-safe", ".")
    steps.check("123w,123w,123w")
    annex("drop", ".")
    annex("get", "--from", "g-safe", "b")
    annex("drop", "--from", "g-safe", "b")
    annex("drop", "--from", "g-safe", "c", fails=True)
    steps.check("123,w,123")
    annex("move", "--from", "g-safe", "c")
    steps.check("123,w,w")


@pytest.mark.parametrize("target", ["g-1", "g-safe"])
@pytest.mark.parametrize("fault", ["read-only", "gone", "refused", "full"])
def test_a_node_that_cannot_store_never_costs_the_only_copy(world: HTTPGateways, target: str, fault: str) -> None:
    world.gateway("g", nodes="1", cluster="safe")
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    world.spoil("g", "1", fault)

    steps.annex("move", "--to", target, "c", fails=True)

    assert world.holders(steps.keys["c"], CONTENTS["c"]) == "w"
    assert world.believed("w", steps.keys["c"]) == "w"
    world.stop()
    assert "1" not in world.believed("g", steps.keys["c"])


def test_nodes_that_are_away_do_not_hold_up_the_others(world: HTTPGateways) -> None:
    world.gateway("g", nodes="123", cluster="safe")
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    world.spoil("g", "2", "refused")

    steps.annex("copy", "--to", "g-safe", ".")
    steps.check("13w,13w,13w")
    steps.annex("drop", ".")
    steps.annex("get", "--from", "g-safe", ".")
    steps.check("13w,13w,13w")
    steps.annex("drop", "--from", "g-safe", "a", fails=True)
    assert world.holders(steps.keys["a"], CONTENTS["a"]) == "w"
    world.stop()
    assert world.believed("g", steps.keys["a"]).replace("w", "") in ("", "2")


def test_locks_that_were_not_given_use_nothing_up(world: HTTPGateways) -> None:
    world.gateway("g")
    steps = Steps(world, world.client("w", CONTENTS, remotes="g"))
    absent = steps.keys["a"]
    url = f"{world.url}/git-annex/{world.uuid('g')}/v4/lockcontent?key={absent}&clientuuid={world.uuid('w')}"
    done = subprocess.run(
        ["curl", "-sS", "-X", "POST", *[f"{url}&n={n}" for n in range(150)]], capture_output=True, text=True, check=True
    )
    assert done.stdout.count('{"locked":false}') == 150

    steps.annex("copy", "--to", "g", ".")
    steps.annex("drop", ".")

    steps.check("g,g,g")
    assert os.path.exists(world.path("w"))
