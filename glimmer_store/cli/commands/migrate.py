"""``glimmer-store migrate``: storage fields for a graph that has none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glimmer_store.cli.app import UNDER_REPLICATED, UNREACHABLE

if TYPE_CHECKING:
    from glimmer_store.migrate import Migrated, Migration

__all__ = ["command"]


@click.command("migrate")
@click.option("--dry-run/--yes", "-n/-y", "dry_run", default=True, help="Show what would change (default), or do it.")
@click.option("--refresh", is_flag=True, help="Also for nodes that have the fields already.")
@click.option("--verify", is_flag=True, help="Read every copy again; without, no copy is called verified.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per node.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(dry_run: bool, refresh: bool, verify: bool, as_json: bool, dataset: str) -> int:
    """Fill the storage fields of existing nodes from where their contents are now.

    Every durable remote is asked; what only the location log says is reported and not counted. Only our
    fields are written. Exit code 1 when a content was not found, 3 when copies are missing, 4 when a remote
    could not be asked.
    """
    import anyio

    from glimmer_store.migrate import plan_migration

    async def plan() -> Migration:
        return await plan_migration(Path(dataset), refresh=refresh, verify=verify)

    migration = anyio.run(plan)
    if not dry_run:
        migration.apply()
    for entry in migration.nodes:
        click.echo(json.dumps(entry.to_json()) if as_json else _shown(entry))
    if not as_json:
        verb = "would be changed; --yes does it" if dry_run else "changed; look at git diff, then commit"
        click.echo(f"{len(migration.changing)} of {len(migration.nodes)} nodes {verb}")
        for name, why in migration.unreachable.items():
            click.echo(f"{name} could not be asked: {why}", err=True)
    if any(entry.skipped and entry.key is None for entry in migration.nodes):
        return 1
    if migration.unreachable:
        return UNREACHABLE
    return UNDER_REPLICATED if any(entry.record and entry.record.shortfall for entry in migration.nodes) else 0


def _shown(entry: Migrated) -> str:
    lines = [f"{entry.file}: " + (f"left alone: {entry.skipped}" if entry.skipped else "")]
    if not entry.skipped:
        lines[0] += "changes" if entry.changes else "is right as it is"
    for name, (before, after) in entry.changes.items():
        was = "" if before is None else f"{_value(before)} → "
        lines.append(f"  {name}: {was}{_value(after)}")
    return "\n".join([*lines, *(f"  note: {note}" for note in entry.notes)])


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(place.get("remote", place)) if isinstance(place, dict) else str(place) for place in value)
    return json.dumps(value, default=str) if isinstance(value, bool) else str(value)
