r"""Signed proofs that a repository had the whole content of a key: who looked, when, how, and what they found.

A proof is one line of JSON in a log of its key, ``.glimmer-store/attestations/XX/KEY.log`` of the dataset, where
XX are the first two hex digits of the SHA-256 of the file's name. Lines are only ever added, and merged by
taking those of both sides; which of them counts is decided when they are read: of each key and repository the
newest with a good signature, and of two with the same time the one that found something wrong. So a failed
verification voids the proofs before it.

The signature is Ed25519, over ``glimmer-store attestation 1\n`` and the line without its field ``sig``, written
by ``json.dumps(…, sort_keys=True, separators=(",", ":"), ensure_ascii=True)``. The public keys are PEM files in
``.glimmer-store/keys``; a key's name is the first 32 hex digits of the SHA-256 of its 32 raw bytes. The private
one is in the user's configuration folder and belongs to the user, not to a dataset.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self, TypeAlias

import annexpy as annex
from glimmer_store.entry import Part
from glimmer_store.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["FOLDER", "Attestation", "Attestations", "Method", "Signer", "Verdict", "fold", "log_path", "user_folder"]

FOLDER = ".glimmer-store"
"""Folder of the dataset for logs and public keys."""
_DOMAIN = b"glimmer-store attestation 1\n"
_KEY_NAME = "ed25519.pem"
_ATTRIBUTES = b"* annex.largefiles=nothing\nattestations/** merge=union -text\n"

Method: TypeAlias = Literal["stream", "peer", "reread"]
"""How it came about: by the receiver while it stored, by the holder who read it on a challenge (``annex.prove``: the
SHA-256 of a nonce and the content behind it), or by reading it back."""


class Verdict(Enum):
    """What was found."""

    GOOD = "good"
    BAD = "bad"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Attestation:
    """One proof, or the proof of the contrary.

    Attributes:
        key, uuid, remote: Which content, in which repository, and the name that has here.
        size: Bytes of the content; None when the key does not tell.
        method: How it was looked at.
        time: When, UTC, with microseconds: ``2026-11-21T15:04:05.000123Z``.
        host: Where whoever looked ran.
        verdict: What was found.
        signer: Name of the public key.
        sig: Base64 of the signature.
    """

    key: str
    uuid: str
    remote: str
    size: int | None
    method: str
    time: str
    host: str
    verdict: Verdict
    signer: str = ""
    sig: str = ""

    def signed_bytes(self) -> bytes:
        """What the signature is of."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name not in ("verdict", "sig")}
        return _DOMAIN + _canonical(fields | {"v": 1, "verdict": self.verdict.value})

    def to_line(self) -> bytes:
        """The line of the log, with LF."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "verdict"}
        return _canonical(fields | {"v": 1, "verdict": self.verdict.value}) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """None for a line that is no attestation of this version."""
        try:
            fields = json.loads(line)
            if fields.pop("v") != 1 or any(not isinstance(fields[name], str) for name in fields if name != "size"):
                return None
            if fields["size"] is not None and type(fields["size"]) is not int:
                return None
            return cls(**{**fields, "verdict": Verdict(fields["verdict"])})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None


def _canonical(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def log_path(key: str) -> bytes:
    """Where the log of a key is, from the top of the dataset."""
    name = os.fsencode(key.replace("&", "&a").replace("%", "&s").replace("/", "%"))
    return b"%b/attestations/%b/%b.log" % (FOLDER.encode(), hashlib.sha256(name).hexdigest()[:2].encode(), name)


def fold(attestations: Iterable[Attestation]) -> dict[tuple[str, str], Attestation]:
    """(key, UUID) → the attestation that counts. Does not depend on order or repetition."""
    newest: dict[tuple[str, str], Attestation] = {}
    for one in attestations:
        known = newest.get((one.key, one.uuid))
        if known is None or _rank(one) > _rank(known):
            newest[one.key, one.uuid] = one
    return newest


def _rank(one: Attestation) -> tuple[str, bool, bytes]:
    return one.time, one.verdict is not Verdict.GOOD, one.to_line()


# -- signing --


def user_folder() -> Path:
    """Where the user's signing key is: ``$GLIMMER_STORE_HOME``, else ``glimmer-store`` in the configuration folder."""
    own = os.environ.get("GLIMMER_STORE_HOME")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "glimmer-store"


