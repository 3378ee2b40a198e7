"""``glimmer-store validate``: the graph against all rules, from its files alone."""

from __future__ import annotations

import json
from pathlib import Path

import click

from glimmer_store.cli.app import UNDER_REPLICATED
from glimmer_store.finding import Level

__all__ = ["command"]


@click.command("validate")
@click.argument("path", default=".", type=click.Path(exists=True, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.option("--strict", is_flag=True, help="Warnings are errors.")
def command(path: str, as_json: bool, strict: bool) -> int:
    """Hold a graph against Glimmer's rules and ours. PATH is a dataset or the folder of a graph (default: here).

    No remote is asked. Exit code 1 when a rule is broken, 3 when only copies are missing according to the
    nodes themselves.
    """
    from glimmer_store.validate import validate

    result = validate(Path(path))
    errors, few, warnings = (result.count(level) for level in Level)
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
    else:
        for finding in result.findings:
            click.echo(f"{finding.level.value}: {finding}")
            click.echo(f"  remedy: {finding.remedy}")
        click.echo(f"{result.nodes} nodes: {errors} errors, {few} under-replicated, {warnings} warnings")
    if errors or (strict and warnings):
        return 1
    return UNDER_REPLICATED if few else 0
