"""Check the receipts of a copy, offline and without glimmer_store: Python and `cryptography` are enough.

    python check_receipt.py RECEIPTS.log PUBLIC.pem...

RECEIPTS.log is a log below .glimmer-store/attestations of a dataset; the public keys are those you trust, for
instance from .glimmer-store/keys of a copy of the dataset that you know. Tells for every repository whether the
newest receipt with a good signature says that the content was there, whole. Ends with 0 when at least one is
good and none is bad, missing or forged, else with 1.
"""

import base64
import hashlib
import json
import sys
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


def check(log: bytes, keys: dict[str, Ed25519PublicKey]) -> tuple[dict[tuple[str, str], dict[str, object]], list[str]]:
    """(key, uuid) → the receipt that counts; and what is wrong with lines that do not count."""
    newest: dict[tuple[str, str], dict[str, object]] = {}
    wrong = []
    for number, line in enumerate(log.splitlines(), 1):
        try:
            fields = json.loads(line)
            signature = base64.b64decode(fields.pop("sig"), validate=True)
            signed = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
            keys[fields["signer"]].verify(signature, b"glimmer-store attestation 1\n" + signed)
            about = fields["key"], fields["uuid"]
            rank = fields["time"], fields["verdict"] != "good"
        except KeyError as error:
            wrong.append(f"line {number}: signed by a key that was not given, or without the field {error}")
        except InvalidSignature:
            wrong.append(f"line {number}: the signature is not good")
        except (ValueError, TypeError, AttributeError) as error:
            wrong.append(f"line {number}: no receipt ({error})")
        else:
            known = newest.get(about)
            if known is None or rank > (known["time"], known["verdict"] != "good"):
                newest[about] = fields
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
