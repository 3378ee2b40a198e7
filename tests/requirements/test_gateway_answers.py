"""What the reference gets wrong at a gateway, done right.

Fact sheets p2p-protocol, section 0, A to J, and users, section 0, N1 to N9. Each test is named after the right
behaviour, with the finding in its docstring. Clients are the real git-annex, or
lines said by hand to ``annexpy-shell``; the disks and the gateway's branch are the truth.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import anyio
import pytest
from gateways import Gateways, content_of, git, key_of
from places import OURS

from annexpy.actions import cluster as clusters
from annexpy.errors import NoSpace
from annexpy.keys.key import Key
from annexpy.remote.p2p import P2PRemote
from annexpy.repo.repository import Repository
from annexpy.server.gateway import Gateway
from annexpy.server.limits import LockQuota
from annexpy.server.serve import serve
from annexpy.transport.memory import memory_pair

pytestmark = pytest.mark.interop

CONTENT = content_of(1, 20_000)
KEY = key_of(CONTENT)
OTHER = content_of(2, 5_000)
OTHER_KEY = key_of(OTHER)


@pytest.fixture
def world(tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Gateways:
    return Gateways(tmp_path, monkeypatch)


@pytest.fixture
def three(world: Gateways) -> Gateways:
    """A cluster of three local nodes."""
    world.gateway("g", nodes="123", cluster="safe")
    return world


@pytest.fixture
def two(world: Gateways) -> Gateways:
    """A cluster of two gateways: nodes 1 and 2 at one, 3 at the other."""
    world.gateway("g", nodes="12", cluster="safe")
    world.gateway("h", nodes="3", extends="g", cluster="safe")
    return world


def fill(world: Gateways, where: str, key: Key = KEY, content: bytes = CONTENT, *, logged: bool = True) -> None:
    """Lay *content* into nodes; *logged*: and the gateway knows."""
    for name in where:
        world.places[name].lay(key, content)
    if logged:
        with Repository.open(world.path("g")) as gateway:
            for name in where:
                gateway.branch.set_present(key, world.uuid(name), True)
            gateway.branch.commit_now()


def names(world: Gateways, answer: str) -> tuple[str, str]:
    """A -PLUS answer as its word and the letters of those it names."""
    word, *uuids = answer.split(" ")
    return word, world.letters(uuids)


def ask(world: Gateways, *lines: str, gateway: str = "g", target: str = "safe", version: int = 4) -> list[str]:
    """The answers to *lines*."""
    with world.talk(gateway, target) as session:
        session.greet(version)
        return [session.ask(line) for line in lines]


# -- A, B: no copy is claimed that was not found ------------------------------------------------------------------


@pytest.mark.parametrize("remote", ["g-1", "g-safe"])
def test_a_move_to_a_node_that_takes_nothing_keeps_the_only_copy(world: Gateways, remote: str) -> None:
    """A: a node that answers ERROR to PUT is taken for one that has the content; also by line, not only by HTTP."""
    world.gateway("g", nodes="1", cluster="safe")
    world.spoil("g", "1", "read-only")
    keys = world.client("w", {"file": CONTENT}, remotes="g")

    git(world.path("w"), "annex", "move", "--to", remote, "file", fails=True)

    assert world.holders(keys["file"], CONTENT) == "w"
    assert world.believed("w", keys["file"]) == "w"
    assert world.believed("g", keys["file"]) in ("", "w")


@pytest.mark.parametrize("remote", ["g-1", "g-safe"])
def test_a_move_over_http_to_a_node_that_takes_nothing_keeps_the_only_copy(world: Gateways, remote: str) -> None:
    """A: putoffset says "already have" of a node that answers ERROR, and the move deletes the only copy."""
    world.gateway("g", nodes="1", cluster="safe")
    world.spoil("g", "1", "read-only")
    keys = world.client("w", {"file": CONTENT}, remotes="g")
    asked = len(world.asked())

    with world.over_http("g", "w"):
        git(world.path("w"), "annex", "move", "--to", remote, "file", fails=True)
        assert world.holders(keys["file"], CONTENT) == "w"
        git(world.path("g"), "config", "remote.1.url", str(world.path("1")))
        words = ["git", "annex", "move", "--to", remote, "file"]
        tries = (subprocess.run(words, cwd=world.path("w"), capture_output=True, check=False) for _ in range(20))
        assert any(done.returncode == 0 for done in tries), "the server sees that the node has changed"
        assert world.holders(keys["file"], CONTENT) == "1"
        git(world.path("w"), "annex", "get", "--from", remote, "file")
        git(world.path("w"), "annex", "drop", "--from", remote, "file")
        assert world.holders(keys["file"], CONTENT) == "w"

    assert not [line for line in world.asked()[asked:] if "p2pstdio" in line and str(world.path("g")) in line]
    assert world.believed("w", keys["file"]) == "w"
    assert world.believed("g", keys["file"]).replace("w", "") == ""


@pytest.mark.parametrize("how", ["without nodes", "with nodes that are not configured", "with nodes that are away"])
def test_a_cluster_without_usable_nodes_claims_nothing(world: Gateways, how: str) -> None:
    """B: such a cluster answers ALREADY-HAVE, and a move deletes the only copy."""
    world.gateway("g", nodes="" if how == "without nodes" else "1", cluster="safe")
    if how == "with nodes that are not configured":
        git(world.path("g"), "config", "--unset", "remote.1.annex-cluster-node")
    elif how == "with nodes that are away":
        world.spoil("g", "1", "gone")
    keys = world.client("w", {"file": CONTENT}, remotes="g")

    git(world.path("w"), "annex", "move", "--to", "g-safe", "file", fails=True)

    assert world.holders(keys["file"], CONTENT) == "w"
    put, check, get = ask(world, f"PUT f {KEY}", f"CHECKPRESENT {KEY}", f"GET 0 f {KEY}")
    assert put.startswith("ERROR ")
    assert check == "FAILURE" or check.startswith("ERROR ")
    assert get == "DATA 0" or get.startswith("ERROR ")


# -- C, D, N1: one node that is away costs nobody else anything ---------------------------------------------------


@pytest.mark.parametrize("fault", ["gone", "refused", "silent", "hangs"])
def test_the_other_nodes_go_on_and_exactly_they_are_named(three: Gateways, fault: str) -> None:
    """C, D and N1: EOF for every request, and nothing recorded of what was done."""
    fill(three, "123", OTHER_KEY, OTHER)
    three.spoil("g", "3", fault)

    began = time.monotonic()
    with three.talk("g", "safe") as session:
        session.greet()
        assert names(three, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "12")
        assert session.get(OTHER_KEY) == (OTHER, "VALID")
        assert session.ask(f"CHECKPRESENT {OTHER_KEY}") == "SUCCESS"
        assert names(three, session.ask(f"REMOVE {OTHER_KEY}")) == ("FAILURE-PLUS", "12")
        assert names(three, session.put(OTHER_KEY, OTHER)) == ("SUCCESS-PLUS", "12")
        assert names(three, session.ask(f"REMOVE {KEY}")) == ("FAILURE-PLUS", "12")
        assert session.close()[0] == 0

    assert time.monotonic() - began < 30, "the deadline is paid once"
    assert three.believed("g", KEY) == ""
    assert three.believed("g", OTHER_KEY) == "123"


def test_what_is_gone_is_recorded_when_a_node_dies_in_the_middle_of_a_removal(three: Gateways) -> None:
    """D: nodes asked earlier have removed it, and both the client and the log believe that they have it."""
    fill(three, "123")
    three.spoil("g", "2", "dies-removing")

    (answer,) = ask(three, f"REMOVE {KEY}")

    assert names(three, answer) == ("FAILURE-PLUS", "13")
    assert three.believed("g", KEY) == "2"


@pytest.mark.parametrize("fault", ["refused", "dies-removing"])
def test_a_client_hears_of_a_removal_that_was_made_in_part(three: Gateways, fault: str) -> None:
    """D, with the stock client: it learns who lost the content, and keeps it for those that did not."""
    keys = three.client("w", {"file": CONTENT}, remotes="g")
    git(three.path("w"), "annex", "copy", "--to", "g-safe", "file")
    three.spoil("g", "2", fault)

    git(three.path("w"), "annex", "drop", "--from", "g-safe", "file", fails=True)

    assert three.holders(keys["file"], CONTENT) == "2w"
    assert three.believed("w", keys["file"]) == "2w"
    assert three.believed("g", keys["file"]) == "2"


# -- E, F: nodes that answer PUT with something else --------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *("read-only", "full", "error-on-put", "failure-on-put", "claims"),
        *("dies-in-data", "dies-after-data", "failure-after-data"),
    ],
)
def test_a_node_that_takes_nothing_is_left_out(three: Gateways, fault: str) -> None:
    """E and N5: ERROR, FAILURE or ALREADY-HAVE-PLUS from one node ends the whole put."""
    three.spoil("g", "1", fault)

    with three.talk("g", "safe") as session:
        session.greet()
        assert names(three, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "23")
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"

    assert three.holders(KEY, CONTENT) == "23"
    assert three.believed("g", KEY) == "23"


def test_a_node_that_only_names_others_is_no_copy_of_theirs(three: Gateways) -> None:
    """E: ALREADY-HAVE-PLUS from a node in a mixed put. What it says of itself is checked, and nothing else counts."""
    three.spoil("g", "1", "names-others", CONTENT)

    with three.talk("g", "safe") as session:
        session.greet()
        assert names(three, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "123")

    assert three.believed("g", KEY) == "123"


def test_what_every_node_of_two_gateways_has_can_be_put_again(two: Gateways) -> None:
    """F: the second gateway's ALREADY-HAVE-PLUS ends the connection."""
    fill(two, "123")

    with two.talk("g", "safe") as session:
        session.greet()
        for _ in range(2):
            assert names(two, session.ask(f"PUT f {KEY}")) == ("ALREADY-HAVE-PLUS", "123")
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"


