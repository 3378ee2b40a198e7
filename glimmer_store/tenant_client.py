"""Ask a server's tenant API from somewhere else."""

from __future__ import annotations

import json
import os
from http.client import HTTPException
from typing import Any, Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from glimmer_store.errors import TenantError

__all__ = ["TOKEN", "ask"]

TOKEN: Final = "GLIMMER_STORE_TOKEN"
"""The environment variable with the secret of a credential."""
_SECONDS: Final = 60.0
_MOST: Final = 16 * 1024 * 1024


def ask(
    server: str,
    method: str,
    path: str,
    body: dict[str, object] | None = None,
    *,
    secret: str = "",
    seconds: float = _SECONDS,
) -> Any:  # Any: parsed JSON
    """One request to the API of the *server* at this URL.

    Args:
        server, method, path, body: What is asked.
        secret: Of a credential; default: that in ``GLIMMER_STORE_TOKEN``, if there is one.
        seconds: How long an answer may take.

    Raises:
        TenantError: It cannot be reached, refuses, or says something that is no JSON.
    """
    if urlsplit(server).scheme not in ("http", "https"):
        raise TenantError(f"{server}: not the URL of a server", remedy="give it as https://HOST:PORT")
    headers = {"Content-Type": "application/json"}
    if secret := secret or os.environ.get(TOKEN, ""):
        headers["Authorization"] = f"Bearer {secret}"
    data = json.dumps(body or {}).encode() if method == "POST" else None
    request = Request(f"{server.rstrip('/')}/api/v1{path}", data=data, headers=headers, method=method)
    try:
        with urlopen(request, timeout=seconds) as answer:
            return json.loads(answer.read(_MOST))
    except HTTPError as error:
        raise _refused(server, error) from error
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise TenantError(
            f"{server}: {error}", remedy="see whether the server runs, and whether this is its URL"
        ) from error


def _refused(server: str, error: HTTPError) -> TenantError:
    said = error.read(_MOST).decode("utf-8", "replace").strip()
    match error.code:
        case 401:
            return TenantError(
                f"{server}: who asks is not known", remedy=f"put the secret of a credential into {TOKEN}"
            )
        case 403 | 404:
            return TenantError(f"{server}: not there, or not allowed to whoever has this secret")
    try:
        found = json.loads(said)
        return TenantError(f"{server}: {found['error']}", remedy=str(found.get("remedy", "")))
    except (ValueError, KeyError, TypeError, RecursionError):
        return TenantError(f"{server}: {error.code} {said[:500]}")
