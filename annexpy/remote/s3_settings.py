"""What remote.log says about an S3 special remote, as a server, a bucket and the names in it; and its credentials.

Source: git-annex-initremote(1), special_remotes/S3; remote.log and the objects of the real git-annex 10.20261026.
"""

from __future__ import annotations

import os
from base64 import b64decode
from binascii import Error
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from annexpy.errors import InvalidInput, InvalidKey, Refused
from annexpy.keys.key import Key
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

__all__ = ["S3Credentials", "S3Settings"]

_REGIONS: Final = {"": "us-east-1", "US": "us-east-1", "EU": "eu-west-1"}
_AWS: Final = ".amazonaws.com"
_COLD: Final = frozenset(("GLACIER", "DEEP_ARCHIVE"))
_ITSELF: Final = "not offered; git-annex itself reaches it"
_UNSAYABLE: Final = frozenset(("", ".", ".."))
"""Components of names that the object store library makes other names of."""


@dataclass(frozen=True, slots=True)
class S3Credentials:
    """Who asks. ``repr`` does not show the secret."""

    key_id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)

    @classmethod
    def find(
        cls, name: str, uuid: UUID | None, repository: Repository | None, settings: Mapping[str, str]
    ) -> S3Credentials:
        """As git-annex takes them: from the environment, then ``annex/creds/UUID``, then what is in remote.log.

        Raises:
            InvalidInput: There are none.
        """
        key_id, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
        if key_id and secret:
            return cls(key_id, secret, os.environ.get("AWS_SESSION_TOKEN", ""))
        stored = None
        if repository is not None and uuid is not None:
            stored = repository.files.read(b"annex/creds/" + uuid.encode())
        if stored is None and "s3creds" in settings:
            try:
                stored = b64decode(settings["s3creds"], validate=True)
            except Error:
                stored = None
        lines = b"" if stored is None else stored
        first, _, second = lines.decode("utf-8", "surrogateescape").strip("\n").partition("\n")
        if not first or not second:
            raise InvalidInput(f"remote {name}: credentials", "", "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        return cls(first, second)


@dataclass(frozen=True, slots=True)
class S3Settings:
    """Where the objects are.

    Attributes:
        bucket: Its name.
        endpoint: ``http(s)://HOST:PORT``; empty for AWS itself.
        region: For signatures.
        prefix: ``fileprefix``: stands before the name of every object as it is, so that of a folder ends with ``/``.
        by_path: The bucket is in the path and not in the name of the host.
        storage_class: Of new objects; empty for the usual one.
    """

    bucket: str
    endpoint: str = ""
    region: str = "us-east-1"
    prefix: str = ""
    by_path: bool = True
    storage_class: str = ""

    @classmethod
    def of(cls, name: str, settings: Mapping[str, str]) -> S3Settings:
        """As an entry of remote.log has it, or a configuration with the same names.

        Raises:
            InvalidInput: A field that is missing, or is no such thing; a prefix that the library cannot say.
            Refused: A field that annexpy does not offer.
        """
        bucket, host = settings.get("bucket", ""), settings.get("host", "s3.amazonaws.com")
        if not bucket or "/" in bucket:
            raise InvalidInput(f"remote {name}: bucket", bucket, "the name of a bucket")
        _check(name, settings, host)
        datacenter = settings.get("region") or settings.get("datacenter", "")
        region = _REGIONS.get(datacenter, datacenter)
        by_path = settings.get("requeststyle", "") == "path"
        endpoint = "" if host.endswith(_AWS) else _endpoint(name, settings, host, "" if by_path else bucket)
        prefix, storage = settings.get("fileprefix", ""), settings.get("storageclass", "STANDARD")
        if _UNSAYABLE.intersection(prefix.split("/")[:-1]):
            raise InvalidInput(f"remote {name}: fileprefix", prefix, "without empty components, . and ..")
        return cls(bucket, endpoint, region, prefix, by_path, "" if storage == "STANDARD" else storage)

    def object_name(self, key: Key) -> str:
        """What git-annex calls the object of *key*.

        Raises:
            InvalidKey: The object store library cannot say that name.
        """
        try:
            name = self.prefix + key.raw.decode()
        except UnicodeDecodeError as error:
            raise InvalidKey("key", key.raw, "UTF-8, in an S3 special remote") from error
        if _UNSAYABLE.intersection(name.split("/")):
            raise InvalidKey("key", key.raw, "a name without empty components, in an S3 special remote")
        return name

    @property
    def marker(self) -> str:
        """The object in which git-annex writes whose bucket it is."""
        return self.prefix + "annex-uuid"


def _check(name: str, settings: Mapping[str, str], host: str) -> None:
    if host.endswith("archive.org"):
        raise Refused(f"remote {name}: host", host, _ITSELF)
    if settings.get("storageclass", "") in _COLD:
        raise Refused(
            f"remote {name}: storageclass", settings["storageclass"], "what is there has to be restored first"
        )
    if settings.get("public", "no") not in ("no", "false", ""):
        raise Refused(f"remote {name}: public", settings["public"], _ITSELF)
    if settings.get("signature", "") == "anonymous":
        raise Refused(f"remote {name}: signature", "anonymous", _ITSELF)
    for setting in settings:
        if setting.startswith("x-"):
            raise Refused(f"remote {name}: {setting}", settings[setting], _ITSELF)


def _endpoint(name: str, settings: Mapping[str, str], host: str, bucket: str) -> str:
    port = settings.get("port", "")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise InvalidInput(f"remote {name}: port", port, "1 to 65535")
    protocol = settings.get("protocol") or ("https" if port == "443" else "http")
    if protocol not in ("http", "https"):
        raise InvalidInput(f"remote {name}: protocol", protocol, "http or https")
    if not host or any(character in host for character in "/@?# "):
        raise InvalidInput(f"remote {name}: host", host, "the name of a host")
    return f"{protocol}://{bucket + '.' if bucket else ''}{host}{':' + port if port else ''}"
