"""Become somebody of a tenant: from an invitation, or the operator's word, to repositories that this dataset can use.

The secret that the server gives is kept below ``.git`` (mode 0600), where git's own ``credential-store`` finds it for
git, git-annex and annexpy alike.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import annexpy as annex
from glimmer_store.config import Durable
from glimmer_store.errors import TenantError
from glimmer_store.provision import Place
from glimmer_store.tenant_client import TOKEN, ask

__all__ = ["CREDENTIALS", "enrol"]

CREDENTIALS: Final = "glimmer-store-credentials"
"""In the git directory: a line for each server, as git's ``credential-store`` has them."""


def enrol(root: Path, server: str, tenant: str, *, invitation: str = "", ssh_key: Path | None = None) -> list[Place]:
    """The durable repositories of *tenant* at *server*, ready to be used from the dataset at *root*.

    Args:
        root: The dataset; made a git-annex repository when it is none.
        server: URL of the HTTP side of ``glimmer-store serve``.
        tenant: Its name. The operator (a secret in ``GLIMMER_STORE_TOKEN``) may name one that is not there: it is made.
        invitation: Of ``glimmer-store tenant invite``; "" for the operator.
        ssh_key: A public key that is to be let in over ssh too; the repositories are reached over ssh then.

    Raises:
        TenantError: The server refuses, or does not answer.
    """
    if not invitation:
        if not os.environ.get(TOKEN):
            raise TenantError(
                f"{tenant}: neither an invitation nor a secret",
                remedy=f"ask for an invitation, for --invitation; or put the operator's secret into {TOKEN}",
            )
        known = {one["name"] for one in ask(server, "GET", "/tenants")["tenants"]}
        if tenant not in known:
            ask(server, "POST", "/tenants", {"name": tenant})
        invitation = ask(server, "POST", f"/tenants/{quote(tenant)}/invitations")["invitation"]
    body: dict[str, object] = {"invitation": invitation, "label": f"{root.name}"}
    if ssh_key is not None:
        body["ssh-key"] = ssh_key.read_text(encoding="utf-8").strip()
    granted = ask(server, "POST", "/invitations/accept", body)
    if granted["tenant"]["name"] != tenant:
        raise TenantError(f"the invitation is for {granted['tenant']['name']}, not for {tenant}")
    _keep(root, server, granted)
    return [_place(server, granted, one, over_ssh=ssh_key is not None) for one in granted["tenant"]["repositories"]]


def _place(server: str, granted: dict[str, Any], repository: dict[str, Any], *, over_ssh: bool) -> Place:
    uuid, quota = annex.parse_uuid(repository["uuid"]), granted["tenant"]["quota"]
    name = f"{granted['tenant']['name']}-{repository['name']}"
    if over_ssh:
        if not repository["ssh"]:
            raise TenantError(f"{server}: has no ssh side", remedy="leave --ssh-key out, to go by HTTP")
        return Place(Durable(name, uuid, repository["ssh"][0]), repository["ssh"][0], quota)
    parts = urlsplit(server.rstrip("/"))
    url = f"{parts.scheme}://{granted['user']}@{parts.netloc}{parts.path}{repository['http']}"
    return Place(Durable(name, uuid, f"annex+{url}/git-annex/{uuid}"), url, quota)


def _keep(root: Path, server: str, granted: dict[str, Any]) -> None:
    try:
        repository = annex.Repository.open(root)
    except annex.NotARepository:
        repository = annex.Repository.init(root, bare=False)
    with repository:
        parts = urlsplit(server)
        store = Path(os.fsdecode(repository.git_dir)) / CREDENTIALS
        line = f"{parts.scheme}://{granted['user']}:{quote(granted['secret'])}@{quote(parts.netloc, safe=':[]')}\n"
        fd = os.open(store, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(fd, "a", encoding="utf-8") as file:
            file.write(line)
        name = f"credential.{parts.scheme}://{parts.netloc}.helper"
        if repository.config.get(name) is None:
            repository.config.set(name, f"store --file={shlex.quote(str(store))}")
