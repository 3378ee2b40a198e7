"""Tenants on one server, as stock git and git-annex see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from hosting import SECONDS, Server

from glimmer_store.api_mount import BASE
from glimmer_store.job_api import JOB_ROUTES
from glimmer_store.tenant import Access, Granted
from glimmer_store.tenant_api import ROUTES

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("host") / "server")
    yield running
    running.stop()


class Client:
    """Somebody with a credential and a dataset."""

    def __init__(self, server: Server, folder: Path, name: str, access: Access = Access.WRITE) -> None:
        self.server, self.folder, self.name = server, folder / name, name
        keys = folder / f"{name}-keys"
        keys.mkdir()
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(keys / "id")], check=True)
        invitation = server.tenants.invite(name, access=access)
        self.granted: Granted = server.tenants.accept(
            invitation, label=name, ssh_key=(keys / "id.pub").read_text().strip()
        )
        self.ssh = (
            f"ssh -F none -i {keys / 'id'} -o IdentitiesOnly=yes -o BatchMode=yes -o LogLevel=ERROR"
            " -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no"
        )
        self.folder.mkdir()
        self.git("init", "-q", "-b", "main")
        self.git("annex", "init", "-q", name)
        self.git("config", "annex.security.allowed-ip-addresses", "all")
        host = server.http.removeprefix("http://")
        store = keys / "credentials"
        store.write_text(f"http://{self.granted.credential.user}:{self.granted.secret}@{host}\n")
        self.git("config", "credential.helper", f"store --file={store}")
        (self.folder / "bold.nii").write_text(f"bold of {name}\n" * 100)
        self.git("annex", "add", "-q", "bold.nii")
        self.git("commit", "-qm", "bold")
        self.key = self.git("annex", "lookupkey", "bold.nii").strip()

    def http(self, repository: str, tenant: str = "") -> str:
        return f"{self.server.http}/{tenant or self.name}/{repository}"

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        variables = {"GIT_SSH_COMMAND": self.ssh, "GIT_ANNEX_USE_GIT_SSH": "1", "GIT_TERMINAL_PROMPT": "0"}
        return subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env=os.environ | variables,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )

    def git(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture(scope="module")
def people(server: Server, own_home: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Client]:
    folder = tmp_path_factory.mktemp("people")
    server.tenants.create("alice")
    server.tenants.create("bob")
    server.tenants.create("adder", repositories=["one"], access=Access.APPEND_ONLY)
    server.tenants.create("small", repositories=["one"], quota=1000)
    return {name: Client(server, folder, name) for name in ("alice", "bob", "adder", "small")}


@pytest.mark.parametrize("carrier", ["http", "ssh"])
@pytest.mark.parametrize("name", ["alice", "bob"])
def test_stock_git_and_git_annex_store_and_get(
    server: Server, people: dict[str, Client], name: str, carrier: str
) -> None:
    me = people[name]
    for vault in ("vault1", "vault2", "vault3"):
        remote = f"{carrier}-{vault}"
        me.git("remote", "add", remote, me.http(vault) if carrier == "http" else f"{server.ssh}/{vault}")
        me.git("push", "-q", remote, "main")
        me.git("annex", "copy", "-q", "--to", remote, "bold.nii")
        me.git("annex", "sync", "-q", "--no-content", remote)
        me.git("annex", "fsck", "-q", "--from", remote, "bold.nii")
    found = json.loads(me.git("annex", "whereis", "--json", "bold.nii"))
    held = {str(one.uuid) for one in server.tenants.get(name).repositories}
    assert held < {entry["uuid"] for entry in found["whereis"]}
    me.git("annex", "drop", "-q", "bold.nii")
    me.git("annex", "get", "-q", "--from", f"{carrier}-vault2", "bold.nii")


def test_tenants_cannot_see_each_other(server: Server, people: dict[str, Client]) -> None:
    alice, bob = people["alice"], people["bob"]
    uuid = server.tenants.get("bob").repositories[0].uuid
    assert alice.run("ls-remote", alice.http("vault1", tenant="bob")).returncode != 0
    theirs, nobodys = (
        server.ask("GET", f"/{path}", alice.granted.secret)
        for path in (
            f"bob/vault1/git-annex/{uuid}/v4/checkpresent?key={bob.key}&clientuuid={uuid}",
            f"nobody/vault1/git-annex/{uuid}/v4/checkpresent?key={bob.key}&clientuuid={uuid}",
        )
    )
    assert theirs == nobodys == (404, "not found\n")
    for path in (str(server.tenants.get("bob").repositories[0].path), "bob/vault1", "../bob/vault1", "~/../bob/vault1"):
        done = alice.run("ls-remote", f"{server.ssh}/{path}")
        assert done.returncode != 0
        assert "refs/heads" not in done.stdout
    # ssh: vault1 is her own, whoever else has one of that name
    assert alice.git("ls-remote", f"{server.ssh}/vault1") != bob.git("ls-remote", f"{server.ssh}/vault1")
    assert server.ask("GET", "/api/v1/tenants/bob", alice.granted.secret)[0] == 404
    assert server.ask("GET", "/api/v1/tenants/nobody", alice.granted.secret)[0] == 404
    assert server.ask("GET", "/api/v1/tenants", alice.granted.secret)[0] == 404
    assert server.ask("GET", "/api/v1/tenants/bob")[0] == 401
    assert server.ask("GET", "/api/v1/tenants/alice", alice.granted.secret)[0] == 200


@pytest.mark.parametrize("carrier", ["http", "ssh"])
def test_append_only_holds(server: Server, people: dict[str, Client], carrier: str) -> None:
    me = people["adder"]
    remote = carrier
    me.git("remote", "add", remote, me.http("one") if carrier == "http" else f"{server.ssh}/one")
    me.git("push", "-q", remote, f"main:{carrier}")
    me.git("annex", "copy", "-q", "--to", remote, "bold.nii")
    assert me.run("annex", "drop", "-q", "--force", "--from", remote, "bold.nii").returncode != 0
    assert me.run("push", "-q", remote, f":{carrier}").returncode != 0
    rewound = me.git("commit-tree", "-m", "another history", "main^{tree}").strip()
    assert me.run("push", "-q", "--force", remote, f"{rewound}:refs/heads/{carrier}").returncode != 0
    assert me.git("rev-parse", "main") in me.git("ls-remote", remote, carrier).replace("\t", "\n")
    me.git("annex", "fsck", "-q", "--from", remote, "bold.nii")
    status, said = server.ask(
        "POST", "/api/v1/tenants/adder/invitations", me.granted.secret, {"access": Access.WRITE.value}
    )
    assert status == 201
    assert isinstance(said, dict)
    granted = server.tenants.accept(said["invitation"], label="x")
    assert granted.credential.access is Access.APPEND_ONLY


@pytest.mark.parametrize("carrier", ["http", "ssh"])
def test_the_quota_holds(server: Server, people: dict[str, Client], carrier: str) -> None:
    me = people["small"]
    me.git("remote", "add", carrier, me.http("one") if carrier == "http" else f"{server.ssh}/one")
    assert me.run("annex", "copy", "-q", "--to", carrier, "bold.nii").returncode != 0
    (me.folder / carrier).write_text(carrier * 100)
    me.git("annex", "add", "-q", carrier)
    me.git("annex", "copy", "-q", "--to", carrier, carrier)
    me.git("annex", "fsck", "-q", "--from", carrier, carrier)


@pytest.mark.parametrize("carrier", ["http", "ssh"])
def test_a_quota_that_is_set_while_the_server_runs_holds_at_once(
    server: Server, own_home: None, tmp_path: Path, carrier: str
) -> None:
    server.tenants.create(f"grown-{carrier}", repositories=["one"])
    me = Client(server, tmp_path, f"grown-{carrier}")
    me.git("remote", "add", carrier, me.http("one") if carrier == "http" else f"{server.ssh}/one")
    # what the file says holds within half a second; and git forgets a credential that is refused
    assert wait_for(lambda: server.ask("GET", f"/api/v1/tenants/{me.name}", me.granted.secret)[0] == 200)
    assert wait_for(lambda: me.run("ls-remote", carrier).returncode == 0)
    me.git("annex", "copy", "-q", "--to", carrier, "bold.nii")
    (me.folder / "more").write_text("more" * 100)
    me.git("annex", "add", "-q", "more")

    server.tenants.limit(me.name, 1000)
    assert me.run("annex", "copy", "-q", "--to", carrier, "more").returncode != 0
    server.tenants.limit(me.name, None)
    me.git("annex", "copy", "-q", "--to", carrier, "more")


def test_a_tenant_is_made_suspended_and_deleted_over_http(server: Server, people: dict[str, Client]) -> None:
    operator = server.tenants.operator().secret
    made = {"name": "carol", "repositories": ["one"], "quota": 5}
    assert server.ask("POST", "/api/v1/tenants", people["bob"].granted.secret, made)[0] == 404
    # what the file says holds within half a second; what is asked over HTTP, at once
    assert wait_for(lambda: server.ask("POST", "/api/v1/tenants", operator, made)[0] in (201, 400))
    status, said = server.ask("POST", "/api/v1/tenants/carol/invitations", operator, {})
    assert status == 201
    assert isinstance(said, dict)
    status, said = server.ask("POST", "/api/v1/invitations/accept", "", {**said, "label": "desk"})
    assert status == 201
    assert isinstance(said, dict)
    url, secret = said["tenant"]["repositories"][0]["http"], said["secret"]
    assert server.ask("GET", "/api/v1/tenants/carol", secret)[0] == 200
    info = f"{url}/info/refs?service=git-upload-pack"
    people["bob"].git("-c", f"http.extraHeader=Authorization: Bearer {secret}", "ls-remote", server.http + url)
    assert server.ask("POST", f"/api/v1/tenants/carol/credentials/{said['id']}/rotate", secret, {})[0] == 201
    assert server.ask("GET", "/api/v1/tenants/carol", secret)[0] == 401
    assert server.ask("POST", "/api/v1/tenants/carol/suspend", operator, {})[0] == 200
    assert server.ask("GET", info, operator)[0] == 404
    assert server.ask("POST", "/api/v1/tenants/carol/resume", operator, {})[0] == 200
    assert server.ask("DELETE", "/api/v1/tenants/carol", operator)[0] == 200
    assert server.ask("GET", "/api/v1/tenants/carol", operator)[0] in (400, 404)
    assert [one.action for one in server.tenants.audit("carol")][-1] == "delete"


def wait_for(true: Callable[[], bool]) -> bool:
    return any(true() for _ in range(2000))


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"[]", b'{"name": 7}', b'{"name": "x", "quota": true}', b'{"name": "x", "access": "all"}', b"[" * 9999),
        *(b'{"name": "x", "quota": 9223372036854775808}', b'{"name": "x", "secure-hashes": 1}', b'{"name": "\\ud800"}'),
    ],
)
def test_a_body_that_is_not_right_is_refused_by_name(server: Server, body: bytes) -> None:
    operator = server.tenants.operator().secret
    assert wait_for(lambda: server.ask("GET", "/api/v1/tenants", operator)[0] == 200)
    request = Request(f"{server.http}/api/v1/tenants", body, {"Authorization": f"Bearer {operator}"}, method="POST")
    with pytest.raises(HTTPError) as refused:
        urlopen(request, timeout=SECONDS)
    assert refused.value.code == 400
    assert json.loads(refused.value.read())["error"]


def test_the_description_has_every_route(server: Server) -> None:
    status, said = server.ask("GET", "/api/v1/openapi.json")
    assert status == 200
    assert isinstance(said, dict)
    described = {
        (method.upper(), path.replace("{name}", "x").replace("{id}", "1").replace("{job}", "bf-20261121-0a1b2c"))
        for path, methods in said["paths"].items()
        for method in methods
    }
    routes = [*ROUTES, *JOB_ROUTES]
    assert len(described) == len(routes)
    for method, path in described:
        assert any(route.method == method and route.path.match(BASE + path) for route in routes)


def test_only_one_process_serves_a_folder(server: Server) -> None:
    words = ["-m", "glimmer_store.cli.app", "serve", str(server.folder), "--plain-http", "--http", "127.0.0.1:0"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    assert "another process serves it" in done.stderr


def store(cwd: Path, *words: str, expect: int = 0, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "glimmer_store.cli.app", *words],
        cwd=cwd,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == expect, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.mark.parametrize("who", ["operator", "invited", "invited by ssh"])
def test_a_dataset_provisions_itself_from_nothing(
    server: Server, people: dict[str, Client], tmp_path: Path, who: str
) -> None:
    name = who.replace(" ", "-")
    words, variables = [], {}
    if who == "operator":
        variables["GLIMMER_STORE_TOKEN"] = secret = server.tenants.operator().secret
        assert wait_for(lambda: server.ask("GET", "/api/v1/tenants", secret)[0] == 200)
    else:
        server.tenants.create(name, quota=10_000_000)
        words += ["--invitation", server.tenants.invite(name)]
    if who == "invited by ssh":
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")], check=True)
        words += ["--ssh-key", str(tmp_path / "id.pub")]
        variables["GIT_SSH_COMMAND"] = people["alice"].ssh.replace(
            str(people["alice"].folder.parent / "alice-keys" / "id"), str(tmp_path / "id")
        )
    store(tmp_path, "init", "study", "--yes", "--tenant", name, "--server", server.http, *words, **variables)
    study = tmp_path / "study"
    (study / "bold.nii").write_text("bold" * 1000)
    said = json.loads(store(study, "archive", "bold.nii", "--type", "dataset", "--json", **variables))
    assert said["copies"] == 3
    assert store(study, "status", **variables)
    held = {one.uuid: one.path for one in server.tenants.get(name).repositories}
    assert {place["uuid"] for place in said["stored-at"]} == set(held)
    for path in held.values():
        done = subprocess.run(
            ["git", "annex", "fsck", "--key", said["key"]], cwd=path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    found = subprocess.run(
        ["git", "annex", "whereis", "--json", "--key", said["key"]],
        cwd=study,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(held) <= {entry["uuid"] for entry in json.loads(found.stdout)["whereis"]}
    if who == "invited":  # stock git-annex finds the contents by the remote as it was set up
        subprocess.run(["git", "config", "annex.security.allowed-ip-addresses", "all"], cwd=study, check=True)
        done = subprocess.run(
            ["git", "annex", "get", "--from", f"{name}-vault1", "--key", said["key"]],
            cwd=study,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    secrets = list((study / ".git").rglob("*credentials*"))
    assert [path.stat().st_mode & 0o777 for path in secrets] == [0o600]
    if who != "operator":
        maxsizes = subprocess.run(
            ["git", "annex", "maxsize", *list(held)[:1]], cwd=study, capture_output=True, text=True, check=True
        )
        assert "10" in maxsizes.stdout
        server.tenants.limit(name, 1_000_000)
    told = json.loads(store(study, "report", "--json", **variables))["places"]
    durable = [(place["used"], place["free"], place["free-by"]) for place in told if place["tier"] == "durable"]
    assert durable == [(4000, None, "") if who == "operator" else (4000, 996_000, "quota")] * 3
    again = store(tmp_path, "init", "other", "--yes", "--tenant", name, "--server", server.http, *words, expect=1)
    assert again == ""
