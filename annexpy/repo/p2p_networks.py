"""Addresses of P2P networks, ``p2p-annex::NETWORK:ADDRESS``, and the secrets that belong to them.

A program ``git-annex-p2p-NETWORK`` carries bytes to an address. Whose repository it is knows its own addresses
(``annex/creds/p2paddrs``) and which tokens let in who asks for one (``annex/creds/p2pauth``); the other side keeps
the token that it was given in a file named after the address.

Source: fact sheet p2p-protocol, section 8; git-annex-p2p(1); the design document of the generic P2P transport.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from annexpy.errors import InvalidInput
from annexpy.patterns import regex
from annexpy.repo.files import Files

__all__ = ["SCHEME", "P2PAddress", "is_token_of", "own_addresses", "parse_p2p_address", "token_for"]

SCHEME: Final = "p2p-annex::"
_CREDS: Final = b"annex/creds/"
_NETWORK: Final = regex(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_TOKEN: Final = regex(r"[A-Za-z0-9]{1,1024}")
_NO_LETTER: Final = re.compile(rb"[^A-Za-z0-9]")


@dataclass(frozen=True, slots=True)
class P2PAddress:
    """Where a peer is.

    Attributes:
        network: Which program carries.
        address: What that program takes.
    """

    network: str
    address: str

    @property
    def program(self) -> str:
        return f"git-annex-p2p-{self.network}"

    @property
    def argv(self) -> tuple[str, str]:
        """The command that connects its stdin and stdout to the peer."""
        return self.program, self.address

    def __str__(self) -> str:
        return f"{SCHEME}{self.network}:{self.address}"


def parse_p2p_address(text: str) -> P2PAddress:
    """What ``p2p-annex::NETWORK:ADDRESS`` means.

    Raises:
        InvalidInput: It is none; above all it names no program, or has an address that a program takes for an option.
    """
    network, _, address = text.removeprefix(SCHEME).partition(":")
    bad = not address.isprintable() or not address or address.startswith("-")
    if not text.startswith(SCHEME) or bad or not _NETWORK.fullmatch(network):
        raise InvalidInput("P2P address", text, f"{SCHEME}NETWORK:ADDRESS")
    return P2PAddress(network, address)


def own_addresses(files: Files) -> list[P2PAddress]:
    """Where peers find this repository, as ``git annex p2p --enable`` has written it down; those of tor left out."""
    lines = _lines(files, b"p2paddrs")
    return [parse_p2p_address(line) for line in dict.fromkeys(lines) if line.startswith(SCHEME)]


def is_token_of(files: Files, address: P2PAddress, token: str) -> bool:
    """Whoever asks for *address* with *token* may come in. Takes as long for any token."""
    good = False
    for line in _lines(files, b"p2pauth"):
        known, _, where = line.partition(" ")
        if where == str(address) and _TOKEN.fullmatch(known):
            good |= hmac.compare_digest(known.lower().encode(), token.lower().encode())
    return good


def token_for(files: Files, address: P2PAddress, environ: Mapping[str, str] = os.environ) -> str:
    """What lets us in at *address*: kept by ``git annex p2p --link``, or ``GIT_ANNEX_P2P_AUTHTOKEN``; or ""."""
    name = _NO_LETTER.sub(lambda found: b"%%%02X" % found[0][0], f"{address.network}:{address.address}".encode())
    kept = files.read(_CREDS + name) if len(name) < 256 else None
    token = environ.get("GIT_ANNEX_P2P_AUTHTOKEN", "") if kept is None else kept.decode("ascii", "replace").strip()
    return token if _TOKEN.fullmatch(token) else ""


def _lines(files: Files, name: bytes) -> list[str]:
    raw = files.read(_CREDS + name) or b""
    return [line.strip() for line in raw.decode("utf-8", "replace").splitlines()]
