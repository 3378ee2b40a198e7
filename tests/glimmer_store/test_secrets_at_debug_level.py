"""Invitations, tokens, signing keys and the keys of a cloud come out nowhere, whatever is logged."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosting import SECONDS

from glimmer_store.tenants import Tenants
from tests.annexpy.remote.s3_server import serving

pytestmark = [pytest.mark.interop, pytest.mark.slow]

LOUD = "import logging, sys; logging.basicConfig(level=logging.DEBUG); from {} import main; sys.exit(main())"
STORE = [sys.executable, "-c", LOUD.format("glimmer_store.cli.app")]
ANNEXPY = [sys.executable, "-c", LOUD.format("annexpy.cli.app"), "--debug"]
WRONG, CLOUD = "canary-wrong-x9Kq2", "canary-cloud-7Yh3w"


def in_any_form(secret: str) -> Iterator[bytes]:
    """As it is, and where base64 of something that ends with it would have it."""
    yield secret.encode()
    for before in range(3):
        yield base64.b64encode(b"x" * before + secret.encode())[4:-4]


class Loud:
    """Runs programs that log everything, and keeps what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.said = folder, list[bytes]()
        self.environment = {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "GLIMMER_STORE_HOME": str(folder.with_name("signs")),
        }

    def run(self, *words: str, exits: int | None = 0, **environment: str) -> bytes:
        done = subprocess.run(
            words,
            cwd=self.folder,
            env=os.environ | self.environment | environment,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        self.said.append(done.stdout + done.stderr)
        assert exits is None or done.returncode == exits, (words[4:], self.said[-1][-3000:])
        return self.said[-1]

    def must_not_have_said(self, secrets: dict[str, str]) -> None:
        everything = b"\n".join(self.said)
        for whose, secret in secrets.items():
            assert len(secret) > 10, whose
            for form in in_any_form(secret):
                at = everything.find(form)
                assert at < 0, (whose, everything[max(0, at - 200) : at + 40])


@pytest.fixture
def loud(tmp_path: Path, own_home: None) -> Loud:
    folder = tmp_path / "dataset"
    folder.mkdir()
    made = Loud(folder)
    made.run("git", "init", "-q", "-b", "main")
    made.run("git", "annex", "init", "-q", "here")
    (folder / "bold.nii").write_text("bold\n" * 100)
    return made


def test_what_lets_into_a_server_and_what_signs_comes_out_nowhere(loud: Loud, tmp_path: Path) -> None:
    tenants = Tenants(tmp_path / "server")
    tenants.create("alice")
    operator, invitation = tenants.operator().secret, tenants.invite("alice")
    serve = ("serve", str(tenants.folder), "--plain-http", "--http", "127.0.0.1:0", "--durability", "fast")
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen([*STORE, *serve], stderr=log, stdout=log, cwd=Path(__file__).parents[2]) as server,
    ):
        try:
            end = time.monotonic() + SECONDS
            while not (found := re.search(r"http://[\d.:]+", (tmp_path / "log").read_text())):
                assert server.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            at = ("--server", found[0])
            loud.run(*STORE, "tenant", "list", *at, GLIMMER_STORE_TOKEN=operator)
            loud.run(*STORE, "tenant", "list", *at, exits=None, GLIMMER_STORE_TOKEN=WRONG)
            enter = (*STORE, "init", ".", "--tenant", "alice", *at, "-y", "--invitation")
            loud.run(*enter, WRONG, exits=None)
            loud.run(*enter, invitation)
            kept = next(one for one in (loud.folder / ".git").rglob("*credential*") if one.is_file()).read_text()
            secret = kept.rpartition("@")[0].rpartition(":")[2]
            loud.run("git", "config", "annex.security.allowed-ip-addresses", "all")
            loud.run(*STORE, "archive", "bold.nii")
            loud.run(*STORE, "verify", "--all", exits=None)
            loud.run(*STORE, "status", exits=None)
        finally:
            server.terminate()
            server.wait(SECONDS)
    loud.said.append((tmp_path / "log").read_bytes())
    assert b"POST" in loud.said[-1]
    pem = tmp_path / "signs" / "ed25519.pem"

    loud.must_not_have_said(
        {
            "the operator": operator,
            "an invitation": invitation,
            "alice": secret,
            "nobody": WRONG,
            "who signs": pem.read_text().splitlines()[1],
        }
    )


def test_the_keys_of_a_cloud_come_out_nowhere(loud: Loud, tmp_path: Path, git_annex: str) -> None:
    with serving(tmp_path / "cloud") as server:  # it lets everybody in, who have to sign all the same
        settings = [f"{name}={value}" for name, value in server.settings("bucket").items()]
        keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": CLOUD}
        loud.run("git", "config", "annex.security.allowed-ip-addresses", "127.0.0.1")
        loud.run("git", "annex", "initremote", "cloud", "type=S3", "encryption=none", *settings, **keys)
        loud.run("git", "annex", "add", "-q", "bold.nii")
        key = loud.run("git", "annex", "lookupkey", "bold.nii").decode().strip()
        loud.run(*ANNEXPY, "copy", ".", "cloud", key, **keys)
        assert b"true" in loud.run(*ANNEXPY, "--json", "check", "cloud", key)  # from annex/creds
        (loud.folder / ".git/annex/creds").rename(tmp_path / "away")
        loud.run(*ANNEXPY, "check", "cloud", key, exits=None, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY=WRONG)

    loud.must_not_have_said({"the owner": CLOUD, "nobody": WRONG})
