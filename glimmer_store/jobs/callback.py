"""Tell a URL that a job ended. How that went is a status of its own, and changes nothing about the job.

Each end of a job is told once: ``pending → succeeded | failed``. A receiver that is down, or answers with anything but
2xx, is asked again a few times, later each time; it may hear of one end twice, when the connection breaks after it took
it, and never of a job that has not ended.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import urlsplit

import anyio
from anyio import to_thread

import annexpy as annex
from glimmer_store.jobs.control import replace_file
from glimmer_store.jobs.spec import JobError

__all__ = ["CALLBACK", "Callback", "check_url", "tell"]

CALLBACK: Final = "callback.json"
_TRIES: Final = 5
_FIRST: Final = 1.0
"""Seconds before the second try; doubled with each."""
_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Callback:
    """How telling of one end went.

    Attributes:
        url: Who is told.
        status: ``pending``, ``succeeded`` or ``failed``.
        tries: How often it was tried.
        error: What went wrong last; empty after success.
    """

    url: str
    status: str = "pending"
    tries: int = 0
    error: str = ""

    def to_json(self) -> dict[str, object]:
        return {"url": self.url, "status": self.status, "tries": self.tries, "error": self.error}


def check_url(url: str) -> str:
    """*url*, when it can be called.

    Raises:
        JobError: It cannot.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not url.isascii() or any(one <= " " for one in url):
        raise JobError(f"callback {url!r}: not a URL that can be called", remedy="give it as https://HOST/PATH")
    return url


def known(folder: Path) -> dict[str, Callback]:
    """End of the job → how telling of it went."""
    try:
        raw: dict[str, Any] = json.loads((folder / CALLBACK).read_bytes())  # Any: parsed JSON
        return {end: Callback(**fields) for end, fields in raw.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise JobError(f"{folder / CALLBACK}: {error}", remedy="remove the file: the callback is made again") from error


async def tell(
    folder: Path,
    url: str,
    end: str,
    body: Mapping[str, object],
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    tries: int = _TRIES,
) -> Callback:
    """Tell *url* of one end of the job in *folder*, unless that is done already.

    Args:
        folder: Where ``callback.json`` is.
        url: Gets a POST with JSON.
        end: Status of the job that is told of.
        body: What is told.
        sleep: For tests.
        tries: How often, at most.

    Raises:
        JobError: No URL that can be called, or ``callback.json`` cannot be read.
    """
    before = known(folder)
    now = before.get(end) or Callback(check_url(url))
    if now.status != "pending":
        return now
    for number in range(tries):
        error = await to_thread.run_sync(_post, url, json.dumps(body).encode())
        status = "succeeded" if not error else "failed" if number == tries - 1 else "pending"
        now = Callback(url, status, now.tries + 1, error)
        replace_file(
            folder / CALLBACK, json.dumps({name: c.to_json() for name, c in (before | {end: now}).items()}).encode()
        )
        if status != "pending":
            break
        await sleep(_FIRST * 2**number)
    return now


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Whoever is told is who was named."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _post(url: str, body: bytes) -> str:
    """What went wrong; empty when the receiver took it."""
    headers = {"Content-Type": "application/json", "User-Agent": f"glimmer-store/{annex.__version__}"}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=_SECONDS) as answer:
            return "" if 200 <= answer.status < 300 else f"answered {answer.status}"
    except urllib.error.HTTPError as error:
        return f"answered {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return str(error) or type(error).__name__