# -- G: preferred content -----------------------------------------------------------------------------------------


def test_what_the_preferred_nodes_have_goes_to_nobody_else(three: Gateways) -> None:
    """G: put again, it goes to the nodes that do not want it."""
    for node, wanted in (("1", "anything"), ("2", "anything"), ("3", "nothing")):
        git(three.path("g"), "annex", "wanted", three.uuid(node), wanted)

    with three.talk("g", "safe") as session:
        session.greet()
        assert names(three, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "12")
        assert names(three, session.put(KEY, CONTENT)) == ("ALREADY-HAVE-PLUS", "12")

    assert three.holders(KEY, CONTENT) == "12"


def test_another_node_stands_in_for_a_full_one(three: Gateways) -> None:
    """An archive group gets one copy, and gets it elsewhere when the first choice is full."""
    for node in "123":
        git(three.path("g"), "annex", "group", three.uuid(node), "archive")
        git(three.path("g"), "annex", "wanted", three.uuid(node), "standard")
    first = {}
    with three.talk("g", "safe") as session:
        session.greet()
        for key, content in ((KEY, CONTENT), (OTHER_KEY, OTHER)):
            word, where = names(three, session.put(key, content))
            assert (word, len(where)) == ("SUCCESS-PLUS", 1), where
            first[key] = where
        assert names(three, session.ask(f"REMOVE {KEY}")) == ("SUCCESS-PLUS", "123")
    three.spoil("g", first[KEY], "full")

    with three.talk("g", "safe") as session:
        session.greet()
        word, where = names(three, session.put(KEY, CONTENT))

    assert (word, len(where)) == ("SUCCESS-PLUS", 1)
    assert where != first[KEY]
    assert three.holders(KEY, CONTENT) == where


