"""``glimmer-store init [DIR]``: a dataset with durable repositories."""

from __future__ import annotations

from pathlib import Path

import click

from glimmer_store.config import CONFIG_NAME, Config
from glimmer_store.errors import ConfigError, shell_line

__all__ = ["command"]


@click.command("init")
@click.argument("dataset", default=".", type=click.Path(file_okay=False))
@click.option(
    "--durable",
    multiple=True,
    metavar="PATH|URL",
    help="A durable repository; a path is made a bare one when it does not exist. Give three.",
)
@click.option(
    "--adjunct",
    "adjuncts",
    multiple=True,
    metavar="directory:PATH|s3://BUCKET/PREFIX",
    help="A store for further copies, without history.",
)
@click.option("--forge", metavar="URL", help="A git host for history and pointers, without contents.")
@click.option("--tenant", metavar="NAME", help="Use the repositories of a tenant of SERVER.")
@click.option("--server", metavar="URL", envvar="GLIMMER_STORE_SERVER", help="Of `glimmer-store serve`, by HTTP.")
@click.option("--invitation", metavar="TOKEN", default="", help="That the tenant gave you.")
@click.option(
    "--ssh-key", metavar="FILE.pub", type=click.Path(exists=True, dir_okay=False), help="Go by ssh, with this key."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def command(
    dataset: str,
    durable: tuple[str, ...],
    adjuncts: tuple[str, ...],
    forge: str | None,
    tenant: str | None,
    server: str | None,
    invitation: str,
    ssh_key: str | None,
    yes: bool,
) -> int:
    """Set DATASET up: a git-annex repository, its durable repositories, and glimmer-store.toml.

    What exists is kept: an existing repository is used as it is, an existing durable repository is
    only registered.
    """
    import anyio

    from glimmer_store.enforce import enforce
    from glimmer_store.provision import plan, provision

    root = Path(dataset)
    if (tenant is None) != (server is None) and (tenant or invitation):
        raise click.UsageError("Give --tenant together with --server.")
    known = Config.load(root) if (root / CONFIG_NAME).exists() else Config()
    lacking = max(known.numcopies.values()) - len(known.durable)
    if not durable and not adjuncts and tenant is None and forge is None:
        if yes and not known.durable:
            raise ConfigError(
                "no durable repository is named", remedy=shell_line("glimmer-store", "init", root.resolve())
            )
        if not yes:
            asked = f"{lacking} durable repositories are missing" if lacking > 0 else "More durable repositories"
            answer = click.prompt(f"{asked} (paths or URLs, separated by blanks)", None if lacking > 0 else "")
            durable = tuple(answer.split())
    steps = plan(root, durable, adjuncts=adjuncts, forge=forge)
    if tenant is not None:
        steps.insert(1, f"become somebody of {tenant} at {server}, and use its repositories")
    if not yes:
        for step in steps:
            click.echo(f"will {step}")
        click.confirm("Go on?", default=True, abort=True)
    places = []
    if tenant is not None:
        from glimmer_store.enrol import enrol

        assert server is not None
        places = enrol(root, server, tenant, invitation=invitation, ssh_key=Path(ssh_key) if ssh_key else None)
    config = provision(root, durable, places=places, adjuncts=adjuncts, forge=forge)
    anyio.run(enforce, root)
    for place in config.durable:
        click.echo(f"durable  {place.name}  {place.uuid}  {place.url}")
    for adjunct in config.adjuncts:
        click.echo(f"adjunct  {adjunct.name}  {adjunct.uuid}  {adjunct.kind}")
    needed = max(config.numcopies.values())
    if len(config.durable) < needed:
        click.echo(f"note: {len(config.durable)} durable repositories; irreplaceable outputs need {needed}", err=True)
    return 0
