"""What was said to gateways of git-annex is said to ours, whose nodes are in the same state and at fault alike.

The answers are the same, except where ``DEVIATIONS`` has another one and says why; so does docs/deviations.md. Nodes
are named in no particular order.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import anyio
import pytest
from recorded_clusters import DEVIATIONS, ENDED, REFUSED, lines_of, nodes_in, recordings, so, wanted_in
from recorded_node import RecordedNode
from recordings import TRANSCRIPTS, Deviation, Session, Step, deviation, sessions

from annexpy.actions import cluster as clusters
from annexpy.repo.repository import Repository
from annexpy.server.gateway import Gateway
from annexpy.server.limits import ServerMode
from annexpy.transport.sockets import listen_unix
from annexpy.uuids import UUID, is_cluster

pytestmark = pytest.mark.transcripts

GATEWAY = UUID("03029bf7-f6b2-4f2d-9b5b-27ee5a48ef4a")
MODES = {"readonly": ServerMode.READ_ONLY, "appendonly": ServerMode.APPEND_ONLY}


@pytest.fixture
def sockets() -> str:
    """A folder with a short name, as sockets need it."""
    with tempfile.TemporaryDirectory(prefix="n") as folder:
        yield folder


@asynccontextmanager
async def listening(nodes: dict[str, RecordedNode], sockets: str) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack, anyio.create_task_group() as group:
        for name, node in nodes.items():
            listener = await stack.enter_async_context(await listen_unix(f"{sockets}/{name}"))
            group.start_soon(listener.serve, node.serve)
        yield
        group.cancel_scope.cancel()


async def gateway_of(
    path: Path, found: list[Session], nodes: dict[str, RecordedNode], sockets: str, comment: str
) -> None:
    """A repository that is the gateway of *nodes*, and a proxy for each of them that was asked for."""
    asked_for = {session.uuid for session in found}
    with Repository.init(path, bare=True, uuid=GATEWAY) as made:
        for cluster in filter(is_cluster, asked_for):
            made.config.set("annex.cluster.safe", cluster)
        made.config.set("annexpy.deadline", "4")
        for name, node in nodes.items():
            made.config.set(f"remote.{name}.url", f"unix:{sockets}/{name}")
            made.config.set(f"remote.{name}.annex-uuid", node.uuid)
            if node.uuid in asked_for:
                made.config.set(f"remote.{name}.annex-proxy", "true")
            elif "no usable nodes" not in comment:
                made.config.set(f"remote.{name}.annex-cluster-node", "safe")
        await clusters.update(made)
        if "preferred content" in comment:
            every = wanted_in(found, nodes).items()
            lines = "".join(f"{nodes[name].uuid} {wanted} timestamp=1s\n" for name, wanted in every)
            made.branch.change(b"preferred-content.log", lambda _: lines.encode())
        await made.branch.commit()


@pytest.mark.anyio
@pytest.mark.parametrize("path", recordings(), ids=lambda path: path.stem)
async def test_the_gateway_answers_as_git_annex_does(serving, clock_of, tmp_path, sockets: str, path: Path) -> None:
    lines, contents = lines_of(path)
    found, nodes = sessions(lines), nodes_in(lines, contents)
    comment = lines[0]["comment"]
    await gateway_of(tmp_path / "gw", found, nodes[0], sockets, comment)
    clock = clock_of()
    for session, there in zip(found, nodes, strict=True):
        with anyio.fail_after(60), Repository.open(tmp_path / "gw", clock=clock) as repository:
            async with listening(there, sockets), Gateway(repository) as gateway:
                cluster = UUID(session.uuid)
                options = {"mode": _mode(path.stem), "bypass": gateway.bypassing(cluster), "clock": clock}
                async with serving(gateway.shown(cluster), hello=b"", **options) as peer:
                    await replay(comment, session, peer, there, clock)


def _mode(stem: str) -> ServerMode:
    found = re.search("gw-(readonly|appendonly)", stem)
    return ServerMode.WRITE if found is None else MODES[found[1]]


async def replay(comment: str, session: Session, peer, nodes: dict[str, RecordedNode], clock) -> None:
    key, before = b"", set[str]()
    for step in session.steps:
        if step.now is not None:
            clock.time = step.now
        for node in nodes.values():
            node.clock = int(clock.time) if node.clock is None else node.clock
        words = step.sent.split(b"\n")[0].split(b" ")
        key = words[-1] if len(words) > 1 and not step.sent.startswith(b"DATA ") else key
        if step.sent == b"DATA-PRESENT\n":
            for node in nodes.values():  # by whoever said that it is there
                if node.uuid.encode() in step.heard:
                    node.contents[key] = node.all_contents[key]
        heard = await peer.say(step.sent)

        difference = partial(_difference, step, nodes, key, comment, frozenset(before))
        while not heard and step.heard and not difference(b"") and peer.ended == "not yet":
            await anyio.sleep(0.005)  # it is the nodes' turn
            heard = await peer.hear()
        if _named(heard) != _named(step.heard):
            known = difference(heard)
            assert known, (step.sent[:200], step.heard, heard)
            if known.over:
                break
        if heard.endswith(b"<EOF>"):
            break
        before = {REFUSED} if words[0] == b"GET" and heard.startswith(b"ERROR") else set()
        before |= {ENDED} if b"protocol error" in step.heard or step.heard.endswith(b"<EOF>") else set()


def _difference(
    step: Step, nodes: dict[str, RecordedNode], key: bytes, comment: str, before: frozenset[str], heard: bytes
) -> Deviation | None:
    facts = before | so(nodes, key, step.heard, heard, comment)
    return deviation(step.sent, step.heard, heard, DEVIATIONS, so=facts)


def _named(answer: bytes) -> list[bytes]:
    """An answer, with those whom it names in order."""
    word, *uuids = answer.split(b" ") if b"-PLUS " in answer else (answer,)
    return [word, *sorted(uuid.strip() for uuid in uuids)]


@pytest.mark.parametrize("known", DEVIATIONS, ids=lambda known: known.why[:40])
def test_every_deviation_is_in_the_manual(known: Deviation) -> None:
    assert known.why in (TRANSCRIPTS.parents[1] / "docs" / "deviations.md").read_text()