# -- H, J: locks --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_locks_that_failed_use_up_nothing(three: Gateways) -> None:
    """H: every failed lock keeps one of the slots for good."""
    fill(three, "1")
    quota = LockQuota(2)
    with Repository.open(three.path("g")) as repository:
        async with Gateway(repository) as gateway, anyio.create_task_group() as group:
            shown = await gateway.remote(three.uuid("1"))
            assert shown is not None

            async def dial() -> object:
                ours, theirs = memory_pair()
                group.start_soon(lambda: serve(theirs, shown, client="c", locks=quota))
                return ours

            remote = P2PRemote(dial, uuid=three.uuid("1"))  # type: ignore[arg-type]
            for _ in range(5):
                with pytest.raises(Exception, match="could not be locked"):
                    async with remote.lock_content(OTHER_KEY):
                        pass
            async with remote.lock_content(KEY), remote.lock_content(KEY) as lock:
                assert await lock.held()
                with pytest.raises(Exception, match="too many"):
                    async with remote.lock_content(KEY):
                        pass
            async with remote.lock_content(KEY):
                pass
            await remote.aclose()
            group.cancel_scope.cancel()


def test_a_lock_outlives_the_connection_of_who_relies_on_it(three: Gateways) -> None:
    """J: with the connection the lock is gone at once, and two drops that rely on each other remove both copies."""
    fill(three, "12")
    with three.talk("g", "2") as first:
        first.greet()
        assert first.ask(f"LOCKCONTENT {KEY}") == "SUCCESS"
        first.process.kill()
        first.process.wait()

    with three.talk("g", "1") as second, three.talk("g", "2") as remover:
        second.greet()
        remover.greet()
        assert second.ask(f"LOCKCONTENT {KEY}") == "SUCCESS"
        assert remover.ask(f"REMOVE {KEY}") == "FAILURE"
        second.say("UNLOCKCONTENT")
    assert three.holders(KEY, CONTENT) == "12"


