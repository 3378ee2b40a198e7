"""annexpy as client of the real git-annex: over ssh, HTTP and p2p-annex; to a repository, a node and two clusters."""

from __future__ import annotations

from pathlib import Path

import pytest
from carriers import TARGETS, Carried, agreed, walk

pytestmark = pytest.mark.interop


@pytest.mark.parametrize(
    ("carrier", "target"),
    [*((carrier, target) for carrier in ("shell", "http") for target in TARGETS), ("p2p", "plain")],
)
def test_after_every_step_the_disks_and_the_logs_say_the_same(
    tmp_path: Path, git_annex: str, monkeypatch: pytest.MonkeyPatch, carrier: str, target: str
) -> None:
    """Nothing but itself is behind a p2p-annex address of git-annex."""
    world = Carried(tmp_path, monkeypatch, carrier, target, stock=True)
    try:
        keys = world.begin()
        walk(world, keys, "annexpy")
        agreed(world, keys)  # remotedaemon may still be at work on what was pushed, and is killed in the end
    finally:
        world.stop()
