"""``annexpy cluster`` and ``annexpy proxy``, and remotes that exist because of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from places import OURS, Place, content_of, key_of

from annexpy.cli.group import annexpy
from annexpy.keys.key import Key
from annexpy.policy.routes import proxied_routes
from annexpy.repo.repository import Repository
from annexpy.repo.topology import topology

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


def test_a_gateway_that_was_never_met_is_asked_who_it_is(
    cli, places: dict[str, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("cluster", "init", "safe")
    cli("cluster", "add-node", "safe", "a", "b")
    me = places["w"]
    me.git("fetch", "-q", "g", "git-annex:refs/remotes/g/git-annex")
    monkeypatch.chdir(me.path)
    Path("file").write_bytes(CONTENT)
    assert b"annex-uuid" not in (me.path / "config").read_bytes()

    (put,) = cli("put", "g-safe", "file", "--json").json

    assert set(put["stored"]) == {places["a"].uuid, places["b"].uuid}
    assert cli("check", "g-nosuch", KEY).code == 1


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


@pytest.fixture
def behind(cli, places: dict[str, Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Place]:
    """``w`` has only ``f``, a proxy for ``g``, which is one for ``a`` and ``b``, and the gateway of ``safe``."""
    cli("cluster", "init", "safe")
    cli("cluster", "add-node", "safe", "a", "b")
    places["f"] = Place.make(tmp_path / "f")
    places["f"].git("remote", "add", "g", str(places["g"].path))
    places["f"].set("remote.g.annex-proxy", "true")
    places["w"].git("remote", "rename", "g", "f")
    places["w"].git("remote", "set-url", "f", str(places["f"].path))
    monkeypatch.chdir(places["f"].path)
    assert cli("sync", "g").code == 0
    assert cli("proxy", "update").code == 0
    monkeypatch.chdir(places["w"].path)
    assert cli("sync", "f").code == 0
    return places


@pytest.mark.slow
@pytest.mark.parametrize(("name", "other"), [("f-g-a", "f-g-b"), ("f-g-safe", "f-g-a")])
def test_what_is_behind_two_proxies_is_a_remote_in_every_command(
    cli, behind: dict[str, Place], name: str, other: str
) -> None:
    cluster = name.endswith("safe")
    file, out = behind["w"].path / "file", behind["w"].path / "out"
    file.write_bytes(CONTENT)

    assert cli("put", name, file).code == 0
    key = Key.parse(cli("key", file).lines[0].split()[0])
    assert behind["a"].holds(key, CONTENT)
    assert behind["b"].holds(key, CONTENT) is cluster
    assert cli("check", name, key).code == 0
    assert cli("get", "-o", out, name, key).code == 0
    assert out.read_bytes() == CONTENT
    assert cli("copy", name, other, key).code == 0
    assert cli("fsck", name, key).code == 0
    assert cli("get", name, key).code == 0
    assert cli("explain", "--from", ".", "--other", name, "-N", "1", key).code == 0
    assert cli("explain", "--from", name, "--other", other, "-N", "1", key).code == 0
    assert cli("lock", name, key, "--", "true").code == (1 if cluster else 0), "a cluster cannot be locked as a whole"
    said = cli("talk", name, stdin=f"checkpresent {key}\n".encode())
    assert said.code == 0
    assert any("SUCCESS" in line for line in said.lines)
    address = f"exec:{sys.executable} -m annexpy.cli.app -C {behind['w'].path} serve --stdio {name}"
    assert cli("check", address, key).code == 0
    assert cli("move", name, ".", key).code == 0
    assert not behind["a"].holds(key, CONTENT)
    assert cli("move", ".", name, key).code == 0
    assert behind["a"].holds(key, CONTENT)
    assert cli("copy", name, ".", key).code == 0
    assert cli("drop", name, key).code == 0
    assert cli("check", name, key).code == 1
    (where,) = cli("whereis", "--json", key).json
    found = {one["uuid"] for one in where["whereis"]} & {place.uuid for place in behind.values()}
    assert found == {behind["w"].uuid} | (set() if cluster else {behind["b"].uuid})


def test_proxies_of_each_other_lead_nowhere_twice(
    cli, behind: dict[str, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """f and g are proxies for each other: names come to an end, and commands too."""
    behind["g"].git("remote", "add", "f", str(behind["f"].path))
    behind["g"].set("remote.f.annex-proxy", "true")
    for place, remote in (("g", "f"), ("f", "g"), ("g", "f"), ("w", "f")):
        monkeypatch.chdir(behind[place].path)
        cli("sync", remote)
        cli("proxy", "update")
    with Repository.open(behind["w"].path) as repository:
        names = set(proxied_routes(topology(repository)))
    assert {"f-g", "f-g-a", "f-g-b"} <= names
    assert not [name for name in names if "f-g-f" in name or name.count("g") > 1]
    file = behind["w"].path / "file"
    file.write_bytes(CONTENT)
    assert cli("put", "f-g-safe", file).code == 0
    key = Key.parse(cli("key", file).lines[0].split()[0])
    assert behind["a"].holds(key, CONTENT)
    assert behind["b"].holds(key, CONTENT)


@pytest.mark.parametrize(
    "words",
    [
        *(f"{verb} f-" for verb in ("put", "get", "check", "fsck", "drop", "lock", "talk", "serve")),
        *("copy . f-", "move f-g-a f-", "explain --from f-", "explain --other f-"),
    ],
)
def test_every_command_completes_what_is_behind_proxies(cli, behind: dict[str, Place], words: str) -> None:
    *args, incomplete = words.split()
    found = ShellComplete(annexpy, {}, "annexpy", "_ANNEXPY_COMPLETE").get_completions(args, incomplete)
    assert {"f-g", "f-g-a", "f-g-b", "f-g-safe"} <= {one.value for one in found}
