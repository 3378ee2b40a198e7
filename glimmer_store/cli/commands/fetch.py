"""``glimmer-store fetch``: one content, for the shell bindings of a manifest."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("fetch")
@click.option("--key", required=True, metavar="KEY", help="What to get; the key of a folder's list gets the folder.")
@click.option("--to", "target", required=True, metavar="PATH", help="Where to write it.")
@click.option("--fallback-uri", "urls", multiple=True, metavar="URL", help="Where the web may have it; asked last.")
@click.option("--from", "remotes", multiple=True, metavar="REMOTE", help="Ask these, and not the dataset's remotes.")
@click.option(
    "-C", "dataset", default=".", type=click.Path(exists=True, file_okay=False), help="The dataset (default: here)."
)
def command(key: str, target: str, urls: tuple[str, ...], remotes: tuple[str, ...], dataset: str) -> int:
    """Write a content to PATH, verified while it comes: from the cheapest place that has a good copy.

    In a manifest: shell = "glimmer-store fetch --key KEY --to $download_path".
    """
    import anyio

    from annexpy import Key
    from glimmer_store.datamanifest import fetch_content

    where = anyio.run(fetch_content, Key.parse(key), Path(target), Path(dataset).resolve(), urls, remotes)
    click.echo(f"fetched {target} from {where}", err=True)
    return 0