@pytest.mark.parametrize("shell", ["git-annex-shell", "annexpy-shell"])
def test_a_lock_behind_a_proxy_outlives_who_relies_on_it(three: Gateways, shell: str) -> None:
    """J: a stock node gives the lock up with its connection, so the gateway keeps that."""
    fill(three, "12")
    place = three.places["g"]
    place.set("remote.2.url", f"ssh://host-2{three.path('2')}")
    place.set("remote.2.annex-shell", shell if shell == "git-annex-shell" else three.shell)
    first = three.talk("g", "2")
    first.greet()
    assert first.ask(f"LOCKCONTENT {KEY}") == "SUCCESS"
    assert first.process.stdin is not None
    first.process.stdin.close()
    try:
        (answer,) = ask(three, f"REMOVE {KEY}", target="2")
        # A stock node hangs up in place of an answer: nobody knows what becomes of it, and the gateway says no more.
        assert answer in ("", "FAILURE") or answer.startswith("ERROR ")
        assert three.holders(KEY, CONTENT) == "12"
    finally:
        first.process.terminate()
        first.close()


def test_a_lock_behind_a_proxy_ends_with_unlocking(three: Gateways) -> None:
    fill(three, "12")
    three.places["g"].set("remote.2.url", f"ssh://host-2{three.path('2')}")
    with three.talk("g", "2") as session:
        session.greet()
        assert session.ask(f"LOCKCONTENT {KEY}") == "SUCCESS"
        session.say("UNLOCKCONTENT")
        assert session.ask(f"LOCKCONTENT {OTHER_KEY}") == "FAILURE"
        assert session.ask(f"REMOVE {KEY}") == "SUCCESS"
        assert session.close()[0] == 0


def test_a_client_loses_its_wire_when_the_lock_behind_it_is_lost(three: Gateways) -> None:
    """J at a proxy: whoever relies on a lock must see that it is gone."""
    three.spoil("g", "1", "dies-locked", CONTENT)
    with three.talk("g", "1") as session:
        session.greet()
        assert session.ask(f"LOCKCONTENT {KEY}") == "SUCCESS"
        (pid,) = three.fakes("1")
        os.kill(pid, signal.SIGKILL)
        assert session.hear() == ""


def test_a_cluster_is_not_locked(three: Gateways) -> None:
    fill(three, "123")
    assert ask(three, f"LOCKCONTENT {KEY}", f"CHECKPRESENT {KEY}") == ["FAILURE", "SUCCESS"]


# -- I: whatever is behind the proxy, the session is the same ------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
def test_a_proxied_node_speaks_every_version_like_a_repository(world: Gateways, version: int) -> None:
    """I: proxied special remotes end the connection at GETTIMESTAMP, and after a PUT in version 1."""
    world.gateway("g", nodes="1", proxied=True)
    with world.talk("g", "1") as session:
        session.greet(version)
        assert session.ask(f"PUT f {KEY}") == "PUT-FROM 0"
        said = b"DATA %d\n%b" % (len(CONTENT), CONTENT) + (b"VALID\n" if version else b"")
        assert session.ask(said) == "SUCCESS"
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
        assert session.ask(f"PUT f {KEY}") == "ALREADY-HAVE"
        assert session.ask(f"GET 0 f {OTHER_KEY}") == "DATA 0"
        if version:
            assert session.hear() == "INVALID"
        session.say("FAILURE")
        assert session.ask(f"GET 0 f {KEY}") == f"DATA {len(CONTENT)}"
        assert session.read(len(CONTENT)) == CONTENT
        if version:
            assert session.hear() == "VALID"
        session.say("SUCCESS")
        now = int(session.ask("GETTIMESTAMP").removeprefix("TIMESTAMP "))
        assert session.ask(f"REMOVE-BEFORE {now - 1} {KEY}") in ("FAILURE", f"FAILURE-PLUS {world.uuid('1')}")
        assert session.ask(f"REMOVE-BEFORE {now + 100} {KEY}") == "SUCCESS"
        assert session.ask(f"CHECKPRESENT {KEY}") == "FAILURE"
    assert world.believed("g", KEY) == ""


