"""HTTP over TLS."""

from __future__ import annotations

import socket
import ssl
import warnings
from urllib.parse import urlsplit

from protocol_tests.http_talk import Http
from protocol_tests.need import ANY_ROLE, Need
from protocol_tests.requirement import requirement
from protocol_tests.trial import NotTried, Trial, must

__all__ = ["certified", "in_the_clear", "no_old_versions"]

_NEEDS = (Need.HTTP, Need.TLS)
_HTTP = "P2P protocol over HTTP"


def _connected(trial: Trial) -> socket.socket:
    url = urlsplit(trial.subject.url)
    return socket.create_connection((url.hostname or "", url.port or 443), trial.patience.seconds)


@requirement(
    "H-080",
    "The certificate is one that is trusted, and of this host.",
    _HTTP,
    since=3,
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def certified(trial: Trial) -> None:
    Http(trial).post("gettimestamp").json()


@requirement("H-081", "Versions of TLS below 1.2 are refused.", _HTTP, once=True, needs=_NEEDS, roles=ANY_ROLE)
def no_old_versions(trial: Trial) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with _connected(trial) as plain:
        try:
            with old.wrap_socket(plain) as agreed:
                version = agreed.version()
        except ssl.SSLError as refused:
            if refused.reason == "NO_PROTOCOLS_AVAILABLE":
                raise NotTried("the TLS library of this machine has no such version") from refused
            return
        except OSError:
            return
    must(False, f"it agrees to {version}")


@requirement(
    "H-082",
    "What comes in the clear where TLS is expected is no request.",
    _HTTP,
    once=True,
    needs=_NEEDS,
    roles=ANY_ROLE,
)
def in_the_clear(trial: Trial) -> None:
    url = urlsplit(trial.subject.url)
    asked = f"POST {url.path}/v3/gettimestamp?clientuuid=x HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Length: 0\r\n\r\n"
    trial.transcript.note("H", "request", asked)
    said = b""
    with _connected(trial) as plain:
        plain.sendall(asked.encode())
        try:
            said = plain.recv(4096)
        except OSError:  # hung up, or silent
            pass
    trial.transcript.note("H", "answer", said.decode("latin-1"))
    must(not said.startswith(b"HTTP/1.1 2"), f"it is answered by {said[:60]!r}")
