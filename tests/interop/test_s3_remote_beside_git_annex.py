"""An S3 special remote on a real S3 server that annexpy and the real git-annex use in turn."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT, Place, annexpy, content_of, key_of

from annexpy.errors import InvalidInput, Refused
from annexpy.keys.key import Key
from annexpy.remote.connect import connect
from annexpy.repo.repository import Repository

sys.path.insert(0, str(ROOT / "tests/annexpy/remote"))
from s3_server import S3Server, serving  # beside the tests of the remote

pytestmark = pytest.mark.interop

CONTENTS = [content_of(1), content_of(2, 9_000_000)]
KEYS = [key_of(content) for content in CONTENTS]
ODD = Key.parse("WORM-s2048-m1--a%b&c:d~é#+x".encode())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    # git-annex signs no port into the name of the host, which this server would refuse where it looks at signatures
    with serving(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path, server: S3Server, git_annex: str, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = Place.make(tmp_path / "r.git", CONTENTS)
    place.set("annex.security.allowed-ip-addresses", "127.0.0.1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    settings = [f"{name}={value}" for name, value in server.settings(f"bucket-{tmp_path.name[-12:]}", "pre/").items()]
    settings = [setting.replace("_", "-") if setting.startswith("bucket") else setting for setting in settings]
    place.git("annex", "initremote", "cloud", "type=S3", "encryption=none", *settings)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")  # from now on it is in annex/creds
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    return place


def uuid_of(place: Place) -> str:
    return place.git("config", "remote.cloud.annex-uuid").strip()


def test_what_we_store_git_annex_finds_proves_gets_and_drops(place: Place) -> None:
    source = place.path / "source"
    source.write_bytes(CONTENTS[0])
    place.git("annex", "setkey", os.fsdecode(ODD.raw), str(source))
    annexpy(place.path, "copy", ".", "cloud", *KEYS, os.fsdecode(ODD.raw))

    place.git("annex", "fsck", "--from", "cloud", "--all")
    for key in KEYS:
        assert uuid_of(place) in place.whereis([key])[key]
        place.git("annex", "drop", "--key", str(key), "--numcopies=1")
        place.git("annex", "get", "--key", str(key), "--from", "cloud")
        place.git("annex", "drop", "--key", str(key), "--from", "cloud", "--numcopies=1")
    place.git("annex", "checkpresentkey", os.fsdecode(ODD.raw), "cloud")


def test_what_git_annex_stores_we_find_prove_get_and_drop(place: Place, tmp_path: Path) -> None:
    for key in KEYS:
        place.git("annex", "copy", "--key", str(key), "--to", "cloud")

    assert all(line["success"] for line in annexpy(place.path, "fsck", "cloud"))
    annexpy(place.path, "get", "cloud", KEYS[1], "-o", str(tmp_path / "got"))
    assert (tmp_path / "got").read_bytes() == CONTENTS[1]
    annexpy(place.path, "drop", "cloud", *KEYS)
    for key in KEYS:
        assert place.whereis([key])[key] == {place.uuid}


def test_settings_that_are_not_offered_and_missing_credentials_are_refused_by_name(
    place: Place, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret")
    settings = [f"{name}={value}" for name, value in server.settings("odd-bucket").items()]
    place.git("annex", "initremote", "odd", "type=S3", "encryption=shared", *settings)
    with Repository.open(place.path) as repository:
        with pytest.raises(Refused, match="remote odd: encryption"):
            connect("odd", repository=repository)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        (place.path / "annex/creds" / uuid_of(place)).unlink()
        with pytest.raises(InvalidInput, match="remote cloud: credentials"):
            connect("cloud", repository=repository)