# -- N2: reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["stale", "gone", "refused", "hangs"])
def test_every_presence_check_and_get_succeeds_while_one_node_has_it(three: Gateways, fault: str) -> None:
    """N2: one node is picked by chance, and its failure is the answer."""
    fill(three, "123")
    if fault == "stale":
        three.places["2"].lose([KEY])
    else:
        three.spoil("g", "2", fault)

    with three.talk("g", "safe") as session:
        session.greet()
        for _ in range(20):
            assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
            assert session.get(KEY) == (CONTENT, "VALID")


def test_a_get_goes_on_at_another_node_when_one_breaks_off(three: Gateways) -> None:
    """N2: a node that dies in the middle ends the client's connection."""
    fill(three, "123")
    three.places["1"].lose([KEY])
    git(three.path("g"), "config", "remote.3.annex-cost", "50")
    three.spoil("g", "3", "breaks-off", CONTENT)

    with three.talk("g", "safe") as session:
        session.greet()
        assert session.get(KEY) == (CONTENT, "VALID")
        assert session.get(KEY, offset=19_000) == (CONTENT[19_000:], "VALID")


# -- N3, N4, N6: who has it is told and recorded -----------------------------------------------------------------


def test_a_second_gateway_that_has_it_already_does_not_stop_the_first(two: Gateways) -> None:
    """N3 and N6: the put ends with a protocol error; where it works, the cluster itself is named as a copy."""
    fill(two, "3", logged=False)

    with two.talk("g", "safe") as session:
        session.greet()
        answer = session.put(KEY, CONTENT)

    assert names(two, answer) == ("SUCCESS-PLUS", "123")
    assert two.uuid("safe") not in answer
    assert two.believed("g", KEY) == "123"


def test_nodes_that_had_it_before_are_told_and_recorded(three: Gateways) -> None:
    """N4: nodes that answer ALREADY-HAVE are neither reported nor recorded."""
    keys = three.client("w", {"file": CONTENT}, remotes="g")
    fill(three, "2", keys["file"], logged=False)

    git(three.path("w"), "annex", "copy", "--to", "g-safe", "file", "--fast")

    shown = json.loads(git(three.path("w"), "annex", "whereis", "--json", "file").splitlines()[-1])
    there = {one["uuid"] for one in shown["whereis"]}
    assert {three.uuid(node) for node in "123"} <= there | {three.uuid("2")}
    with three.talk("g", "safe") as session:
        session.greet()
        assert names(three, session.put(keys["file"], CONTENT))[1] == "123"
    assert three.believed("g", keys["file"]) == "123"


# -- N5: why ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_a_full_node_is_named_with_what_it_lacks(three: Gateways) -> None:
    """N5: no space is reported as "transfer already in progress"."""
    three.spoil("g", "1", "full")
    with Repository.open(three.path("g")) as repository:
        async with Gateway(repository) as gateway:
            remote = await gateway.remote(three.uuid("safe"))
            assert remote is not None
            async with remote.put(KEY) as upload:
                await upload.start(len(CONTENT))
                await upload.write(CONTENT)
                stored = await upload.finish()

    assert three.letters(stored.uuids) == "23"
    (error,) = stored.failed.values()
    assert isinstance(error, NoSpace)
    assert error.need == len(CONTENT)
    assert set(stored.failed) == {three.uuid("1")}


# -- N8: a slow node ----------------------------------------------------------------------------------------------


@pytest.mark.alone
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
async def test_with_enough_copies_a_slow_node_costs_nothing(three: Gateways) -> None:
    """N8: the slowest node sets the speed."""
    three.spoil("g", "3", "slow")
    git(three.path("g"), "config", "annexpy.min-copies", "2")
    git(three.path("g"), "config", "annexpy.deadline", "10")
    content = content_of(3, 2_000_000)
    key = key_of(content)
    with Repository.open(three.path("g")) as repository:
        async with Gateway(repository) as gateway:
            remote = await gateway.remote(three.uuid("safe"))
            assert remote is not None
            began = time.monotonic()
            async with remote.put(key) as upload:
                await upload.start(len(content))
                for at in range(0, len(content), 250_000):
                    await upload.write(content[at : at + 250_000])
                stored = await upload.finish()
            took = time.monotonic() - began

            assert three.letters(stored.uuids) == "12"
            assert took < 3, "4 seconds is what the slow node takes"
            assert set(repository.branch.locations(key).present) == {three.uuid("1"), three.uuid("2")}
            with anyio.fail_after(20):
                while three.uuid("3") not in repository.branch.locations(key).present:
                    await anyio.lowlevel.checkpoint()


