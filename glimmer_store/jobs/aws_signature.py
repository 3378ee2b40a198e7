"""AWS Signature Version 4, for the requests to an S3 server that the object store library does not offer.

Source: "Signature Calculations for the Authorization Header: Transferring Payload in a Single Chunk", Amazon S3 API
reference; its examples are the test vectors.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

import annexpy as annex

__all__ = ["Request", "signed"]

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked.

    Attributes:
        method: ``HEAD``, ``POST`` …
        host: With the port, unless that is the usual one.
        path: Not escaped, from the slash on.
        query: Names and values, not escaped.
        headers: Further ones that are signed, in any case of letters.
        body: All of it.
    """

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def target(self) -> str:
        """Path and query as they stand in the request line."""
        query = _query(self.query)
        return _escaped(self.path) + (f"?{query}" if query else "")


def signed(
    request: Request, credentials: annex.S3Credentials, *, region: str, at: datetime, service: str = "s3"
) -> dict[str, str]:
    """All headers of *request*, with who asks. *at* is in UTC; the server refuses what is 15 minutes off."""
    stamp, day = at.strftime("%Y%m%dT%H%M%SZ"), at.strftime("%Y%m%d")
    payload = hashlib.sha256(request.body).hexdigest()
    headers = {name.lower(): " ".join(value.split()) for name, value in request.headers.items()}
    headers |= {"host": request.host, "x-amz-content-sha256": payload, "x-amz-date": stamp}
    if credentials.token:
        headers["x-amz-security-token"] = credentials.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    asked = (request.method, _escaped(request.path), _query(request.query), lines, names, payload)
    scope = f"{day}/{region}/{service}/aws4_request"
    summary = hashlib.sha256("\n".join(asked).encode()).hexdigest()
    secret = f"AWS4{credentials.secret}".encode()
    for part in (day, region, service, "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.new(secret, f"{_ALGORITHM}\n{stamp}\n{scope}\n{summary}".encode(), "sha256").hexdigest()
    who = f"Credential={credentials.key_id}/{scope},SignedHeaders={names},Signature={signature}"
    return headers | {"authorization": f"{_ALGORITHM} {who}"}


def _escaped(path: str) -> str:
    return quote(path, safe="/-._~")


def _query(query: Mapping[str, str]) -> str:
    return "&".join(f"{quote(name, safe='-._~')}={quote(query[name], safe='-._~')}" for name in sorted(query))
