"""What glimmer_store does in a schedule: outputs that are stored on all durable remotes, and copies that are proven."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from annexpy.errors import AnnexError
from annexpy.keys.key import Key
from glimmer_store.archive import Archive, Output
from glimmer_store.attest import Signer
from glimmer_store.config import Config, Durable
from glimmer_store.policy import StorageClass
from glimmer_store.receipts import Verdict

if TYPE_CHECKING:
    from tests.simulation.clients import Client

__all__ = ["Dataset"]


@cache
def _signer() -> Signer:
    return Signer(Ed25519PrivateKey.from_private_bytes(bytes(32)))


@dataclass(frozen=True, slots=True)
class Made(Output):
    """An output that is in no file."""

    content: bytes = b""

    def items(self, root: Path) -> list[tuple[Key, str | bytes]]:
        return [(self.key, self.content)]


class Dataset:
    """The dataset of a client, whose durable remotes are all nodes."""

    def __init__(self, client: Client) -> None:
        self._client, self._truth = client, client.truth
        nodes = {
            Durable(name, node.uuid, f"simulated:{name}"): client.world.remote(client.process, name)
            for name, node in client.nodes.items()
        }
        numcopies = dict.fromkeys(StorageClass, client.truth.copies.needed)
        config = Config(tuple(nodes), numcopies)
        self._places = list(nodes)
        self.archive = Archive(Path(client.name), config, client.process.repository, nodes)
        self.archive._signer = _signer()

    async def store(self, key: Key) -> bool:
        """Put it into all nodes, and have each copy proven."""
        truth = self._truth
        operation, known = truth.began("put", key), False
        try:
            output = Made(Path("output.dat"), key, content=truth.contents[key])
            archived = await self.archive.store(output, StorageClass.GENERATED)
            known = not archived.failed
        except AnnexError as error:
            truth.event(f"{self._client.name}: nothing archived: {type(error).__name__}")
            return False
        finally:
            truth.ended(operation, known=known)
        truth.attested(key, archived.proofs, operation.start)
        good = {proof.uuid for proof in archived.proofs if proof.verdict is Verdict.GOOD}
        truth.was_stored(key, (place.uuid for place in archived.record.stored_at), operation.start)
        if not good >= {str(place.uuid) for place in archived.record.stored_at}:
            truth.violation(f"a record of {truth.short(key)} names a place without a proof")
        return not archived.record.shortfall

    async def prove(self, key: Key) -> bool:
        """Have the copies of some nodes read again, wherever somebody can."""
        places = self._client.dice.sample(self._places, 3)
        start = self._truth.now()
        try:
            proofs = await self.archive.prove({place: [key] for place in places})
        except AnnexError as error:
            self._truth.event(f"{self._client.name}: nothing proven: {type(error).__name__}")
            return False
        self._truth.attested(key, proofs, start)
        return any(proof.verdict is Verdict.GOOD for proof in proofs)