# -- N9: always an answer ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["dies-in-data", "dies-after-data"])
def test_a_put_that_no_node_survives_is_answered(three: Gateways, fault: str) -> None:
    """N9: when every node dies in the middle of a put, the reference closes without a word."""
    for node in "123":
        three.spoil("g", node, fault)

    with three.talk("g", "safe") as session:
        session.greet()
        answer = session.put(KEY, CONTENT)
        assert answer == "FAILURE" or answer.startswith("ERROR ")
        assert session.ask("GETTIMESTAMP").startswith("TIMESTAMP ")

    assert three.believed("g", KEY) == ""


@pytest.mark.parametrize("fault", ["old", "no-timestamp"])
def test_a_removal_with_a_deadline_is_never_made_without_one(three: Gateways, fault: str) -> None:
    """N9: REMOVE-BEFORE becomes REMOVE for old nodes, and an untranslated timestamp for those without a clock."""
    fill(three, "123")
    log = three.spoil("g", "3", fault)
    with three.talk("g", "safe") as session:
        session.greet()
        now = int(session.ask("GETTIMESTAMP").removeprefix("TIMESTAMP "))
        assert names(three, session.ask(f"REMOVE-BEFORE {now + 100} {KEY}")) == ("FAILURE-PLUS", "12")

    assert "REMOVE" not in log.read_text()
    assert three.believed("g", KEY) == "3"


# -- what the reference gets right, and so do we -------------------------------------------------------------------


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("nodes", ["1", "123"])
def test_clusters_of_any_size_answer_in_the_words_of_each_version(world: Gateways, nodes: str, version: int) -> None:
    """Fact sheet p2p-protocol, section 5: -PLUS from version 2 on, also of one node."""
    world.gateway("g", nodes=nodes, cluster="safe")
    plus = "-PLUS" if version >= 2 else ""
    named = nodes if plus else ""
    valid = b"VALID\n" if version else b""
    with world.talk("g", "safe") as session:
        session.greet(version)
        assert session.ask(f"CHECKPRESENT {KEY}") == "FAILURE"
        assert session.ask(f"PUT f {KEY}") == "PUT-FROM 0"
        body = b"DATA %d\n%b%b" % (len(CONTENT), CONTENT, valid)
        assert names(world, session.ask(body)) == (f"SUCCESS{plus}", named)
        assert names(world, session.ask(f"PUT f {KEY}")) == (f"ALREADY-HAVE{plus}", named)
        assert session.ask(f"LOCKCONTENT {KEY}") == "FAILURE"
        now = int(session.ask("GETTIMESTAMP").removeprefix("TIMESTAMP "))
        assert session.ask(f"REMOVE-BEFORE {now} {KEY}") == "FAILURE"
        assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
        assert names(world, session.ask(f"REMOVE-BEFORE {now + 60} {KEY}")) == (f"SUCCESS{plus}", named)
        assert names(world, session.ask(f"REMOVE {KEY}")) == (f"SUCCESS{plus}", named)
    assert world.believed("g", KEY) == ""


def test_a_put_begins_where_the_node_that_has_least_wants_it(three: Gateways) -> None:
    """Partials of different lengths, one of them too long and one of another content."""
    for node, partial_ in (("1", CONTENT[:7_000]), ("2", CONTENT[:3_000]), ("3", CONTENT[:5_000])):
        file = three.places[node].partial(KEY)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(partial_)
    three.places["1"].partial(OTHER_KEY).write_bytes(OTHER + b"too long")
    with three.talk("g", "safe") as session:
        session.greet()
        assert session.ask(f"PUT f {KEY}") == "PUT-FROM 3000"
        rest = CONTENT[3_000:]
        assert names(three, session.ask(b"DATA %d\n%bVALID\n" % (len(rest), rest))) == ("SUCCESS-PLUS", "123")
        assert names(three, session.put(OTHER_KEY, OTHER)) == ("SUCCESS-PLUS", "123")
    assert three.holders(KEY, CONTENT) == three.holders(OTHER_KEY, OTHER) == "123"


