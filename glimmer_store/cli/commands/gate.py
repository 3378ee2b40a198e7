"""``glimmer-store gate``: may this be pushed, merged, taken down?"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from glimmer_store.gates import Verdict

__all__ = ["command"]

_JSON = click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")


@click.group("gate")
def command() -> None:
    """Refuse what would lose something, and say what to do about it.

    Exit code 0 when the gate is open, 3 when an output has too few copies, 4 when that may only be because
    a place could not be asked, 1 when something else speaks against it.
    """


@command.command("push")
@click.argument("remote")
@click.argument("url", default="")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
@_JSON
def push(remote: str, url: str, dataset: str, as_json: bool) -> int:
    """Called by the pre-push hook: may what is to be pushed to REMOTE go there? Reads git's lines on standard input."""

    async def ask() -> Verdict:
        from glimmer_store.gates import Push, check_push
        from glimmer_store.graph import GlimmerGraph

        pushed = Push.parse(sys.stdin.read().splitlines())
        async with GlimmerGraph.open(Path(dataset)) as graph:
            return await check_push(graph, remote, url, pushed)

    return _decide(ask, as_json, f"push to {remote}")


@command.command("ci")
@click.argument("dataset", default=".", type=click.Path(exists=True, file_okay=False))
@click.option("--live", is_flag=True, help="Ask the durable remotes as well.")
@_JSON
def ci(dataset: str, live: bool, as_json: bool) -> int:
    """Hold the graph of DATASET against all rules, as `validate` does; nobody is asked without --live."""

    async def ask() -> Verdict:
        from glimmer_store.gates import check_graph

        return await check_graph(Path(dataset), live=live)

    return _decide(ask, as_json, f"graph of {dataset}")


@command.command("teardown")
@click.argument("path", type=click.Path(exists=True, file_okay=False))
@click.option(
    "-C", "dataset", type=click.Path(exists=True, file_okay=False), help="The dataset that loose files belong to."
)
@click.option("--ignore", multiple=True, metavar="PATTERN", help="Files that may go. Can be repeated.")
@_JSON
def teardown(path: str, dataset: str | None, ignore: tuple[str, ...], as_json: bool) -> int:
    """May the folder PATH go, with everything in it? Copies below it do not count. Nothing is changed.

    Looked at are outputs with too few copies elsewhere, annexed contents, files that are in no commit, commits
    and location lines that are nowhere else, and files of no dataset. Name the folders where results are: of a
    container or a virtual machine its home, data and scratch folders.
    """

    async def ask() -> Verdict:
        from glimmer_store.teardown import check_teardown

        return await check_teardown(Path(path), dataset=None if dataset is None else Path(dataset), ignore=ignore)

    return _decide(ask, as_json, path)


def _decide(ask: Callable[[], Awaitable[Verdict]], as_json: bool, what: str) -> int:
    import anyio

    verdict = anyio.run(ask)
    if as_json:
        click.echo(json.dumps(verdict.to_json(), indent=2))
        return verdict.exit_code
    for note in verdict.notes:
        click.echo(f"glimmer-store: note: {note}", err=True)
    for refusal in verdict.refusals:
        click.echo(f"glimmer-store: {refusal}", err=True)
        click.echo(f"  remedy: {refusal.remedy}", err=True)
    if verdict.refusals:
        click.echo(f"glimmer-store: {what}: refused", err=True)
    return verdict.exit_code
