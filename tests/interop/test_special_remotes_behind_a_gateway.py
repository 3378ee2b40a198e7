"""Directory and S3 special remotes behind our gateway, proxied and as nodes of a cluster.

What a stock gateway gets wrong with them (fact sheet p2p-protocol, 0.I), and the real git-annex as the client.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateways import Gateways, content_of, git, key_of
from places import ROOT, Place

from annexpy.keys.layout import object_paths

sys.path.insert(0, str(ROOT / "tests/annexpy/remote"))
from s3_server import S3Server, serving  # beside the tests of the remote

pytestmark = pytest.mark.interop

CONTENT = content_of(1, 100_000)
KEY = key_of(CONTENT)
ABSENT = key_of(content_of(2))


@pytest.fixture
def world(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Gateways:
    """A gateway ``g`` of the cluster ``safe`` with a repository and two directories as nodes."""
    world = Gateways(tmp_path, monkeypatch)
    world.gateway("g", nodes="1", cluster="safe", proxied=True)
    place = world.places["g"]
    for disk in ("disk", "other"):
        (tmp_path / disk).mkdir()
        git(
            place.path, "annex", "initremote", disk, "type=directory", f"directory={tmp_path / disk}", "encryption=none"
        )
        place.set(f"remote.{disk}.annex-proxy", "true")
        place.set(f"remote.{disk}.annex-cluster-node", "safe")
    world.update("g")
    return world


def uuid_of(world: Gateways, disk: str) -> str:
    return git(world.path("g"), "config", f"remote.{disk}.annex-uuid").strip()


def on(world: Gateways, disk: str) -> Path:
    return world.path(disk) / os.fsdecode(object_paths(KEY)[0])


def proxied(world: Gateways, disk: str) -> Gateways:
    """So that ``talk`` finds it by its name."""
    place = Place.__new__(Place)
    place.path = world.path(disk)
    world.places[disk] = place
    place.__dict__["uuid"] = uuid_of(world, disk)
    return world


DATA = [f"DATA {len(CONTENT)}", CONTENT, "VALID"]


def put(world: Gateways, target: str) -> str:
    with world.talk("g", target) as session:
        session.greet()
        assert session.ask(f"PUT  {KEY}") == "PUT-FROM 0"
        return session.ask(*DATA)


def test_a_proxied_directory_answers_every_message_and_the_session_lives(world: Gateways) -> None:
    proxied(world, "disk")
    with world.talk("g", "disk") as session:
        session.greet()
        assert session.ask(f"CHECKPRESENT {KEY}") == "FAILURE"
        assert session.ask(f"PUT  {KEY}") == "PUT-FROM 0"
        assert session.ask(*DATA) == "SUCCESS"
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
        assert session.ask(f"PUT  {KEY}") == "ALREADY-HAVE"
        # GETTIMESTAMP and REMOVE-BEFORE kill the connection to a stock gateway.
        word, _, now = session.ask("GETTIMESTAMP").partition(" ")
        assert word == "TIMESTAMP"
        assert session.ask(f"LOCKCONTENT {KEY}") == "FAILURE"
        assert not session.ask(f"REMOVE-BEFORE {float(now.rstrip('s')) - 5:.0f} {KEY}").startswith("SUCCESS")
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
        assert session.ask(f"REMOVE-BEFORE {float(now.rstrip('s')) + 300:.0f} {KEY}") == "SUCCESS"
        assert session.ask(f"CHECKPRESENT {KEY}") == "FAILURE"
    assert not on(world, "disk").exists()


def test_a_get_of_an_absent_key_announces_nothing_and_the_session_lives(world: Gateways) -> None:
    proxied(world, "disk")
    put(world, "disk")
    with world.talk("g", "disk") as session:
        session.greet()
        assert session.ask(f"GET 0  {ABSENT}") == "DATA 0"
        assert session.hear() == "INVALID"
        session.say("FAILURE")
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"


def test_a_client_of_version_1_goes_on_after_a_put(world: Gateways) -> None:
    proxied(world, "disk")
    with world.talk("g", "disk") as session:
        session.greet(1)
        assert session.ask(f"PUT  {KEY}") == "PUT-FROM 0"
        assert session.ask(*DATA) == "SUCCESS"
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
        assert session.ask(f"REMOVE {KEY}") == "SUCCESS"


def test_a_directory_that_is_away_is_an_error_and_no_absence_and_costs_the_cluster_nothing(world: Gateways) -> None:
    proxied(world, "disk")
    put(world, "disk")
    world.path("disk").rename(world.path("away"))
    with world.talk("g", "disk") as session:
        session.greet()
        assert session.ask(f"CHECKPRESENT {KEY}").startswith("ERROR")
        assert not session.ask(f"REMOVE {KEY}").startswith("SUCCESS")
        assert session.ask(f"PUT  {KEY}").startswith("ERROR")
    said = put(world, "safe")
    assert said.startswith("SUCCESS-PLUS")
    assert set(said.split()[1:]) == {world.uuid("1"), uuid_of(world, "other")}


def test_the_real_git_annex_stores_gets_and_drops_through_the_gateway(world: Gateways) -> None:
    keys = world.client("c", {"file": CONTENT}, remotes=["g"])
    path, key = world.path("c"), keys["file"]
    for disk in ("disk", "other"):  # git-annex wants to hear from its user that these special remotes are meant
        asked = git(path, "annex", "verifyremote", f"g-{disk}")
        git(path, "annex", "verifyremote", f"g-{disk}", "--safe", asked.partition("--safe ")[2].split()[0])
    git(path, "annex", "copy", "-q", "--to", "g-safe", "file")
    assert (world.path("disk") / os.fsdecode(object_paths(key)[0])).read_bytes() == CONTENT
    holders = {uuid_of(world, "disk"), uuid_of(world, "other"), world.uuid("1")}
    assert set(world.logged("c", [key])[key]) >= holders
    git(path, "annex", "drop", "-q", "--numcopies=1", "file")
    git(path, "annex", "get", "-q", "--from", "g-safe", "file")
    git(path, "annex", "drop", "-q", "--from", "g-safe", "--numcopies=1", "file")
    for disk in ("disk", "other"):
        assert not (world.path(disk) / os.fsdecode(object_paths(key)[0])).exists()


def test_an_encrypted_directory_is_refused_by_name_and_gets_no_byte(world: Gateways) -> None:
    secret = world.path("secret")
    secret.mkdir()
    place = world.places["g"]
    git(place.path, "annex", "initremote", "secret", "type=directory", f"directory={secret}", "encryption=shared")
    for name, value in (("proxy", "true"), ("cluster-node", "safe")):
        place.set(f"remote.secret.annex-{name}", value)
    world.update("g")
    before = sorted(secret.rglob("*"))

    proxied(world, "secret")
    with world.talk("g", "secret") as session:
        session.greet()
        answer = session.ask(f"PUT  {KEY}")
    assert answer.startswith("ERROR")
    assert "encryption" in answer
    assert uuid_of(world, "secret") not in put(world, "safe")
    assert sorted(secret.rglob("*")) == before


# -- a bucket -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def clouded(world: Gateways, server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``cloud``, on a real S3 server, is a node of the cluster and proxied for too; the folder of its objects."""
    bucket = f"b-{tmp_path.name[-12:]}".replace("_", "-").lower()
    place = world.places["g"]
    place.set("annex.security.allowed-ip-addresses", "127.0.0.1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    settings = [f"{name}={value}" for name, value in server.settings(bucket, "pre/").items()]
    git(place.path, "annex", "initremote", "cloud", "type=S3", "encryption=none", *settings)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")  # from now on it is in annex/creds of the gateway, and nowhere else
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    place.set("remote.cloud.annex-proxy", "true")
    place.set("remote.cloud.annex-cluster-node", "safe")
    world.update("g")
    proxied(world, "cloud")
    return server.folder / bucket / "pre"


def test_a_proxied_bucket_answers_every_message_and_the_session_lives(world: Gateways, clouded: Path) -> None:
    with world.talk("g", "cloud") as session:
        session.greet()
        assert session.ask(f"GET 0  {ABSENT}") == "DATA 0"
        assert session.hear() == "INVALID"
        session.say("FAILURE")
        assert session.ask(f"PUT  {KEY}") == "PUT-FROM 0"
        assert session.ask(*DATA) == "SUCCESS"
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
        assert session.ask(f"PUT  {KEY}") == "ALREADY-HAVE"
        assert session.ask(f"LOCKCONTENT {KEY}") == "FAILURE"
        word, _, now = session.ask("GETTIMESTAMP").partition(" ")
        assert word == "TIMESTAMP"
        assert not session.ask(f"REMOVE-BEFORE {float(now) - 5:.0f} {KEY}").startswith("SUCCESS")
        assert (clouded / str(KEY)).read_bytes() == CONTENT
        assert session.ask(f"REMOVE-BEFORE {float(now) + 300:.0f} {KEY}") == "SUCCESS"
        assert session.ask(f"CHECKPRESENT {KEY}") == "FAILURE"
    assert not (clouded / str(KEY)).exists()


def test_the_real_git_annex_uses_a_bucket_through_the_gateway_and_as_node_of_its_cluster(
    world: Gateways, clouded: Path
) -> None:
    keys = world.client("c", {"file": CONTENT}, remotes=["g"])
    path, key = world.path("c"), keys["file"]
    for special in ("disk", "other", "cloud"):
        asked = git(path, "annex", "verifyremote", f"g-{special}")
        git(path, "annex", "verifyremote", f"g-{special}", "--safe", asked.partition("--safe ")[2].split()[0])
    git(path, "annex", "copy", "-q", "--to", "g-safe", "file")
    assert (clouded / str(key)).read_bytes() == CONTENT
    assert uuid_of(world, "cloud") in world.logged("c", [key])[key]
    for node in (world.path("disk"), world.path("other")):  # so that only the bucket has it, and the repository
        place = node / os.fsdecode(object_paths(key)[0])
        place.parent.chmod(0o755)
        place.unlink()
    git(path, "annex", "drop", "-q", "--numcopies=1", "file")
    git(path, "annex", "get", "-q", "--from", "g-safe", "file")
    assert (path / "file").read_bytes() == CONTENT
    git(path, "annex", "drop", "-q", "--from", "g-safe", "--numcopies=1", "file")
    assert not (clouded / str(key)).exists()
