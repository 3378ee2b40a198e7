"""Emit many outputs at once, and tell of each as it is done."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
import click

from annexpy import AnnexError
from glimmer_store.cli.app import UNDER_REPLICATED, complain
from glimmer_store.errors import AGAIN, Shortfall
from glimmer_store.graph import GlimmerGraph, GlimmerNode
from glimmer_store.remedies import remedy_of

__all__ = ["Told", "emit_all"]

_JOBS = 8


@dataclass(slots=True)
class Told:
    """How the user is told, and the exit code so far.

    Attributes:
        as_json: As JSON.
        again: Gives the line that does the same for one name.
        worst: The exit code so far.
    """

    as_json: bool
    again: Callable[[str], str]
    worst: int = 0

    def failed(self, name: str, error: AnnexError, root: Path) -> None:
        """One was not stored, or not enough: what is missing is completed by the same command for it alone."""
        self.worst = max(self.worst, UNDER_REPLICATED if isinstance(error, Shortfall) else 1)
        incomplete = error.retryable or (isinstance(error, Shortfall) and error.remedy == AGAIN)
        remedy = self.again(name) if incomplete else remedy_of(error, root)
        if self.as_json:
            fields = {"file": name, "success": False, "error-class": type(error).__name__, "error": str(error)}
            click.echo(json.dumps({**fields, "remedy": remedy}))
        complain(error, remedy)

    def done(self, name: str, node: GlimmerNode) -> None:
        """One is stored."""
        assert node.record is not None  # it was just written
        if self.as_json:
            fields = {"file": name, "success": True, "id": node.id, "key": str(node.key), **node.record.to_fields()}
            click.echo(json.dumps(fields))
            return
        places = ", ".join(place.remote for place in node.stored_at)
        copies = f"{node.copies} copies proven, {node.numcopies_required} needed ({places})"
        click.echo(f"archived {name}: {copies}; node {node.id}")


async def emit_all(
    dataset: Path, names: Sequence[str], emit: Callable[[GlimmerGraph, str], Awaitable[GlimmerNode]], told: Told
) -> int:
    """Emit every one of *names*, some at a time so that they share commits; the exit code."""
    limiter = anyio.CapacityLimiter(_JOBS)

    async with GlimmerGraph.open(dataset) as graph:

        async def one(name: str) -> None:
            async with limiter:
                try:
                    node = await emit(graph, name)
                except AnnexError as error:
                    told.failed(name, error, graph.root)
                else:
                    told.done(name, node)

        async with anyio.create_task_group() as group:
            for name in dict.fromkeys(names):
                group.start_soon(one, name)
    return told.worst
