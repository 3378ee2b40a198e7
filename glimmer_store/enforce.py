"""Have a dataset keep its own rules: the pre-push hook, and what git and git-annex go by, committed and pushed."""

from __future__ import annotations

import os
from pathlib import Path

from glimmer_store import class_policy, hook
from glimmer_store.entry import Part
from glimmer_store.graph import GlimmerGraph

__all__ = ["enforce"]


async def enforce(root: Path) -> None:
    """Install the hook in the dataset *root*, and write down how many copies each storage class needs.

    Raises:
        ConfigError: It is not set up, or has two hooks already.
        AnnexError: It cannot be committed. A durable repository that cannot be reached gets it with the next emit.
    """
    hook.install(root)
    async with GlimmerGraph.open(root) as graph:
        script = (graph.root / hook.COMMITTED).read_bytes()
        path = os.fsencode(hook.COMMITTED.as_posix())
        await graph.enter("glimmer-store: pre-push hook", [Part(path, "whole", script, script)])
        await class_policy.apply(graph)
