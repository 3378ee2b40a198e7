"""The archive classes of S3 as a cold tier: RestoreObject asks, the header ``x-amz-restore`` of a HEAD tells.

An answer to RestoreObject says only that the request was taken (202), that the content is up already (200), or that it
is on its way (409 RestoreAlreadyInProgress). When it is there only a HEAD says; the copy goes away again at the
``expiry-date``. An S3 server that knows no archive classes calls everything online.

Source: RestoreObject and HeadObject, Amazon S3 API reference.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil
from typing import Final
from urllib.parse import urlsplit

from anyio import CapacityLimiter, create_task_group, to_thread

import annexpy as annex
from glimmer_store.errors import TooManyRequests
from glimmer_store.jobs.aws_signature import Request, signed
from glimmer_store.jobs.cold import Availability, Cold, Expired, Online, Warming

__all__ = ["S3Tier", "availability_of"]

_COLD: Final = frozenset(("GLACIER", "DEEP_ARCHIVE"))
_TIERS: Final = {"bulk": "Bulk", "standard": "Standard", "expedited": "Expedited"}
_SLOW_DOWN: Final = frozenset((b"SlowDown", b"GlacierExpeditedRetrievalNotAvailable", b"TooManyRequests"))
_CODE: Final = re.compile(rb"<Code>([^<]*)</Code>")
_EXPIRY: Final = re.compile(r'expiry-date="([^"]+)"')
_GB: Final = 1e9
_TOGETHER: Final = 8


def availability_of(headers: Mapping[str, str], now: float) -> Availability:
    """What the headers of a HEAD, with small letters, say at *now*.

    Intelligent-Tiering has archive tiers of its own, which it names in ``x-amz-archive-status``.
    """
    said = headers.get("x-amz-restore", "")
    cold = headers.get("x-amz-storage-class", "") in _COLD or "x-amz-archive-status" in headers
    if 'ongoing-request="true"' in said:
        return Warming()
    if not cold:
        return Online()
    if 'ongoing-request="false"' not in said:
        return Cold()
    found = _EXPIRY.search(said)
    if found is None:
        return Online()
    until = parsedate_to_datetime(found[1]).timestamp()
    return Online(until) if now < until else Expired()


class S3Tier:
    """``ColdTier`` of a bucket.

    Args:
        settings: Where it is.
        credentials: Who asks; needs ``s3:RestoreObject``.
        name: For messages.
        price: Of one request, and of one gigabyte, as the provider's price list has it for the tier that is used.
        seconds: For one answer.
    """

    def __init__(
        self,
        settings: annex.S3Settings,
        credentials: annex.S3Credentials,
        *,
        name: str,
        price: tuple[float, float] = (0.0, 0.0),
        seconds: float = 60.0,
    ) -> None:
        self._settings, self._credentials, self._name, self._price = settings, credentials, name, price
        self._seconds = seconds
        if settings.endpoint:
            where = urlsplit(settings.endpoint)
            self._secure, self._host = where.scheme == "https", where.netloc
            self._folder = f"/{settings.bucket}" if settings.by_path else ""
        else:
            self._secure, self._host, self._folder = True, f"{settings.bucket}.s3.{settings.region}.amazonaws.com", ""

    async def _ask(
        self, what: str, key: annex.Key, method: str, query: Mapping[str, str], body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of the answer."""
        headers = {}
        if body:
            digest = hashlib.md5(body, usedforsecurity=False).digest()
            headers = {"content-md5": base64.b64encode(digest).decode(), "content-type": "application/xml"}
        path = f"{self._folder}/{self._settings.object_name(key)}"
        request = Request(method, self._host, path, query, headers, body)
        at = datetime.now(UTC)
        sent = signed(request, self._credentials, region=self._settings.region, at=at)
        try:
            return await to_thread.run_sync(self._exchange, request, sent, abandon_on_cancel=True)
        except TimeoutError as error:
            raise annex.TimedOut(self._name, what, self._seconds) from error
        except (OSError, http.client.HTTPException) as error:
            raise annex.ConnectionLost(self._name, what, str(error) or type(error).__name__) from error

    def _exchange(self, request: Request, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, timeout=self._seconds)
        try:
            connection.request(request.method, request.target, request.body or None, headers)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read(65536)
        finally:
            connection.close()

    def _failed(self, what: str, status: int, body: bytes) -> annex.AnnexError:
        code = (_code(body) or b"no reason given").decode("utf-8", "replace")
        if _code(body) in _SLOW_DOWN:
            return TooManyRequests(self._name)
        if status in (401, 403):
            return annex.AuthFailed(self._name, code)
        return annex.ConnectionLost(self._name, what, f"status {status}, {code}")

    async def availability(self, key: annex.Key) -> Availability:
        what = "answer about a restored content"
        status, headers, body = await self._ask(what, key, "HEAD", {}, b"")
        if status == 404:
            raise annex.KeyNotPresent(key, self._name)
        if status != 200:
            raise self._failed(what, status, body)
        return availability_of(headers, datetime.now(UTC).timestamp())

    async def warm(self, keys: Sequence[annex.Key], *, tier: str, days: float) -> Mapping[annex.Key, annex.AnnexError]:
        if tier not in _TIERS:
            raise annex.InvalidInput("warm.tier", tier, ", ".join(_TIERS))
        body = (
            '<RestoreRequest xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Days>{max(1, ceil(days))}</Days>"
            f"<GlacierJobParameters><Tier>{_TIERS[tier]}</Tier></GlacierJobParameters></RestoreRequest>"
        ).encode()
        refused: dict[annex.Key, annex.AnnexError] = {}
        together = CapacityLimiter(_TOGETHER)

        async def one(key: annex.Key) -> None:
            async with together:
                error = await self._restore(key, body)
            if error is not None:
                refused[key] = error

        async with create_task_group() as group:
            for key in keys:
                group.start_soon(one, key)
        return refused

    async def _restore(self, key: annex.Key, body: bytes) -> annex.AnnexError | None:
        """Why it was certainly not taken. What nobody knows may have to be paid, and ``availability`` will tell."""
        what = "answer to a restore request"
        try:
            status, _, said = await self._ask(what, key, "POST", {"restore": ""}, body)
        except annex.TransportError:
            return None
        code = _code(said)
        if status in (200, 202) or code == b"RestoreAlreadyInProgress" or (status >= 500 and code not in _SLOW_DOWN):
            return None
        return annex.KeyNotPresent(key, self._name) if status == 404 else self._failed(what, status, said)

    def cost(self, keys: Sequence[annex.Key], *, tier: str) -> float:
        request, gigabyte = self._price
        return sum(request + gigabyte * (key.size or 0) / _GB for key in keys)


def _code(body: bytes) -> bytes:
    found = _CODE.search(body)
    return found[1] if found else b""
