"""``glimmer-store schema``: the storage fields, for people and for programs."""

from __future__ import annotations

import json

import click

__all__ = ["command"]


@click.command("schema")
@click.option(
    "--format", "form", type=click.Choice(["text", "json-schema", "patch"]), default="text", show_default=True,
    help="A list; JSON Schema 2020-12; or a patch for Glimmer's frontmatter.yaml.",
)  # fmt: skip
def command(form: str) -> int:
    """Show the storage fields of a node: their types, what they mean, who writes them."""
    from glimmer_store.schema import FIELDS, frontmatter_patch, json_schema

    match form:
        case "json-schema":
            click.echo(json.dumps(json_schema(), indent=2))
        case "patch":
            click.echo(frontmatter_patch(), nl=False)
        case _:
            for field in FIELDS:
                click.echo(f"{field.name}: {field.spec}\n  {field.meaning}\n  Written by: {field.written_by}.")
    return 0