class Signer:
    """Signs in the name of this user. Its key is made when it is first needed."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._private = private
        public = private.public_key()
        self.name = _name(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
        self.public = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self._host = os.uname().nodename

    @classmethod
    def of_user(cls) -> Self:
        """The user's; made, readable by nobody else, when there is none.

        Raises:
            ConfigError: It cannot be read or made, or others may read it.
        """
        path = user_folder() / _KEY_NAME
        try:
            if not path.exists():
                _make(path)
            if path.stat().st_mode & 0o077:
                raise ConfigError(f"{path}: others may read the signing key", remedy=f"run: chmod 600 {path}")
            return cls(_load(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"{path}: {error}", remedy="make it readable, or name another folder in GLIMMER_STORE_HOME"
            ) from error

    def attest(
        self, key: annex.Key, uuid: str, remote: str, verdict: Verdict, method: Method, *, when: datetime | None = None
    ) -> Attestation:
        """A signed attestation of what was just found."""
        time = (when or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        plain = (str(key), uuid, remote, key.size, method, time, self._host, verdict, self.name)
        signature = self._private.sign(Attestation(*plain).signed_bytes())
        return Attestation(*plain, base64.b64encode(signature).decode())

    def parts(self, attestations: Iterable[Attestation]) -> tuple[Part, ...]:
        """What enters them into a dataset, with all that is needed to check them there."""
        lines: dict[str, list[bytes]] = {}
        for one in attestations:
            lines.setdefault(one.key, []).append(one.to_line())
        if not lines:
            return ()
        return (
            Part(f"{FOLDER}/.gitattributes".encode(), "once", _ATTRIBUTES),
            Part(f"{FOLDER}/keys/{self.name}.pem".encode(), "once", self.public),
            *(Part(log_path(key), "lines", b"".join(some)) for key, some in lines.items()),
        )


def _name(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:32]


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(aside, path)
    except FileExistsError:
        pass  # another process was quicker: theirs it is
    finally:
        aside.unlink(missing_ok=True)


def _load(pem: bytes) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(pem, None)
    if not isinstance(private, Ed25519PrivateKey):
        raise TypeError("no Ed25519 key")
    return private


# -- reading --


class Attestations:
    """The attestations in the work tree of a dataset.

    Args:
        root: Top of the dataset.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @cached_property
    def _keys(self) -> dict[str, Ed25519PublicKey]:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

        found = {}
        for path in sorted((self._root / FOLDER / "keys").glob("*.pem")):
            try:
                public = load_pem_public_key(path.read_bytes())
            except (OSError, ValueError):
                continue  # whoever relies on it gets "unsigned"
            if isinstance(public, Ed25519PublicKey):
                found[_name(public.public_bytes(Encoding.Raw, PublicFormat.Raw))] = public
        return found

    def valid(self, one: Attestation) -> bool:
        """It is signed by one of the dataset's keys."""
        from cryptography.exceptions import InvalidSignature

        public = self._keys.get(one.signer)
        if public is None:
            return False
        try:
            public.verify(base64.b64decode(one.sig, validate=True), one.signed_bytes())
        except (InvalidSignature, ValueError):
            return False
        return True

    def of(self, key: annex.Key) -> list[Attestation]:
        """Every valid one about *key*, the oldest first."""
        try:
            lines = (self._root / os.fsdecode(log_path(str(key)))).read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        found = [one for one in map(Attestation.from_line, lines) if one is not None and one.key == str(key)]
        return sorted((one for one in found if self.valid(one)), key=_rank)

    def newest(self, key: annex.Key) -> dict[str, Attestation]:
        """UUID → the one that counts about *key*."""
        return {uuid: one for (_, uuid), one in fold(self.of(key)).items()}
