r"""Attestations as lines: many that were made together share one line and one signature, and each can be cut out of it.

A line is JSON, ``{"v": 2, "signer", "host", "sig", "time", "ways": [[uuid, remote, method, verdict], …], "of":
[[number of the way, microseconds after time, key], …], "path": […]}``. Each attestation in it stands for the object
``{"host", "key", "method", "remote", "signer", "time", "uuid", "v": 2, "verdict"}``, written by ``json.dumps(…,
sort_keys=True, separators=(",", ":"), ensure_ascii=True)``. Those bytes, behind a byte 0, hashed with SHA-256, are a
leaf of a Merkle tree; an inner node is the SHA-256 of a byte 1 and its two children, and what is left over in a row
goes up as it is (the tree of RFC 6962). *path* leads from the root of the line's own leaves to the root that was
signed: the base64 of the neighbour of each step, behind ``<`` where that stands on the left, else ``>``. The
signature is Ed25519, over ``glimmer-store attestations 2\n`` and that root.

So a signature costs the same for one key as for thousands, and the receipt of one key is a line like any other: with
one attestation, and the longer path. A line of version 1 is one attestation, signed by itself.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, Final, Literal, Self, TypeAlias

__all__ = [
    "Attestation",
    "Method",
    "Receipts",
    "Verdict",
    "fold",
    "message_of",
    "partition",
    "rank",
    "root_and_paths",
    "root_of",
]

_DOMAIN_1: Final = b"glimmer-store attestation 1\n"
_DOMAIN: Final = b"glimmer-store attestations 2\n"
_MICROSECOND: Final = timedelta(microseconds=1)

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
    """That a repository had the whole content of a key, or that it had not; ``Receipts`` says it under a signature.

    Attributes:
        key, uuid, remote: Which content, in which repository, and the name that has here.
        method: How it was looked at.
        time: When, UTC, with microseconds: ``2026-11-21T15:04:05.000123Z``.
        host: Where whoever looked ran.
        verdict: What was found.
        signer: Name of the public key.
    """

    key: str
    uuid: str
    remote: str
    method: str
    time: str
    host: str
    verdict: Verdict
    signer: str

    def to_bytes(self) -> bytes:
        """What is hashed."""
        return (
            f'{{"host":{_quoted(self.host)},"key":{_quoted(self.key)},"method":{_quoted(self.method)},'
            f'"remote":{_quoted(self.remote)},"signer":{_quoted(self.signer)},"time":{_quoted(self.time)},'
            f'"uuid":{_quoted(self.uuid)},"v":2,"verdict":"{self.verdict.value}"}}'
        ).encode()


def rank(one: Attestation) -> tuple[str, bool, bytes]:
    """Of two about one copy the one with the higher rank counts: the newer, or the one that found something wrong."""
    return one.time, one.verdict is not Verdict.GOOD, one.to_bytes()


def fold(attestations: Iterable[Attestation]) -> dict[tuple[str, str], Attestation]:
    """(key, UUID) → the attestation that counts. Does not depend on order or repetition."""
    newest: dict[tuple[str, str], Attestation] = {}
    for one in attestations:
        known = newest.setdefault((one.key, one.uuid), one)
        if known is not one and (one.time > known.time or rank(one) > rank(known)):
            newest[one.key, one.uuid] = one
    return newest


def partition(key: str) -> str:
    """Which part of the log a key is in: the first two hex digits of its MD5, as git-annex sorts logs into folders."""
    return hashlib.md5(key.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()[:2]


@dataclass(frozen=True, slots=True)
class Receipts:
    """One line of a log, or of a ledger.

    Attributes:
        line: With LF.
        attestations: What it says, of one signer.
        message: What the signature has to be of.
        sig: The signature.
        path: From the root of the attestations to the one that was signed.
    """

    line: bytes
    attestations: tuple[Attestation, ...]
    message: bytes
    sig: bytes
    path: tuple[str, ...] = ()

    @property
    def signer(self) -> str:
        """Name of the public key."""
        return self.attestations[0].signer

    @property
    def partition(self) -> str:
        """Which part of the log it belongs to."""
        return partition(self.attestations[0].key)

    @classmethod
    def make(cls, attestations: Sequence[Attestation], path: Sequence[str], message: bytes, sig: bytes) -> Self:
        """The line of *attestations*: at least one, all of one signer and host, signed with others as *message*."""
        one = min(attestations, key=lambda each: each.time)
        base = _moment(one.time)
        ways: dict[tuple[str, str, str, str], int] = {}
        of = []
        for each in attestations:
            way = ways.setdefault((each.uuid, each.remote, each.method, each.verdict.value), len(ways))
            of.append((way, (_moment(each.time) - base) // _MICROSECOND, each.key))
        fields: dict[str, object] = {"v": 2, "signer": one.signer, "host": one.host, "time": one.time}
        fields |= {"ways": list(ways), "of": of, "path": list(path), "sig": base64.b64encode(sig).decode()}
        return cls(_canonical(fields) + b"\n", tuple(attestations), message, sig, tuple(path))

    @classmethod
    def from_line(cls, line: bytes) -> Self | None:
        """None for a line that is none of a version that is known. The signature is not looked at."""
        try:
            fields = json.loads(line)
            sig = base64.b64decode(fields.pop("sig"), validate=True)
            if fields["v"] == 1:
                return cls(line.rstrip(b"\n") + b"\n", (_old(fields),), _DOMAIN_1 + _canonical(fields), sig)
            if fields["v"] != 2:
                return None
            attestations, path = tuple(_attestations(fields)), tuple(fields["path"])
            root = _up(_root([_leaf(one) for one in attestations]), path)
            return cls(line.rstrip(b"\n") + b"\n", attestations, message_of(root), sig, path)
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return None

    def receipt(self, one: Attestation) -> Receipts:
        """*one*, which is among the attestations, alone: a line that can be given away and checked by itself."""
        if len(self.attestations) == 1:
            return self
        inner = root_and_paths([_leaf(each) for each in self.attestations])[1][self.attestations.index(one)]
        return self.make([one], [*inner, *self.path], self.message, self.sig)


# Any: parsed JSON
def _old(fields: Mapping[str, Any]) -> Attestation:
    key, uuid, remote, method, time, host, signer = (
        _text(fields[name]) for name in ("key", "uuid", "remote", "method", "time", "host", "signer")
    )
    return Attestation(key, uuid, remote, method, time, host, Verdict(fields["verdict"]), signer)


# Any: parsed JSON
def _attestations(fields: Mapping[str, Any]) -> Iterable[Attestation]:
    base, host, signer = _moment(fields["time"]), _text(fields["host"]), _text(fields["signer"])
    ways = [(_text(u), _text(remote), _text(method), Verdict(v)) for u, remote, method, v in fields["ways"]]
    if not fields["of"]:
        raise ValueError("of")
    for way, after, key in fields["of"]:
        uuid, remote, method, verdict = ways[way]
        time = (base + after * _MICROSECOND).isoformat(timespec="microseconds") + "Z"
        yield Attestation(_text(key), uuid, remote, method, time, host, verdict, signer)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _moment(time: str) -> datetime:
    moment = datetime.fromisoformat(time.removesuffix("Z"))
    if moment.tzinfo is not None:
        raise ValueError(time)
    return moment


def _canonical(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


# -- the tree --


def message_of(root: bytes) -> bytes:
    """What the signature of a root is of."""
    return _DOMAIN + root


def _leaf(one: Attestation) -> bytes:
    return hashlib.sha256(b"\0" + one.to_bytes()).digest()


def _above(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def _up(node: bytes, path: Sequence[str]) -> bytes:
    for step in path:
        neighbour = base64.b64decode(step[1:], validate=True)
        if len(neighbour) != 32 or step[0] not in "<>":
            raise ValueError("path")
        node = _above(neighbour, node) if step[0] == "<" else _above(node, neighbour)
    return node


def _root(row: list[bytes]) -> bytes:
    while len(row) > 1:
        row = _row_above(row)
    return row[0]


def _row_above(row: list[bytes]) -> list[bytes]:
    above = [_above(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
    return above + row[-1:] if len(row) % 2 else above


def root_and_paths(row: list[bytes]) -> tuple[bytes, list[list[str]]]:
    """The root above nodes, and the path from each to it."""
    paths: list[list[str]] = [[] for _ in row]
    places = list(range(len(row)))  # of each node its place in the row
    while len(row) > 1:
        for number, at in enumerate(places):
            beside = at ^ 1
            if beside < len(row):
                paths[number].append("<>"[beside > at] + base64.b64encode(row[beside]).decode())
            places[number] = at // 2
        row = _row_above(row)
    return row[0], paths


def root_of(attestations: Sequence[Attestation]) -> bytes:
    """The root of the leaves of *attestations*."""
    return _root([_leaf(one) for one in attestations])
