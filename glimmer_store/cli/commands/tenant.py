"""``glimmer-store tenant``: who a server hosts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

import click

from glimmer_store.errors import TenantError

if TYPE_CHECKING:
    from glimmer_store.tenant import Granted
    from glimmer_store.tenants import Tenants

__all__ = ["command"]

_Decorated: TypeAlias = Callable[..., Any]
_ACCESS = click.Choice(["read-only", "append-only", "write"])


@click.group("tenant")
def command() -> None:
    """Make tenants of a server, let people in, and see what was done.

    SERVER is the server's folder, on its machine, or the server's URL; then the secret of a credential has to be in
    GLIMMER_STORE_TOKEN. Everything is printed as JSON.
    """


def _on(function: _Decorated) -> _Decorated:
    option = click.option(
        "--server", "server", required=True, metavar="SERVER", envvar="GLIMMER_STORE_SERVER", help="Folder or URL."
    )
    return option(function)


def _do(
    server: str, local: Callable[[Tenants], object], method: str, path: str, body: dict[str, object] | None = None
) -> int:
    """Do it here, or ask for it there, and print what is said."""
    if "://" in server:
        from glimmer_store.tenant_client import ask

        said = ask(server, method, path, body)
    else:
        said = local(_tenants(server))
    click.echo(json.dumps(said, indent=2))
    return 0


def _tenants(folder: str) -> Tenants:
    from glimmer_store.tenants import STATE, Tenants

    if not (Path(folder) / STATE).exists():
        raise TenantError(f"{folder}: no server's folder", remedy="glimmer-store tenant create makes one with --new")
    return Tenants(folder)


def _size(text: str | None) -> int | None:
    from annexpy import parse_size

    if text is None or text == "none":
        return None
    size = parse_size(text)
    if size is None:
        raise click.UsageError(f"{text}: give a size, as 10GB, or none.")
    return size


def _granted(granted: Granted) -> dict[str, object]:
    credential = granted.credential
    return {
        "id": credential.id,
        "user": credential.user,
        "label": credential.label,
        "access": credential.access.value,
        "secret": granted.secret,
    }


@command.command("create")
@click.argument("name")
@click.option("--repository", "repositories", multiple=True, metavar="NAME", help="Its bares (vault1 to vault3).")
@click.option("--access", type=_ACCESS, default="write", show_default=True, help="Nobody of it may do more.")
@click.option("--quota", metavar="SIZE", help="How much content each repository may hold.")
@click.option("--secure-hashes", "secure", is_flag=True, help="Take SHA256, SHA3, BLAKE and their like only, no MD5.")
@click.option("--new", is_flag=True, help="Make the server's folder when it is not there.")
@_on
def create(
    name: str, repositories: tuple[str, ...], access: str, quota: str | None, secure: bool, new: bool, server: str
) -> int:
    """Make a tenant with its bare repositories."""
    from glimmer_store.tenant import Access
    from glimmer_store.tenants import VAULTS, Tenants

    size = _size(quota)
    if new and "://" not in server:
        Tenants(server)

    def local(on: Tenants) -> object:
        made = on.create(name, repositories=repositories or VAULTS, access=Access(access), quota=size, secure=secure)
        return made.to_json()

    body: dict[str, object] = {"name": name, "access": access, "quota": size, "repositories": repositories or VAULTS}
    body |= {"secure-hashes": True} if secure else {}
    return _do(server, local, "POST", "/tenants", body)


@command.command("list")
@_on
def list_(server: str) -> int:
    """Every tenant."""
    return _do(server, lambda on: {"tenants": [one.to_json() for one in on.all()]}, "GET", "/tenants")


@command.command("show")
@click.argument("name")
@_on
def show(name: str, server: str) -> int:
    """A tenant and its repositories."""
    return _do(server, lambda on: on.get(name).to_json(), "GET", f"/tenants/{quote(name)}")


@command.command("invite")
@click.argument("name")
@click.option("--access", type=_ACCESS, default="write", show_default=True)
@_on
def invite(name: str, access: str, server: str) -> int:
    """An invitation, good for a week and for one person: `glimmer-store init --invitation`."""
    from glimmer_store.tenant import Access

    def local(on: Tenants) -> object:
        return {"invitation": on.invite(name, access=Access(access))}

    return _do(server, local, "POST", f"/tenants/{quote(name)}/invitations", {"access": access})


@command.command("credentials")
@click.argument("name")
@_on
def credentials(name: str, server: str) -> int:
    """Who is let in, without secrets."""

    def local(on: Tenants) -> object:
        found = on.credentials(name)
        return {"credentials": [{"id": one.id, "user": one.user, "label": one.label} for one in found]}

    return _do(server, local, "GET", f"/tenants/{quote(name)}/credentials")


@command.command("rotate")
@click.argument("name")
@click.argument("id", type=int)
@_on
def rotate(name: str, id: int, server: str) -> int:
    """A new secret in place of that of credential ID, which is good for nothing from now on."""
    path = f"/tenants/{quote(name)}/credentials/{id}/rotate"
    return _do(server, lambda on: _granted(on.rotate(name, id)), "POST", path)


@command.command("revoke")
@click.argument("name")
@click.argument("id", type=int)
@_on
def revoke(name: str, id: int, server: str) -> int:
    """Let the bearer of credential ID in no more."""

    def local(on: Tenants) -> object:
        on.revoke(name, id)
        return {"revoked": id}

    return _do(server, local, "DELETE", f"/tenants/{quote(name)}/credentials/{id}")


@command.command("suspend")
@click.argument("name")
@_on
def suspend(name: str, server: str) -> int:
    """Let nobody of the tenant in; what it has stored stays."""
    return _do(server, lambda on: on.suspend(name).to_json(), "POST", f"/tenants/{quote(name)}/suspend")


@command.command("resume")
@click.argument("name")
@_on
def resume(name: str, server: str) -> int:
    """Let them in again."""
    return _do(server, lambda on: on.resume(name).to_json(), "POST", f"/tenants/{quote(name)}/resume")


@command.command("quota")
@click.argument("name")
@click.argument("size")
@_on
def quota(name: str, size: str, server: str) -> int:
    """Change how much content each repository of the tenant may hold: SIZE, as 10GB, or none."""
    most = _size(size)
    return _do(
        server, lambda on: on.limit(name, most).to_json(), "POST", f"/tenants/{quote(name)}/quota", {"quota": most}
    )


@command.command("hashes")
@click.argument("name")
@click.argument("which", type=click.Choice(["secure", "any"]))
@_on
def hashes(name: str, which: str, server: str) -> int:
    """Which keys may come from now on: those with a cryptographically secure hash, or any that can be verified."""
    secure = which == "secure"
    path, body = f"/tenants/{quote(name)}/hashes", {"secure-hashes": secure}
    return _do(server, lambda on: on.hashes(name, secure=secure).to_json(), "POST", path, dict(body))


@command.command("delete")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_on
def delete(name: str, yes: bool, server: str) -> int:
    """Forget a tenant. Its repositories are moved to the folder deleted/ of the server, and not removed."""
    if not yes:
        click.confirm(f"Let nobody of {name} in any more, and move its repositories aside?", abort=True)
    return _do(server, lambda on: {"deleted": name, "moved": str(on.delete(name))}, "DELETE", f"/tenants/{quote(name)}")


@command.command("audit")
@click.argument("name")
@_on
def audit(name: str, server: str) -> int:
    """What was done to a tenant, when and by whom."""
    path = f"/tenants/{quote(name)}/audit"
    return _do(server, lambda on: {"audit": [one.to_json() for one in on.audit(name)]}, "GET", path)


@command.command("operator")
@click.option("--label", default="operator", show_default=True)
@_on
def operator(label: str, server: str) -> int:
    """A new secret that is good for everything of the HTTP API. Only on the server's machine."""
    if "://" in server:
        raise click.UsageError("Only on the server's machine: give its folder.")
    click.echo(json.dumps(_granted(_tenants(server).operator(label)), indent=2))
    return 0


@command.command("backup")
@click.argument("file", type=click.Path(dir_okay=False))
@_on
def backup(file: str, server: str) -> int:
    """Copy the server's state, while it runs, to FILE. Repositories are not in it."""
    from glimmer_store import tenant_backup

    tenant_backup.backup(_tenants(server), Path(file))
    return 0


@command.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@_on
def restore(file: str, server: str) -> int:
    """Put a copy of the state into SERVER, a folder without one; says which repositories are not there."""
    from glimmer_store import tenant_backup

    tenants, missing = tenant_backup.restore(Path(file), server)
    click.echo(json.dumps({"tenants": [one.name for one in tenants.all()], "missing": missing}, indent=2))
    return 1 if missing else 0
