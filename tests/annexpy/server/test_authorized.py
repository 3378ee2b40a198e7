"""authorized_keys: who may log in, and what each key may do."""

from __future__ import annotations

import logging
from base64 import b64encode
from pathlib import Path

import pytest

from annexpy.errors import InvalidInput
from annexpy.server.authorized import AuthorizedKeys, Rights, fingerprint, read_authorized_keys
from annexpy.server.limits import ServerMode

BLOB = b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + bytes(32)
KEY = f"ssh-ed25519 {b64encode(BLOB).decode()}"
U = "11111111-1111-4111-8111-111111111111"


def rights(options: str, address: str = "192.0.2.1") -> Rights | None:
    return AuthorizedKeys(f"# a comment\n\n{options} {KEY} alice@host\n".replace("\n ", "\n")).find(BLOB, address)


def test_a_plain_key_may_do_everything() -> None:
    assert rights("") == Rights("alice@host", fingerprint(BLOB))
    assert fingerprint(BLOB).startswith("SHA256:")


@pytest.mark.parametrize(
    ("options", "mode"),
    [
        ('environment="GIT_ANNEX_SHELL_READONLY=1"', ServerMode.READ_ONLY),
        ('restrict,environment="GIT_ANNEX_SHELL_APPENDONLY=true",no-pty', ServerMode.APPEND_ONLY),
        ('environment="GIT_ANNEX_SHELL_READONLY="', ServerMode.WRITE),
        (r'command="GIT_ANNEX_SHELL_READONLY=1 git-annex-shell -c \"$SSH_ORIGINAL_COMMAND\""', ServerMode.READ_ONLY),
        (
            r'restrict,command="env GIT_ANNEX_SHELL_APPENDONLY=1 /usr/bin/annexpy-shell -c \"$SSH_ORIGINAL_COMMAND\""',
            ServerMode.APPEND_ONLY,
        ),
        (
            'environment="GIT_ANNEX_SHELL_APPENDONLY=1",environment="GIT_ANNEX_SHELL_READONLY=1"',
            ServerMode.READ_ONLY,
        ),
    ],
)
def test_what_git_annex_shell_is_told_is_understood(options: str, mode: ServerMode) -> None:
    found = rights(options)
    assert found is not None
    assert found.mode is mode


def test_places_names_and_uuids_are_settings_too() -> None:
    found = rights(
        f'environment="ANNEXPY_ROOT=/srv/./alice/",environment="ANNEXPY_UUIDS={U}",environment="ANNEXPY_NAME=A",'
        'environment="GIT_ANNEX_SHELL_DIRECTORY=/srv/alice/lab.git",environment="GIT_ANNEX_SHELL_LIMITED=1",'
        'environment="PATH=/bin"'
    )
    assert found is not None
    assert (found.root, found.directory, found.uuids, found.name, found.limited) == (
        "/srv/alice",
        "/srv/alice/lab.git",
        {U},
        "A",
        True,
    )


def test_a_key_may_have_to_come_from_somewhere() -> None:
    assert rights('from="192.0.2.0/24"') is not None
    assert rights('from="192.0.2.*,!192.0.2.1"') is None
    assert rights('from="2001:db8::/32,198.51.100.7"') is None
    assert rights('from="2001:db8::/32"', "2001:db8::1") is not None


@pytest.mark.parametrize(
    "line",
    [
        f"cert-authority {KEY}",
        f'expiry-time="20200101" {KEY}',
        f'command="/bin/sh" {KEY}',
        rf'command="GIT_ANNEX_SHELL_READONLY=1 sh -c \"$SSH_ORIGINAL_COMMAND\"" {KEY}',
        f'command="annexpy-shell -c ls" {KEY}',
        f'environment="GIT_ANNEX_SHELL_READ_ONLY=1" {KEY}',
        f'environment="ANNEXPY_ROOT=alice" {KEY}',
        f'environment="ANNEXPY_UUIDS=not/one" {KEY}',
        f'environment="x {KEY}',
        f"restrict,{KEY}",
        "ssh-ed25519 !!!",
        "ssh-ed25519 AAAA",
        f"ssh-rsa {b64encode(BLOB).decode()}",
    ],
)
def test_what_is_not_understood_admits_nobody(line: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        keys = AuthorizedKeys(line)

    assert len(keys) == 0
    assert "line 1 admits nobody" in caplog.text


def test_the_first_line_that_fits_counts() -> None:
    keys = AuthorizedKeys(f'from="192.0.2.1" {KEY} one\nenvironment="GIT_ANNEX_SHELL_READONLY=1" {KEY} two\n')
    one, two = keys.find(BLOB, "192.0.2.1"), keys.find(BLOB, "192.0.2.2")
    assert one is not None
    assert two is not None
    assert (one.name, two.name) == ("one", "two")
    assert keys.find(BLOB + b"x", "192.0.2.1") is None


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(KEY)
    path.chmod(0o644)
    assert len(read_authorized_keys(str(path))) == 1
    path.chmod(0o664)
    with pytest.raises(InvalidInput, match="go-w"):
        read_authorized_keys(str(path))
    with pytest.raises(InvalidInput):
        read_authorized_keys(str(tmp_path / "none"))


def test_a_line_that_is_no_text_admits_nobody() -> None:
    assert len(AuthorizedKeys(f"ssh-rsa\udcff AAAA\n{KEY}\n")) == 1
