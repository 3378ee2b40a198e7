"""``glimmer-store inspect``: what there is of a manifest, here and in the archive, and deleting it safely."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from glimmer_store.manifest.inspecting import Inspection, Row

__all__ = ["command"]


class _Age(click.ParamType[timedelta]):
    name = "age"

    def convert(self, value: str | timedelta, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        from glimmer_store.manifest.inspecting import age

        if isinstance(value, timedelta):
            return value
        try:
            return age(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command("inspect")
@click.argument("names", nargs=-1)
@click.option("--lacking", type=click.IntRange(min=1), metavar="N", help="Only what has fewer than N verified copies.")
@click.option("--unverified-for", type=_Age(), metavar="AGE", help="Only what was not verified for so long: 90d, 12h.")
@click.option("--only-here", is_flag=True, help="Only what is here and has no verified copy elsewhere.")
@click.option("--drift", is_flag=True, help="Only what is not what the manifest expects, or not what is stored.")
@click.option("--verify", is_flag=True, help="Measure what is here, where the policy asks for it.")
@click.option("--all", "every", is_flag=True, help="With --verify: measure everything.")
@click.option("--delete", is_flag=True, help="Delete NAMES here, or with --from at a remote, if that is safe.")
@click.option("--from", "remote", metavar="REMOTE", help="With --delete: a durable remote.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per entry.")
@click.option("--manifest", type=click.Path(exists=True, dir_okay=False), help="Default: the dataset's.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(
    names: tuple[str, ...],
    lacking: int | None,
    unverified_for: timedelta | None,
    only_here: bool,
    drift: bool,
    verify: bool,
    every: bool,
    delete: bool,
    remote: str | None,
    as_json: bool,
    manifest: str | None,
    dataset: str,
) -> int:
    """Tell of each dataset and artefact what is expected, what is stored and what was observed, and who has it.

    A copy is verified when a signed proof of it is good and not too old: 90 days for what is irreplaceable, a year
    for the rest. --delete counts nothing else. Exit code 1 when something was not deleted, or is not what it should be.
    """
    import anyio

    if delete and not names:
        raise click.UsageError("name what to delete")
    if remote and not delete:
        raise click.UsageError("--from goes with --delete")

    def shown(row: Row, inspection: Inspection) -> bool:
        wrong = row.standing.value in ("modified", "drift") or bool(row.conflict)
        return (
            (lacking is None or len(row.verified) < lacking)
            and (unverified_for is None or row.unverified_for(unverified_for, inspection.now))
            and (not only_here or row.only_here)
            and (not drift or wrong)
        )

    root = Path(dataset).resolve()

    async def run() -> int:
        from glimmer_store.graph import GlimmerGraph
        from glimmer_store.manifest.inspecting import Inspection
        from glimmer_store.manifest.library import Project, find_manifest

        async with GlimmerGraph.open(root) as graph:
            project = Project(Path(manifest) if manifest else find_manifest(root))
            inspection = Inspection(graph, project)
            rows = list(inspection.rows(names))
            if verify:
                rows = [await _measured(inspection, row, every=every) for row in rows]
            if delete:
                return await _delete(inspection, rows, remote, as_json)
            rows = [row for row in rows if shown(row, inspection)]
        for row in rows:
            click.echo(json.dumps(row.to_json()) if as_json else _line(row))
        return int(verify and any(row.standing.value == "modified" for row in rows))

    return anyio.run(run)


async def _measured(inspection: Inspection, row: Row, *, every: bool) -> Row:
    """*row*, after what is here was measured if that is due."""
    from glimmer_store.manifest.observing import Observations

    declared, class_ = row.declared, "irreplaceable" if row.record is None else row.record.storage_class
    due = every or inspection.policy.due(declared.address, row.observed, class_, inspection.now)
    if declared.present and due:
        await Observations(inspection.project.root).measure(declared.path)
        return inspection.row(declared)
    return row


async def _delete(inspection: Inspection, rows: list[Row], remote: str | None, as_json: bool) -> int:
    from annexpy import AnnexError, NotEnoughCopies
    from glimmer_store.cli.app import complain
    from glimmer_store.manifest.deleting import delete_at, delete_here, remedy_for
    from glimmer_store.remedies import remedy_of

    failed = False
    for row in rows:
        try:
            done = await (delete_here(inspection, row) if remote is None else delete_at(inspection, row, remote))
        except AnnexError as error:
            failed = True
            remedy = remedy_for(inspection, row) if isinstance(error, NotEnoughCopies) else remedy_of(error)
            complain(error, remedy)
            if as_json:
                said = {"name": row.declared.name, "deleted": False, "error": str(error), "remedy": remedy}
                click.echo(json.dumps(said))
            continue
        if as_json:
            keys = [str(key) for key in done.keys]
            click.echo(json.dumps({"name": row.declared.name, "deleted": True, "place": done.place, "keys": keys}))
        else:
            shared = f", {len(done.shared)} contents stay that others have too" if done.shared else ""
            stay = ", ".join(name for name in row.verified if name != remote)
            click.echo(f"deleted {row.declared.name} ({done.place}{shared}); verified copies stay: {stay}")
    return int(failed)


def _line(row: Row) -> str:
    if row.record is None:
        return f"{row.declared.name}: {row.standing.value}, never archived"
    when = "never" if row.last_verified is None else f"{row.last_verified:%Y-%m-%d}"
    names = ", ".join(row.verified) or "none"
    copies = f"{len(row.verified)} of {row.required} copies verified ({names}; {when}), {len(row.copies)} claimed"
    return f"{row.declared.name}: {row.standing.value} here; {copies}; {row.apparent} bytes, {row.exclusive} its own"
