"""From the URL of a git repository to its contents: ``annex.url`` and ``annex.uuid`` of its ``config``.

It is read each time and written nowhere, so that a server may move, and ``remote.NAME.annexUrl``, which somebody has
set on purpose, is never replaced by it.
"""

from __future__ import annotations

from dataclasses import replace

from annexpy.errors import AnnexError, ConnectFailed, UnknownUUID
from annexpy.remote.http_url import HTTPPlace, parse_annex_url
from annexpy.repo.gitconfig import Entry, parse_config
from annexpy.uuids import parse_uuid

__all__ = ["find_contents"]


def find_contents(name: str, place: HTTPPlace, config: bytes) -> HTTPPlace:
    """The place of the contents of the git repository at *place* with this *config*, its UUID included.

    Raises:
        ConnectFailed: That is no git repository, or it does not say where contents are.
        UnknownUUID: It has none, so git-annex does not know it.
    """
    found: dict[str, str] = {}
    try:
        for entry in parse_config(config):
            if isinstance(entry, Entry) and entry.value is not None:
                found[entry.name] = entry.value
    except AnnexError as error:
        raise ConnectFailed(name, f"what is at {place}/config is no git configuration") from error
    url, uuid = found.get("annex.url"), found.get("annex.uuid")
    if uuid is None:
        raise UnknownUUID(f"{name}: the repository at {place} has no annex.uuid")
    if url is None:
        raise ConnectFailed(name, f"the repository at {place} says nothing about contents (annex.url)")
    contents = parse_annex_url(url)
    if contents.user is None and (contents.host, contents.tls) == (place.host, place.tls):
        contents = replace(contents, user=place.user, password=place.password)
    return replace(contents, uuid=parse_uuid(uuid))
