"""Ways to an HTTP server: TCP, through a proxy where the environment names one, and TLS."""

from __future__ import annotations

import os
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from annexpy.errors import AuthFailed, ConnectFailed, InvalidInput, Refused
from annexpy.transport.base import Transport
from annexpy.transport.http_client import HTTPConnection
from annexpy.transport.sockets import DialTCP
from annexpy.transport.tls import start_tls

__all__ = ["DialHTTP", "Proxy", "authority", "proxy_for"]


def authority(host: str, port: int, *, tls: bool) -> str:
    """*host* and *port* as they stand in URLs and in the header ``Host``."""
    shown = f"[{host}]" if ":" in host else host
    return shown if port == (443 if tls else 80) else f"{shown}:{port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        host, port: Where it listens, without TLS.
        authorization: What it wants to hear; "" for nothing. Never shown.
    """

    host: str
    port: int
    authorization: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.host!r}, {self.port})"

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What goes with every request to it."""
        return [(b"Proxy-Authorization", self.authorization.encode())] if self.authorization else []


def proxy_for(host: str, port: int, *, tls: bool, environ: Mapping[str, str] | None = None) -> Proxy | None:
    """The proxy that the environment names for *host*, by the rules of curl and git; None: go there directly.

    ``https_proxy`` or ``http_proxy``, then ``all_proxy``; the upper case counts too, but for ``HTTP_PROXY``, which
    anybody can set who sends a request to a CGI script. ``no_proxy`` lists hosts, domains, or ``*``.

    Raises:
        Refused: A proxy of another kind.
        InvalidInput: Not the address of a proxy.
    """
    env: Mapping[str, str] = os.environ if environ is None else environ

    def said(*names: str) -> str:
        return next((env[name] for name in names if env.get(name)), "")

    address = said("https_proxy", "HTTPS_PROXY") if tls else said("http_proxy")
    address = address or said("all_proxy", "ALL_PROXY")
    if not address or _excepted(host.lower(), port, said("no_proxy", "NO_PROXY")):
        return None
    if "://" not in address:
        address = f"http://{address}"
    try:
        parts = urlsplit(address)
        proxy_port = parts.port or 1080
    except ValueError as error:
        raise InvalidInput("proxy", "(hidden)", "http://HOST:PORT") from error
    if parts.scheme.lower() != "http" or not parts.hostname:
        raise Refused("proxy", f"{parts.scheme}://{parts.hostname}", "only HTTP proxies are spoken to")
    words = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        words = "Basic " + b64encode(pair.encode()).decode()
    return Proxy(parts.hostname, proxy_port, words)


def _excepted(host: str, port: int, listed: str) -> bool:
    for entry in listed.lower().replace(",", " ").split():
        name, colon, number = entry.rpartition(":")
        if colon and number.isdecimal() and (":" not in name or name.endswith("]")):
            if int(number) != port:
                continue
            entry = name
        entry = entry.strip("[]").lstrip(".")
        if entry == "*" or host == entry or (entry and host.endswith("." + entry)):
            return True
    return False


@dataclass(frozen=True, slots=True)
class DialHTTP:
    """Connects to the HTTP server at *host* and *port*.

    Attributes:
        host, port: Of the server.
        tls: Speak TLS, and check who the server is.
        proxy: Through this one. Without TLS the requests themselves have to name the server then (``prefix``).
        cafile: Certificates to trust, instead of the system's.
        verify: False trusts anybody.
        timeout: Seconds for each step.

    Raises:
        ConnectFailed, TimedOut: As ``DialTCP``; the proxy refuses; somebody else answers.
        AuthFailed: The proxy wants to know who asks.
    """

    host: str
    port: int
    tls: bool = False
    proxy: Proxy | None = None
    cafile: str | None = None
    verify: bool = True
    timeout: float = 20.0

    async def __call__(self) -> Transport:
        proxy = self.proxy
        transport = await DialTCP(
            proxy.host if proxy else self.host, proxy.port if proxy else self.port, self.timeout
        )()
        if not self.tls:
            return transport
        if proxy is not None:
            await self._tunnel(transport, proxy)
        return await start_tls(transport, self._context(), hostname=self.host, timeout=self.timeout)

    async def _tunnel(self, transport: Transport, proxy: Proxy) -> None:
        """Ask *proxy* to pass everything on; *transport* is closed where it does not."""
        try:
            target = authority(self.host, self.port, tls=False).encode()
            if b":" not in target.rpartition(b"]")[2]:
                target += b":80"
            connection = HTTPConnection(transport, target, deadline=self.timeout)
            connection.ask(b"CONNECT", target, proxy.headers)
            status = await connection.tunnel()
            if status == 407:
                raise AuthFailed(f"proxy {proxy.host}:{proxy.port}", "it wants credentials (407)")
            if not 200 <= status < 300:
                raise ConnectFailed(str(self), f"the proxy {proxy.host}:{proxy.port} answered {status}")
        except BaseException:
            await transport.aclose()
            raise

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.cafile)
        except OSError as error:
            raise ConnectFailed(str(self), f"certificates in {self.cafile}: {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    @property
    def prefix(self) -> bytes:
        """What stands before the path of every request."""
        return f"http://{authority(self.host, self.port, tls=False)}".encode() if self.proxy and not self.tls else b""

    def __str__(self) -> str:
        return f"http{'s' if self.tls else ''}://{authority(self.host, self.port, tls=self.tls)}"
