"""The state of a server's tenants."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

import annexpy as annex
from glimmer_store.errors import TenantError
from glimmer_store.tenant import Access
from glimmer_store.tenant_backup import backup, restore
from glimmer_store.tenants import STATE, Tenants

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGLbxWpA8Vv2nRnR5NWjmXcHGj5J4yF6QbVxX1uCnYpE"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDuzzKQ7b0yOnCu2ZG6JHrYwXL4pGQYQ3w6cC8q8mZ5L"


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def tenants(tmp_path: Path, now: Now) -> Tenants:
    return Tenants(tmp_path / "server", now=now)


def test_a_tenant_has_bare_repositories_that_know_their_quota(tenants: Tenants) -> None:
    made = tenants.create("alice", quota=5000)
    assert [held.name for held in made.repositories] == ["vault1", "vault2", "vault3"]
    assert tenants.all() == (made,) == (tenants.get("alice"),)
    for held in made.repositories:
        with annex.Repository.open(held.path) as repository:
            assert repository.bare
            assert repository.uuid == held.uuid
            assert repository.config.get("annexpy.quota") == "5000"
            assert repository.config.get_bool("annexpy.verifiable")
    assert tenants.limit("alice", None).quota is None
    with annex.Repository.open(made.repositories[0].path) as repository:
        assert repository.config.get("annexpy.quota") is None


@pytest.mark.parametrize("name", ["", "Alice", "a/b", "..", "-a", "a" * 41, "a\n", "ä"])
def test_names_that_could_be_paths_are_refused(tenants: Tenants, name: str) -> None:
    with pytest.raises(TenantError):
        tenants.create(name)
    with pytest.raises(TenantError):
        tenants.create("alice", repositories=[name])
    assert tenants.all() == ()


def test_a_tenant_is_there_once(tenants: Tenants) -> None:
    tenants.create("alice", repositories=["one"])
    with pytest.raises(TenantError, match="there is a tenant 'alice' already"):
        tenants.create("alice", repositories=["one"])


def test_a_creation_that_broke_off_is_completed_by_the_next(tenants: Tenants) -> None:
    path = tenants.folder / "tenants" / "alice" / "one.git"
    annex.Repository.init(path, bare=True).close()
    made = tenants.create("alice", repositories=["one"])
    with annex.Repository.open(path) as repository:
        assert repository.uuid == made.repositories[0].uuid


def test_an_invitation_is_good_once_and_for_a_week(tenants: Tenants, now: Now) -> None:
    tenants.create("alice", repositories=["one"])
    token = tenants.invite("alice", access=Access.APPEND_ONLY)
    granted = tenants.accept(token, label="laptop", ssh_key=f"{KEY} me@here")
    assert granted.credential.access is Access.APPEND_ONLY
    assert tenants.credentials() == (granted.credential,)
    assert granted.credential.ssh_key == KEY
    with pytest.raises(TenantError, match="not good"):
        tenants.accept(token, label="again")
    late = tenants.invite("alice")
    now.at += 8 * 86400
    with pytest.raises(TenantError, match="not good"):
        tenants.accept(late, label="late")
    with pytest.raises(TenantError, match="not good"):
        tenants.accept("guessed", label="guessed")


def test_nobody_is_invited_to_more_than_the_tenant_may(tenants: Tenants) -> None:
    tenants.create("alice", repositories=["one"], access=Access.READ_ONLY)
    assert tenants.accept(tenants.invite("alice"), label="x").credential.access is Access.READ_ONLY


def test_an_ssh_key_lets_into_one_tenant_only(tenants: Tenants) -> None:
    for name in ("alice", "bob"):
        tenants.create(name, repositories=["one"])
    tenants.accept(tenants.invite("alice"), label="x", ssh_key=KEY)
    invitation = tenants.invite("bob")
    with pytest.raises(TenantError, match="this ssh key cannot be used"):
        tenants.accept(invitation, label="x", ssh_key=f"{KEY}   other words")
    tenants.accept(invitation, label="x", ssh_key=OTHER)  # a refusal does not use the invitation up


@pytest.mark.parametrize(
    "line", ["ssh-ed25519", "ssh-ed25519 AAAA", f"{KEY}\n{OTHER}", f'command="sh" {KEY}', KEY.replace("ed25519", "rsa")]
)
def test_what_is_no_public_key_is_refused(tenants: Tenants, line: str) -> None:
    tenants.create("alice", repositories=["one"])
    with pytest.raises(TenantError, match="ssh key"):
        tenants.accept(tenants.invite("alice"), label="x", ssh_key=line)


def test_a_rotated_secret_is_good_for_nothing(tenants: Tenants) -> None:
    tenants.create("alice", repositories=["one"])
    before = tenants.accept(tenants.invite("alice"), label="x", ssh_key=KEY)
    after = tenants.rotate("alice", before.credential.id)
    assert [one.digest for one in tenants.credentials()] == [after.credential.digest]
    assert after.credential.ssh_key == KEY
    assert before.secret != after.secret
    tenants.create("bob", repositories=["one"])
    with pytest.raises(TenantError):
        tenants.rotate("bob", after.credential.id)
    with pytest.raises(TenantError):
        tenants.revoke("bob", after.credential.id)
    tenants.revoke("alice", after.credential.id)
    assert tenants.credentials() == ()


def test_secrets_are_in_no_file_and_no_log(tenants: Tenants) -> None:
    tenants.create("alice", repositories=["one"])
    token = tenants.invite("alice")
    granted = tenants.accept(token, label="x")
    operator = tenants.operator()
    kept = b"".join(path.read_bytes() for path in tenants.folder.rglob("*") if path.is_file())
    for secret in (token, granted.secret, operator.secret):
        assert secret.encode() not in kept
    assert stat.S_IMODE((tenants.folder / STATE).stat().st_mode) == 0o600
    assert stat.S_IMODE(tenants.folder.stat().st_mode) == 0o700


def test_a_deleted_tenant_leaves_its_contents_aside_and_its_name_free(tenants: Tenants) -> None:
    made = tenants.create("alice", repositories=["one"])
    tenants.accept(tenants.invite("alice"), label="x")
    place = tenants.delete("alice")
    with annex.Repository.open(place / "one.git") as repository:
        assert repository.uuid == made.repositories[0].uuid
    assert tenants.all() == ()
    assert tenants.credentials() == ()
    again = tenants.create("alice", repositories=["one"])
    assert again.repositories[0].uuid != made.repositories[0].uuid


def test_every_change_is_in_the_audit_log_and_nothing_that_was_refused(tenants: Tenants) -> None:
    stamp = tenants.stamp()
    tenants.create("alice", repositories=["one"], actor="carol")
    assert tenants.stamp() != stamp
    tenants.suspend("alice")
    tenants.resume("alice")
    tenants.limit("alice", 7)
    with pytest.raises(TenantError):
        tenants.suspend("bob")
    token = tenants.invite("alice")
    tenants.accept(token, label="laptop")
    tenants.delete("alice")
    said = [(one.actor, one.action) for one in tenants.audit("alice")]
    assert said == [
        ("carol", "create"),
        ("operator", "suspend"),
        ("operator", "resume"),
        ("operator", "quota"),
        ("operator", "invite"),
        ("laptop", "accept"),
        ("operator", "delete"),
    ]
    assert tenants.audit("bob") == ()


def test_a_backup_is_restored_and_says_what_is_not_there(tenants: Tenants, tmp_path: Path) -> None:
    tenants.create("alice", repositories=["one", "two"])
    granted = tenants.accept(tenants.invite("alice"), label="x")
    backup(tenants, tmp_path / "backup")
    with pytest.raises(TenantError, match="exists"):
        backup(tenants, tmp_path / "backup")
    with pytest.raises(TenantError, match="exists"):
        restore(tmp_path / "backup", tenants.folder)
    elsewhere = tmp_path / "elsewhere"
    home = elsewhere / "tenants" / "alice"
    home.mkdir(parents=True)
    (tenants.folder / "tenants" / "alice" / "one.git").rename(home / "one.git")
    restored, missing = restore(tmp_path / "backup", elsewhere)
    assert restored.credentials() == (granted.credential,)
    assert len(missing) == 1
    assert "alice/two" in missing[0]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken"
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
        db.commit()
    return path


def test_a_state_of_another_version_is_not_touched(broken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    broken.rename(folder / STATE)
    with pytest.raises(TenantError, match="version 99"):
        Tenants(folder)
    (tmp_path / "text").write_text("no database at all, but long enough to be read as a page of one" * 100)
    with pytest.raises(TenantError):
        restore(tmp_path / "text", tmp_path / "new")
    assert not (tmp_path / "new" / STATE).exists()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_tenant_takes_what_datalad_makes_unless_secure_hashes_are_asked_for(
    tenants: Tenants, tmp_path: Path
) -> None:
    weak = annex.Key.parse("MD5E-s5--5d41402abc4b2a76b9719d911017c592.txt")
    strong = annex.Key.parse("SHA256E-s5--2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824.txt")
    (tmp_path / "hello").write_text("hello")
    path = tenants.create("alice", repositories=["one"]).repositories[0].path
    async with annex.connect(str(path)) as vault:
        assert (await annex.put(vault, weak, tmp_path / "hello")).ok
        assert tenants.hashes("alice", secure=True).secure
        with annex.Repository.open(path) as repository:
            assert repository.config.get_bool("annex.securehashesonly")  # git-annex itself goes by it
    async with annex.connect(str(path)) as vault:
        with pytest.raises(annex.AccessDenied, match="secure"):
            await annex.put(vault, annex.Key.parse("MD5-s5--5d41402abc4b2a76b9719d911017c592"), tmp_path / "hello")
        assert (await annex.put(vault, strong, tmp_path / "hello")).ok
        assert await vault.check_present(weak)  # what is there stays
    tenants.limit("alice", 5000)
    with annex.Repository.open(path) as repository:
        assert repository.config.get_bool("annex.securehashesonly")
        tenants.hashes("alice", secure=False)
        repository.config.refresh()
        assert repository.config.get("annex.securehashesonly") is None
        assert repository.config.get("annexpy.quota") == "5000"
    assert [one.detail for one in tenants.audit("alice") if one.action == "hashes"] == ["1", "0"]


def test_a_state_of_before_secure_hashes_is_brought_up_to_date(tenants: Tenants, tmp_path: Path) -> None:
    tenants.create("alice")
    with closing(sqlite3.connect(tenants.folder / STATE)) as db:
        db.execute("ALTER TABLE tenant DROP COLUMN secure")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    backup(Tenants(tenants.folder), tmp_path / "new")
    assert not Tenants(tenants.folder).get("alice").secure
    with closing(sqlite3.connect(tmp_path / "new")) as db:
        db.execute("ALTER TABLE tenant DROP COLUMN secure")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    assert not restore(tmp_path / "new", tmp_path / "elsewhere")[0].get("alice").secure
