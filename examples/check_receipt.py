"""Check the receipts of a copy, offline and without glimmer_store: Python and `cryptography` are enough.

    python check_receipt.py RECEIPTS.log PUBLIC.pem...

RECEIPTS.log has receipts as `glimmer-store explain KEY --receipts` prints them, or is a log below
.glimmer-store/attestations of a dataset; the public keys are those you trust, for instance from .glimmer-store/keys of
a copy of the dataset that you know. Tells for every key and repository whether the newest receipt with a good signature
says that the content was there, whole. Ends with 0 when at least one is good and none is bad, missing or forged, else
with 1.

A line of version 1 is one receipt, signed by itself. One of version 2 has any number of them; each is a leaf of a
Merkle tree (RFC 6962), of whose root the signature is. The line's own leaves lead to a root of theirs, and `path` from
there to the one that is signed: at each step a neighbour on the left (<) or on the right (>).
"""

import base64
import hashlib
import json
import sys
from datetime import datetime, timedelta
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key


def trusted(files: list[str]) -> dict[str, Ed25519PublicKey]:
    """Name of a key, the first 32 hex digits of its SHA-256 → the key."""
    keys = {}
    for file in files:
        key = load_pem_public_key(Path(file).read_bytes())
        assert isinstance(key, Ed25519PublicKey), f"{file}: no Ed25519 key"
        keys[hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:32]] = key
    return keys


def canonical(fields: dict[str, object]) -> bytes:
    """What is hashed and signed."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def inner(left: bytes, right: bytes) -> bytes:
    """A node of the tree."""
    return hashlib.sha256(b"\1" + left + right).digest()


def receipts_of(fields: dict) -> tuple[list[dict], bytes]:
    """The receipts in a line without its signature, and what that has to be of."""
    if fields["v"] == 1:
        return [fields], b"glimmer-store attestation 1\n" + canonical(fields)
    if fields["v"] != 2:
        raise ValueError("of a version that is not known")
    base, found = datetime.fromisoformat(fields["time"].removesuffix("Z")), []
    for way, microseconds, key in fields["of"]:
        uuid, remote, method, verdict = fields["ways"][way]
        time = (base + timedelta(microseconds=microseconds)).isoformat(timespec="microseconds") + "Z"
        one = {"v": 2, "key": key, "uuid": uuid, "remote": remote, "method": method, "verdict": verdict, "time": time}
        found.append(one | {"host": fields["host"], "signer": fields["signer"]})
    row = [hashlib.sha256(b"\0" + canonical(one)).digest() for one in found]
    while len(row) > 1:
        above = [inner(left, right) for left, right in zip(row[::2], row[1::2], strict=False)]
        row = above + row[-1:] if len(row) % 2 else above
    node = row[0]
    for step in fields["path"]:
        beside = base64.b64decode(step[1:], validate=True)
        if step[0] not in "<>" or len(beside) != 32:
            raise ValueError("the path is malformed")
        node = inner(beside, node) if step[0] == "<" else inner(node, beside)
    return found, b"glimmer-store attestations 2\n" + node


def check(log: bytes, keys: dict[str, Ed25519PublicKey]) -> tuple[dict[tuple[str, str], dict], list[str]]:
    """(key, uuid) → the receipt that counts; and what is wrong with lines that do not count."""
    newest: dict[tuple[str, str], dict] = {}
    wrong = []
    for number, line in enumerate(log.splitlines(), 1):
        try:
            fields = json.loads(line)
            signature = base64.b64decode(fields.pop("sig"), validate=True)
            receipts, signed = receipts_of(fields)
            keys[fields["signer"]].verify(signature, signed)
            for one in receipts:
                known = newest.setdefault((one["key"], one["uuid"]), one)
                if (one["time"], one["verdict"] != "good") > (known["time"], known["verdict"] != "good"):
                    newest[one["key"], one["uuid"]] = one
        except KeyError as error:
            wrong.append(f"line {number}: signed by a key that was not given, or without the field {error}")
        except InvalidSignature:
            wrong.append(f"line {number}: the signature is not good")
        except (ValueError, TypeError, AttributeError, IndexError, OverflowError) as error:
            wrong.append(f"line {number}: no receipt ({error})")
    return newest, wrong


def main(log: str, *pems: str) -> int:
    newest, wrong = check(Path(log).read_bytes(), trusted(list(pems)))
    for (key, uuid), fields in sorted(newest.items()):
        how = f"{fields['method']}, {fields['time']}, from {fields['host']}"
        print(f"{fields['verdict']:8} {fields['remote']} ({uuid})  {key}  {how}")
    for complaint in wrong:
        print(complaint, file=sys.stderr)
    return 0 if newest and not wrong and all(fields["verdict"] == "good" for fields in newest.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if len(sys.argv) > 2 else __doc__)