def test_wrong_or_short_content_is_stored_nowhere(three: Gateways) -> None:
    with three.talk("g", "safe") as session:
        session.greet()
        assert session.put(KEY, CONTENT[::-1]) == "FAILURE"
        assert session.ask(f"PUT f {KEY}") == "PUT-FROM 0"
        assert session.ask(b"DATA 100\n" + CONTENT[:100] + b"VALID\n") == "FAILURE"
        assert session.ask(f"PUT f {KEY}") == "PUT-FROM 0"
        session.say(b"DATA 10000\n" + CONTENT[:5000])
    assert three.holders(KEY, CONTENT) == ""
    assert three.believed("g", KEY) == ""
    with three.talk("g", "safe") as session:
        session.greet()
        assert session.ask(f"PUT f {KEY}") == "PUT-FROM 5000", "what came before the client left is kept"


def test_content_that_came_by_other_means_is_found(three: Gateways) -> None:
    """DATA-PRESENT: those that have it are named."""
    with three.talk("g", "safe") as session:
        session.greet()
        assert session.ask(f"PUT f {KEY}") == "PUT-FROM 0"
        fill(three, "13", logged=False)
        assert names(three, session.ask("DATA-PRESENT")) == ("SUCCESS-PLUS", "13")
        assert session.ask(f"PUT f {OTHER_KEY}") == "PUT-FROM 0"
        assert session.ask("DATA-PRESENT") == "FAILURE"
    assert three.believed("g", KEY) == "13"


@pytest.mark.parametrize(
    ("variable", "refused"),
    [("GIT_ANNEX_SHELL_READONLY", ("PUT", "REMOVE")), ("GIT_ANNEX_SHELL_APPENDONLY", ("REMOVE",))],
)
def test_a_forced_mode_holds_for_all_nodes(three: Gateways, variable: str, refused: tuple[str, ...]) -> None:
    fill(three, "123")
    for target in ("safe", "1"):
        with three.talk("g", target, env={variable: "1"}) as session:
            session.greet()
            assert session.ask(f"PUT f {OTHER_KEY}").startswith("ERROR ") is ("PUT" in refused)
            if "PUT" not in refused:
                session.say("ERROR no thanks")
            assert session.ask(f"REMOVE {KEY}").startswith("ERROR ")
            assert session.ask(f"CHECKPRESENT {KEY}") == "SUCCESS"
    assert three.holders(KEY, CONTENT) == "123"


@pytest.mark.parametrize("command", ["configlist", "inannex"])
def test_other_commands_are_about_the_gateway_alone(three: Gateways, command: str) -> None:
    def run(uuid: str) -> tuple[int, str]:
        argv = [sys.executable, "-m", "annexpy.server.shell", command, str(three.path("g"))]
        done = subprocess.run(
            [*argv, *([str(KEY)] if command == "inannex" else []), "--uuid", uuid],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | dict(OURS),
        )
        return done.returncode, done.stderr.strip()

    assert run(three.uuid("1")) == (1, f"git-annex-shell: Cannot proxy {command} command.")
    stranger = "99999999-0000-4000-8000-000000000009"
    expected = f"git-annex-shell: expected repository UUID {stranger} but found UUID {three.uuid('g')}"
    assert run(stranger) == (1, expected)


# -- the stock client, whatever is wrong with a node ---------------------------------------------------------------


@pytest.mark.parametrize("fault", ["silent", "hangs"])
def test_a_node_that_is_asked_for_by_itself_and_hangs_costs_one_deadline(three: Gateways, fault: str) -> None:
    """The stock client asks twice of each node before it drops, and waits for ever."""
    three.places["g"].set("annexpy.deadline", "0.5")
    three.spoil("g", "2", fault)

    began = time.monotonic()
    with three.talk("g", "2") as session:
        session.greet()
        for line in (f"LOCKCONTENT {KEY}", f"CHECKPRESENT {KEY}", f"REMOVE {KEY}", f"CHECKPRESENT {OTHER_KEY}"):
            assert session.ask(line).split()[0] in ("FAILURE", "ERROR"), line
        assert session.ask(f"GET 0 a {KEY}").startswith(("ERROR", "DATA 0"))

    assert time.monotonic() - began < 30, "the node would say something after a minute"


