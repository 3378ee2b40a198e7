"""What the answers of a peer mean: who has done it, or which error to raise."""

from __future__ import annotations

from annexpy.errors import AnnexError, ContentChanged, ContentError, PeerError, RemoteProtocolError, VerificationFailed
from annexpy.keys.backend import is_verifiable
from annexpy.keys.key import Key
from annexpy.p2p.connection import Data
from annexpy.p2p.messages import Error, Failure, FailurePlus, Message, Success, SuccessPlus
from annexpy.remote.base import Stored
from annexpy.remote.wire import Wire
from annexpy.uuids import UUID, is_cluster

__all__ = ["copies", "message_of", "refusal", "stored_by", "unexpected"]


def unexpected(wire: Wire, message: Message | Data, waiting_for: str) -> RemoteProtocolError:
    """An answer that the table allows and that makes no sense here."""
    return RemoteProtocolError(f"{wire.name}: {message!r} while waiting for {waiting_for}")


def refusal(wire: Wire, key: Key, answer: Message, request: str) -> AnnexError:
    """The error for an answer that is no success."""
    match answer:
        case Error(text):
            return PeerError(wire.name, text)
        case Failure():
            return ContentError(key, wire.name, f"it answered FAILURE to {request}")
        case _:
            return unexpected(wire, answer, f"the answer to {request}")


def message_of(wire: Wire, event: Message | Data) -> Message:
    """*event*, where no bytes of a body can come.

    Raises:
        RemoteProtocolError: They came.
    """
    if isinstance(event, Data):
        raise unexpected(wire, event, "an answer")
    return event


def copies(wire: Wire, named: tuple[UUID, ...]) -> frozenset[UUID]:
    """Who has done it, when *wire* says so and names these: itself too, unless it is a cluster, which is nobody."""
    found = frozenset(uuid for uuid in named if not is_cluster(uuid))
    return found if found and is_cluster(wire.uuid) else found | {wire.uuid}


def stored_by(wire: Wire, key: Key, answer: Message | Data, *, valid: bool = True) -> Stored:
    """What *answer* to the end of a content says.

    Raises:
        ContentChanged: FAILURE, and the sender had said INVALID.
        VerificationFailed, ContentError: FAILURE.
        PeerError: ERROR.
    """
    match answer:
        case Success():
            return Stored(uuids=frozenset((wire.uuid,)))
        case SuccessPlus(uuids):
            return Stored(uuids=copies(wire, uuids))
        case FailurePlus(uuids) if uuids:
            failure = ContentError(key, wire.name, "it answered FAILURE-PLUS")
            named = frozenset(uuid for uuid in uuids if not is_cluster(uuid))
            return Stored(uuids=named - {wire.uuid}, failed={wire.uuid: failure})
        case Failure() | FailurePlus():
            if not valid:
                raise ContentChanged(key, wire.name)
            if is_verifiable(key):
                raise VerificationFailed(key, wire.name, "it answered FAILURE to the whole content")
            raise ContentError(key, wire.name, "it answered FAILURE to the whole content")
        case _:
            raise refusal(wire, key, message_of(wire, answer), "the content")
