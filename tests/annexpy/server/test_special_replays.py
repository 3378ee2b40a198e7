"""What was said to gateways of git-annex about a proxied directory special remote is said to ours.

The answers are the same, except where ``DEVIATIONS`` has another one and says why; so does docs/deviations.md.
"""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from recorded_clusters import is_special, lines_of
from recordings import TRANSCRIPTS, Deviation, Step, deviation, sessions

from annexpy.actions import cluster as clusters
from annexpy.repo.repository import Repository
from annexpy.server.gateway import Gateway
from annexpy.uuids import UUID

pytestmark = pytest.mark.transcripts

DEVIATIONS = (
    Deviation(
        r"GETTIMESTAMP\n", r"<EOF>", r"TIMESTAMP \d+\n",
        "the session lives",
    ),
    Deviation(
        r"REMOVE-BEFORE 99999 .*\n", r"<EOF>", r"ERROR timestamp .*\n",
        "no lock lasts that long",
    ),
    Deviation(
        r"(REMOVE|CHECKPRESENT) .*\n", r"<EOF>", r"(SUCCESS|FAILURE)\n",
        "the session lives",
    ),
    Deviation(
        r"PUT .*\n", r"PUT-FROM 0\n", r"ALREADY-HAVE\n",
        "nothing is sent for nothing",
    ),
    Deviation(
        r"DATA \d+\n(.|\n)*INVALID\n", r"FAILURE\n", r"SUCCESS\n",
        "the hash is what counts",
    ),
    Deviation(
        r"GET 0 .*\n", r"DATA [1-9]\d*\n", r"DATA 0\nINVALID\n",
        "nothing is promised that is not there",
        over=True,
    ),
)  # fmt: skip
FOUND = [path for path in sorted(TRANSCRIPTS.glob("*-*.jsonl")) if is_special(path)]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.anyio
@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
async def test_a_proxied_directory_answers_as_with_git_annex(serving, clock_of, tmp_path: Path, path: Path) -> None:
    lines, _ = lines_of(path)
    found = sessions(lines)
    uuid, disk, clock = UUID(found[0].uuid), tmp_path / "disk", clock_of()
    disk.mkdir()
    with Repository.init(tmp_path / "gw", bare=True) as made:
        settings = f"{uuid} directory={disk} encryption=none name=disk type=directory timestamp=1s\n"
        made.branch.change(b"remote.log", lambda _: settings.encode())
        for name, value in {"annex-uuid": uuid, "annex-directory": str(disk), "annex-proxy": "true"}.items():
            made.config.set(f"remote.disk.{name}", value)
        await clusters.update(made)
        await made.branch.commit()
    for session in found:
        with anyio.fail_after(60), Repository.open(tmp_path / "gw", clock=clock) as repository:
            async with Gateway(repository) as gateway:
                bypass = gateway.bypassing(uuid)
                async with serving(gateway.shown(uuid), hello=b"", bypass=bypass, clock=clock) as peer:
                    await replay(session.steps, peer)


async def replay(steps: list[Step], peer) -> None:
    has_it = False
    for step in steps:
        if has_it and step.sent.startswith((b"DATA", b"VALID")):
            continue  # what PUT was refused for
        heard = await peer.say(step.sent)
        has_it = heard == b"ALREADY-HAVE\n"
        if heard != step.heard:
            known = deviation(step.sent, step.heard, heard, DEVIATIONS)
            assert known, (step.sent[:200], step.heard[:200], heard[:200])
            if known.over:
                break


@pytest.mark.parametrize("known", DEVIATIONS, ids=lambda known: known.why[:40])
def test_every_deviation_is_in_the_manual(known: Deviation) -> None:
    assert known.why in (TRANSCRIPTS.parents[1] / "docs" / "deviations.md").read_text()
