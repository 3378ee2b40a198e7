"""Clusters and proxies that we set up and git-annex uses, and the other way round: neither finds anything to change."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from gateways import Gateways, annexpy, content_of, git

from annexpy.actions import cluster as clusters
from annexpy.policy.routes import Topology
from annexpy.repo.repository import Repository
from annexpy.repo.topology import topology

pytestmark = pytest.mark.interop

NOTHING = ("No proxy changes to record.",)


@pytest.fixture
def world(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Gateways:
    return Gateways(tmp_path, monkeypatch)


def known(world: Gateways, name: str) -> Topology:
    with Repository.open(world.path(name)) as repository:
        return topology(repository)


def git_annex_changes(world: Gateways, name: str) -> list[str]:
    """What the real one has to change; it runs until it is content, as it sees its own changes late."""
    said = git(world.path(name), "annex", "updatecluster") + git(world.path(name), "annex", "updateproxy")
    return [line for line in said.splitlines() if not line.startswith("No ")]


def we_change(world: Gateways, name: str) -> clusters.Changes:
    with Repository.open(world.path(name)) as repository:
        repository.branch.merge_now()
        return anyio.run(clusters.update, repository)


def test_what_we_record_git_annex_would_not_change(world: Gateways) -> None:
    world.gateway("g", nodes="12", cluster="safe", proxied=True)
    before = known(world, "g")
    assert git_annex_changes(world, "g") == []

    with Repository.open(world.path("g")) as repository:
        assert anyio.run(clusters.remove_nodes, repository, "safe", ["2"])
    git(world.path("g"), "config", "--unset", "remote.1.annex-proxy")
    we_change(world, "g")
    assert git_annex_changes(world, "g") == []
    git(world.path("g"), "config", "remote.2.annex-cluster-node", "safe")
    we_change(world, "g")
    assert git_annex_changes(world, "g") == []
    assert known(world, "g").clusters == before.clusters
    assert known(world, "g").proxies == before.proxies


def test_what_git_annex_records_we_would_not_change(world: Gateways) -> None:
    world.gateway("g")
    for node in "123":
        git(world.path("g"), "remote", "add", node, str(world.place(node).path))
    git(world.path("g"), "annex", "initcluster", "safe")
    assert git_annex_changes(world, "g") == ["Started proxying for safe"]
    assert not we_change(world, "g")
    for node in "12":
        git(world.path("g"), "config", f"remote.{node}.annex-cluster-node", "safe")
    git(world.path("g"), "config", "remote.3.annex-proxy", "true")
    assert len(git_annex_changes(world, "g")) == 5
    assert not we_change(world, "g")
    git(world.path("g"), "config", "--unset", "remote.2.annex-cluster-node")
    git(world.path("g"), "remote", "remove", "3")
    assert len(git_annex_changes(world, "g")) == 3
    assert not we_change(world, "g")


@pytest.mark.parametrize("order", ["ours first", "git-annex first"])
def test_two_gateways_agree_whoever_sets_them_up(world: Gateways, order: str) -> None:
    world.gateway("g", nodes="12", cluster="safe")
    world.gateway("h", nodes="3", extends="g", cluster="safe")
    for name, other in ("hg", "gh", "hg"):
        world.learn(name, other)
        if order == "ours first":
            we_change(world, name)
            assert git_annex_changes(world, name) == []
        else:
            git_annex_changes(world, name)
            assert not we_change(world, name)
    assert {one.name for one in known(world, "g").proxies[world.uuid("g")]} == {"safe", "1", "2", "h-3"}
    assert {one.name for one in known(world, "h").proxies[world.uuid("h")]} == {"safe", "3", "g-1", "g-2"}


def test_a_proxy_behind_a_proxy_is_recorded_as_git_annex_records_it(world: Gateways) -> None:
    world.gateway("h", nodes="3", proxied=True)
    world.gateway("g")
    world.connect("g", "h")
    world.learn("g", "h")
    for name in ("h", "h-3"):
        git(world.path("g"), "config", f"remote.{name}.annex-proxy", "true")
    we_change(world, "g")
    assert git_annex_changes(world, "g") == []
    assert {one.name for one in known(world, "g").proxies[world.uuid("g")]} == {"h"}


def test_what_lies_behind_two_proxies_is_reached_without_more_setup(world: Gateways) -> None:
    content = content_of(6)
    world.gateway("h", nodes="3", proxied=True)
    world.gateway("g")
    world.connect("g", "h")
    world.learn("g", "h")
    git(world.path("g"), "config", "remote.h.annex-proxy", "true")
    we_change(world, "g")
    keys = world.client("w", {"file": content}, remotes="g")

    annexpy(world.path("w"), "copy", ".", "g-h-3", keys["file"])
    assert world.holders(keys["file"], content) == "3w"
    annexpy(world.path("w"), "drop", ".", keys["file"])
    assert world.holders(keys["file"], content) == "3"
    annexpy(world.path("w"), "get", "g-h-3", keys["file"])
    annexpy(world.path("w"), "move", ".", "g-h-3", keys["file"])
    annexpy(world.path("w"), "drop", "g-h-3", keys["file"], fails=True)
    assert world.holders(keys["file"], content) == "3"
    assert [world.believed(place, keys["file"]) for place in "wgh"] == ["3", "3", "3"]


def test_a_cluster_that_git_annex_has_set_up_is_used_through_our_shell_and_the_other_way_round(world: Gateways) -> None:
    content = content_of(5)
    world.gateway("g")
    for node in "12":
        git(world.path("g"), "remote", "add", node, str(world.place(node).path))
        git(world.path("g"), "config", f"remote.{node}.annex-cluster-node", "safe")
    git(world.path("g"), "annex", "initcluster", "safe")
    git(world.path("g"), "annex", "updatecluster")
    keys = world.client("w", {"file": content}, remotes="g")

    git(world.path("w"), "annex", "copy", "--to", "g-safe", "file")
    assert world.holders(keys["file"], content) == "12w"
    git(world.path("w"), "config", "remote.g.annex-shell", "git-annex-shell")
    git(world.path("w"), "annex", "drop", "--from", "g-safe", "file")
    assert world.holders(keys["file"], content) == "w"
    git(world.path("w"), "annex", "copy", "--to", "g-safe", "file")
    assert world.holders(keys["file"], content) == "12w"
    assert world.believed("g", keys["file"]) in ("12", "12w")


@pytest.mark.parametrize("name", ["a/b", "my_cluster", "9", "", "-x", "a..b", "1"])
def test_a_name_that_git_annex_refuses_is_refused(world: Gateways, name: str) -> None:
    world.gateway("g", nodes="1")
    with Repository.open(world.path("g")) as repository, pytest.raises(ValueError, match="cluster"):
        anyio.run(clusters.init, repository, name)
