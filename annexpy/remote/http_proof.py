"""Asking one of our own HTTP servers for proofs that it has contents (``possession``)."""

from __future__ import annotations

from typing import Final

from annexpy.errors import KeyNotPresent, PeerError
from annexpy.keys.key import Key
from annexpy.p2p.http import PossessionRequest
from annexpy.p2p.http_answers import PossessionAnswer
from annexpy.remote.http_line import refusal
from annexpy.remote.http_session import HTTPSession
from annexpy.remote.possession import new_nonce, patience

__all__ = ["offered", "prove"]

_NOTHING: Final = Key(b"WORM", b"proofs", 0)
"""A key to ask for when the answer does not matter."""


async def offered(session: HTTPSession) -> bool:
    """A server of ours knows the verb. One that was made before there was one says that there is no such path."""
    if session.proofs is None:
        said = await session.once(_request(session, _NOTHING, new_nonce()))
        if said.status not in (200, 404):
            raise refusal(session.name, said)
        session.proofs = said.status == 200
    return session.proofs


async def prove(session: HTTPSession, key: Key, nonce: bytes) -> bytes:
    """As ``Proves.prove``."""
    if not session.ours:
        raise PeerError(session.name, "it offers proofs no longer")
    answer = await session.ask(_request(session, key, nonce), patience=patience(key, session.deadline))
    assert isinstance(answer, PossessionAnswer)
    if answer.digest is None:
        raise KeyNotPresent(key, session.name)
    return answer.digest


def _request(session: HTTPSession, key: Key, nonce: bytes) -> PossessionRequest:
    return PossessionRequest(session.uuid, key, nonce, session.client, session.version, session.bypass)
