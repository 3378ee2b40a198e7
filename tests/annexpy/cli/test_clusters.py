"""``annexpy cluster`` and ``annexpy proxy``, and remotes that exist because of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import OURS, Place, content_of, key_of

CONTENT = content_of(1)
KEY = key_of(CONTENT)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Place]:
    """A gateway ``g``, nodes ``a`` and ``b`` that it has as git remotes, and somebody who has only the gateway."""
    for name, value in OURS:
        monkeypatch.setenv(name, value)
    found = {name: Place.make(tmp_path / name) for name in ("g", "a", "b", "w")}
    for name in "ab":
        found["g"].git("remote", "add", name, f"../{name}")
    found["w"].git("remote", "add", "g", str(found["g"].path))
    monkeypatch.chdir(found["g"].path)
    return found


def test_a_cluster_is_made_and_changed(cli, places: dict[str, Place]) -> None:
    made = cli("--json", "cluster", "init", "safe")
    assert made.code == 0
    assert made.json[0]["uuid"].startswith("ac")
    assert cli("--json", "cluster", "init", "Safe").json[0]["uuid"] == made.json[0]["uuid"], "it stays"

    added = cli("cluster", "add-node", "safe", "a", "b", "--json")
    assert {one["uuid"] for one in added.json[0]["added"]} == {places["a"].uuid, places["b"].uuid}
    assert {one["name"] for one in added.json[0]["started"]} == {"a", "b"}
    assert cli("cluster", "update").lines == ["Nothing has changed."]
    assert cli("proxy", "update", "-q").lines == []
    assert cli("cluster", "remove-node", "safe", "b").lines == [
        "Removed node b from cluster: safe",
        "Stopped proxying for b",
    ]
    places["g"].set("remote.b.annex-proxy", "true")
    assert cli("proxy", "update").lines == ["Started proxying for b"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("init", "no/name"), 2),
        (("init", "a"), 2),
        (("add-node", "nosuch", "a"), 2),
        (("add-node", "safe", "nosuch"), 2),
        (("remove-node", "safe", "b"), 2),
        (("extend", "nosuch", "safe"), 2),
        (("extend", "a", "safe"), 1),
        (("add-node", "safe"), 2),
    ],
)
def test_what_makes_no_sense_changes_nothing(cli, places: dict[str, Place], words: tuple[str, ...], code: int) -> None:
    assert cli("cluster", "init", "safe").code == 0
    assert cli("cluster", "add-node", "safe", "a").code == 0
    before = (places["g"].path / "config").read_bytes()

    ran = cli("cluster", *words)

    assert ran.code == code
    assert ran.err
    assert (places["g"].path / "config").read_bytes() == before


def test_status_tells_of_each_node(cli, places: dict[str, Place]) -> None:
    cli("cluster", "init", "safe")
    cli("cluster", "add-node", "safe", "a", "b")
    places["a"].lay(KEY, CONTENT)
    cli("sync")
    places["b"].path.rename(places["b"].path.with_name("away"))

    ran = cli("cluster", "status", "--json")

    a, b = sorted(ran.json, key=lambda one: one["name"])
    assert ran.code == 1
    assert (a["health"], a["lag"], a["keys"], a["size"], a["in-use"]) == ("ok", 0, 1, len(CONTENT), 0)
    assert (b["health"], b["lag"], b["keys"], b["seconds"]) == ("down", 1, 0, None)
    assert "no such directory" in b["error-messages"][0]
    table = cli("cluster", "status", "safe")
    assert table.lines[0] == "cluster safe"
    assert table.lines[1].split() == ["node", "health", "answers", "in", "in", "use", "lag", "keys", "size", "of"]
    assert any(line.split()[:2] == ["b", "down"] for line in table.lines)
    assert cli("cluster", "status", "nosuch").lines == []


def test_what_a_gateway_shows_is_a_remote_in_every_command(cli, places: dict[str, Place]) -> None:
    cli("cluster", "init", "safe")
    cli("cluster", "add-node", "safe", "a", "b")
    os.chdir(places["w"].path)
    cli("sync", "g")
    file = places["w"].path / "file"
    file.write_bytes(CONTENT)

    assert cli("put", "g-safe", file).code == 0
    key = cli("key", file).lines[0].split()[0]
    assert cli("check", "g-a", key).code == 0
    assert cli("get", "-o", places["w"].path / "out", "g-safe", key).code == 0
    assert (places["w"].path / "out").read_bytes() == CONTENT
    assert cli("copy", "g-b", ".", key).code == 0
    assert cli("drop", "g-a", key).code == 0
    assert cli("fsck", "g-b", key).code == 0
    assert cli("check", "g-a", key).code == 1
    (where,) = cli("whereis", "--json", key).json
    assert {one["uuid"] for one in where["whereis"]} >= {places["b"].uuid, places["w"].uuid}
    assert places["a"].uuid not in {one["uuid"] for one in where["whereis"]}


def test_proxied_remotes_are_completed(cli, places: dict[str, Place]) -> None:
    cli("cluster", "init", "safe")
    cli("cluster", "add-node", "safe", "a", "b")
    os.chdir(places["w"].path)
    cli("sync", "g")

    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.argv[0] = 'annexpy'; from annexpy.cli.app import main; main()"],
        env=os.environ | {"_ANNEXPY_COMPLETE": "bash_complete", "COMP_WORDS": "annexpy put g", "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines() == ["plain,g", "plain,g-a", "plain,g-b", "plain,g-safe"]


def test_a_cluster_of_the_gateway_is_served_by_its_name(cli, places: dict[str, Place]) -> None:
    cli("cluster", "init", "safe")
    cli("cluster", "add-node", "safe", "a", "b")
    address = f"exec:{sys.executable} -m annexpy.cli.app -C {places['g'].path} serve --stdio safe"
    file = places["w"].path / "file"
    file.write_bytes(CONTENT)
    os.chdir(places["w"].path)

    assert cli("put", address, file).code == 0
    key = cli("key", file).lines[0].split()[0]
    assert cli("check", places["a"].path, key).code == 0
    assert cli("check", places["b"].path, key).code == 0
    os.chdir(places["g"].path)
    (where,) = cli("whereis", "--json", key).json
    assert {one["uuid"] for one in where["whereis"]} >= {places["a"].uuid, places["b"].uuid}