@pytest.mark.parametrize("fault", ["gone", "refused", "silent", "hangs", "read-only", "full", "stale"])
def test_a_bad_node_is_no_trouble_for_the_stock_client(three: Gateways, fault: str) -> None:
    """copy, get, move, drop, fsck and sync as if the node were not there, and no wrong line in any log."""
    files = {"old": CONTENT, "new": OTHER}
    keys = three.client("w", files, remotes="g")
    annex = partial(git, three.path("w"), "annex")
    annex("copy", "--to", "g-safe", "old")
    if fault == "stale":
        three.places["2"].lose([keys["old"]])
    else:
        three.spoil("g", "2", fault)
    others = "123" if fault == "stale" else "13"

    annex("copy", "--to", "g-safe", "new")
    assert three.holders(keys["new"], OTHER).replace("w", "") == others
    annex("drop", "old", "new")
    annex("get", "--from", "g-safe", "old", "new")
    annex("fsck", "--from", "g-safe", "old", "new")
    annex("move", "--to", "g-safe", "new")
    annex("get", "new")
    gone = annex("drop", "--from", "g-safe", "new", fails=fault in ("gone", "refused", "silent", "hangs", "read-only"))
    assert "failed" in gone or fault in ("full", "stale")

    assert three.holders(keys["new"], OTHER) == "w"
    assert three.believed("g", keys["new"]).replace("w", "") == ""
    assert three.believed("w", keys["new"]) in ("w", "2w")
    for name in "13":
        assert three.places[name].holds(keys["old"], CONTENT)
    assert three.believed("g", keys["old"]).replace("w", "") == "123"


# -- several gateways ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["silent", "hangs"])
def test_each_gateway_answers_before_the_one_that_waits_for_it_gives_up(two: Gateways, fault: str) -> None:
    """Both have the same deadline, and a node behind the second one says nothing."""
    place = two.place("4")
    two.places["h"].set("remote.4.url", str(place.path))
    two.places["h"].set("remote.4.annex-uuid", place.uuid)
    with Repository.open(two.path("h")) as repository:
        anyio.run(clusters.add_nodes, repository, "safe", ["4"])
    two.learn("g", "h")
    with Repository.open(two.path("g")) as repository:
        anyio.run(clusters.update, repository)
    fill(two, "3", OTHER_KEY, OTHER)
    two.spoil("h", "4", fault)

    with two.talk("g", "safe") as session:
        session.greet()
        assert names(two, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "123")
        assert session.get(OTHER_KEY) == (OTHER, "VALID")
        assert names(two, session.ask(f"REMOVE {KEY}")) == ("FAILURE-PLUS", "123")

    assert two.believed("g", KEY) == ""


def test_a_gateway_that_is_away_costs_only_its_own_nodes(two: Gateways) -> None:
    """C and N1 with a gateway in the place of a node."""
    fill(two, "123", OTHER_KEY, OTHER)
    two.places["g"].set("remote.h.url", "ssh://nowhere/h")

    with two.talk("g", "safe") as session:
        session.greet()
        assert names(two, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "12")
        assert session.get(OTHER_KEY) == (OTHER, "VALID")
        assert names(two, session.ask(f"REMOVE {OTHER_KEY}")) == ("FAILURE-PLUS", "12")

    assert two.believed("g", OTHER_KEY) == "3"


def test_what_is_stored_through_one_gateway_is_known_at_the_other(two: Gateways) -> None:
    """Gateways of the reference know only what they learnt themselves."""
    with two.talk("g", "safe") as session:
        session.greet()
        assert names(two, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "123")

    until = time.monotonic() + 30
    while (found := two.letters(two.places["h"].whereis([KEY])[KEY] - {two.uuid("safe")})) != "123":
        assert time.monotonic() < until, found


@pytest.mark.parametrize("links", [("gh", "hi"), ("gh", "hi", "gi")])
def test_each_node_of_three_gateways_is_sent_to_once(world: Gateways, links: tuple[str, ...]) -> None:
    """In a chain and in a full mesh; the reference sends twice where two ways lead to a node."""
    world.gateway("g", nodes="1", cluster="safe")
    world.gateway("h", nodes="2", extends="g", cluster="safe")
    world.gateway("i", nodes="3", extends="h", cluster="safe")
    for one, other in links[2:]:
        world.link(one, other, "safe")
    for one, other in ("gh", "hi", "gh", "hi"):
        world.learn(one, other)
        world.update(one)
        world.learn(other, one)
        world.update(other)
    before = len(world.asked())

    with world.talk("g", "safe") as session:
        session.greet()
        assert names(world, session.put(KEY, CONTENT)) == ("SUCCESS-PLUS", "123")
        assert names(world, session.ask(f"REMOVE {KEY}")) == ("SUCCESS-PLUS", "123")
        talks = [line for line in world.asked()[before:] if "p2pstdio" in line]

    assert len(talks) == 2, "one connection to each of the other gateways"
    assert [world.believed(name, KEY) for name in "ghi"] == ["", "", ""]
