"""A job as a resource of the server: written down first, told as it goes, and its tenant's alone."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from hosting import Server

import annexpy as annex
from glimmer_store.attest import Attestations, Signer, Verdict
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.waterfall import allowed
from glimmer_store.provision import provision
from glimmer_store.tenant import Access

SIZE = 3000
PATIENCE = 240


@pytest.fixture(scope="module")
def told() -> Iterator[list[dict[str, object]]]:
    """What a receiver of callbacks gets; its port is the first entry's."""
    got: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    got.append({"port": receiver.server_port})
    thread = threading.Thread(target=receiver.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield got
    receiver.shutdown()
    thread.join()
    receiver.server_close()


class Host:
    """A server that can be started again, with tenants and their secrets."""

    def __init__(self, folder: Path) -> None:
        self.server = Server(folder, "--callback-host", "127.0.0.1")
        self.secrets: dict[str, str] = {}

    def tenant(self, name: str, *, access: Access = Access.WRITE, quota: int | None = None) -> None:
        tenants = self.server.tenants
        tenants.create(name, repositories=["one", "two"], quota=quota, access=access)
        self.secrets[name] = tenants.accept(tenants.invite(name, access=access), label=name).secret
        self.wait(lambda: self.ask("GET", name)[0] == 200)

    def ask(self, method: str, path: str, body: object = None, *, by: str = "") -> tuple[int, dict[str, object]]:
        """Below the page of a tenant; *by* whom, by default that tenant."""
        secret = self.secrets[by or path.partition("/")[0]]
        status, said = self.server.ask(method, f"/api/v1/tenants/{path}", secret, body)
        if isinstance(said, str):
            said = json.loads(said) if said.startswith("{") else {"text": said}
        assert isinstance(said, dict)
        return status, said

    def fill(self, name: str, count: int) -> set[annex.Key]:
        """Contents in the first repository of a tenant."""
        held, _ = self.server.tenants.get(name).repositories
        return anyio.run(_fill, held.path, count)

    def holds(self, name: str) -> set[annex.Key]:
        """What the second one has, by reading all of it."""
        _, held = self.server.tenants.get(name).repositories
        with annex.Repository.open(held.path) as repository:
            keys = {where.key for where in annex.whereis_all(repository)}
            return {key for key in keys if repository.content.verified(key)}

    def wait(self, true: object) -> None:
        assert callable(true)
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end
            time.sleep(0.25)


async def _fill(path: Path, count: int) -> set[annex.Key]:
    keys = set()
    repository = annex.Repository.open(path)
    local = annex.Local(repository, durability="fast")
    for number in range(count):
        content = (b"%d " % number).ljust(SIZE, b".")
        key = annex.Key.parse(f"SHA256E-s{SIZE}--{hashlib.sha256(content).hexdigest()}.bin")
        async with local.put(key) as upload:
            await upload.start(SIZE)
            await upload.write(content)
            await upload.finish()
        keys.add(key)
    await repository.branch.commit()
    await local.aclose()
    repository.close()
    return keys


async def _copy(path: Path, other: Path, keys: set[annex.Key]) -> None:
    """Have *other* hold *keys* too, and the repository at *path* know of it."""
    with annex.Repository.open(path) as repository, annex.Repository.open(other) as taker:
        there = annex.Recording(annex.Local(taker, durability="fast"), repository.branch)
        await annex.copy(annex.Local(repository), there, keys).tell(lambda one: None)
        await repository.branch.commit()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    made = Host(tmp_path_factory.mktemp("jobs") / "server")
    for name in ("alice", "bob"):
        made.tenant(name)
    yield made
    made.server.stop()


@pytest.fixture(scope="module")
def page(host: Host, told: list[dict[str, object]]) -> str:
    """A job of alice's that was just made; the next who asks is told how it stands."""
    host.fill("alice", 5)
    url = f"http://127.0.0.1:{told[0]['port']}/done"
    status, made = host.ask("POST", "alice/jobs", {"to": "two", "from": ["one"], "callback": url})
    assert status == 201
    assert made["status"] in ("accepted", "processing")
    return f"alice/jobs/{made['id']}"


def test_a_job_is_written_down_runs_and_tells_of_its_end(host: Host, told: list[dict[str, object]], page: str) -> None:
    seen = [JobState.ACCEPTED]

    def ended() -> bool:
        code, job = host.ask("GET", page)
        assert code == 200
        seen.append(JobState(job["status"]))
        return job["running"] is False

    host.wait(ended)
    assert all(allowed(before, after) for before, after in pairwise(seen))
    assert seen[-1] is JobState.SUCCEEDED
    assert len(host.holds("alice")) == 5
    _, job = host.ask("GET", page)
    assert job["figures"]["progress"]["states"]["registered"]["keys"] == 5
    assert job["callback"]["succeeded"]["status"] == "succeeded"
    assert [(one["id"], one["status"]) for one in told[1:]] == [(page.rpartition("/")[2], "succeeded")]
    _, events = host.ask("GET", f"{page}/events")
    texts = [one["text"] for one in events["events"]]
    assert texts[0] == "job accepted"
    assert texts[-1] == "backfill succeeded"
    assert all(len(text) <= 250 for text in texts)
    assert host.ask("POST", f"{page}/cancel", {})[0] == 400, "what succeeded is at its end"
    actions = [one.action for one in host.server.tenants.audit("alice")]
    assert "job" in actions


def test_a_job_is_its_tenants_alone(host: Host, page: str) -> None:
    for method, path in (("GET", page), ("GET", "alice/jobs"), ("POST", "alice/jobs"), ("POST", f"{page}/cancel")):
        body = {"to": "two"} if method == "POST" else None
        nobodys = host.ask(method, path.replace("alice", "nobody"), body, by="bob")
        assert host.ask(method, path, body, by="bob") == nobodys
        assert nobodys[0] == 404
    assert host.ask("GET", page.replace("alice", "bob"))[0] == 400
    assert host.ask("GET", "bob/jobs")[1] == {"jobs": []}
    alices = str(host.server.tenants.get("alice").repositories[0].path)
    for name in ("alice/one", alices, "../alice/one", "three"):
        code, said = host.ask("POST", "bob/jobs", {"to": name})
        assert (code, said["remedy"]) == (400, "name one of one, two")
        assert host.ask("POST", "bob/jobs", {"to": "one", "from": [name]})[0] == 400
    assert host.ask("GET", "bob/jobs")[1] == {"jobs": []}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"to": 5},
        {"to": "two", "type": "drain"},
        {"to": "two", "from": ["one"], "type": "drain"},
        {"from": ["one", "two"], "type": "drain"},
        {"from": ["three"], "type": "drain"},
        {"to": "two", "type": "burn"},
        {"to": "two", "verify": "hope"},
        {"to": "two", "from": ["two"]},
        {"to": "two", "limits": {"speed": "1MB/s"}},
        {"to": "two", "limits": {"places": {}}},
        {"to": "two", "callback": "http://192.0.2.1/"},
        {"to": "two", "callback": "file:///etc/passwd"},
    ],
)
def test_a_job_that_cannot_be_is_refused_and_leaves_nothing(host: Host, body: object) -> None:
    status, said = host.ask("POST", "bob/jobs", body)

    assert status == 400
    assert said["error"]
    assert host.ask("GET", "bob/jobs")[1] == {"jobs": []}


@pytest.mark.parametrize("body", [{"to": "two", "type": "repair"}, {"from": ["one"], "type": "drain"}])
def test_who_may_only_add_takes_nothing_away(host: Host, body: object) -> None:
    if "adder" not in host.secrets:
        host.tenant("adder", access=Access.APPEND_ONLY)
    status, said = host.ask("POST", "adder/jobs", body)
    assert (status, host.ask("GET", "adder/jobs")[1]) == (400, {"jobs": []})
    assert "for who may write" in str(said["error"])


def test_a_drain_takes_what_another_is_proven_to_have_and_leaves_the_rest(host: Host) -> None:
    host.tenant("erin")
    keys = host.fill("erin", 4)
    one, two = host.server.tenants.get("erin").repositories

    anyio.run(_copy, one.path, two.path, keys)
    rotten = min(keys)
    with annex.Repository.open(two.path) as repository:
        found = repository.content.path(rotten)
        assert found is not None
        path = two.path / found.decode()
    path.chmod(0o644)
    path.write_bytes(b"?" * SIZE)

    status, made = host.ask("POST", "erin/jobs", {"type": "drain", "from": ["one"]})
    assert status == 201
    host.wait(lambda: host.ask("GET", f"erin/jobs/{made['id']}")[1]["running"] is False)
    _, job = host.ask("GET", f"erin/jobs/{made['id']}")

    assert (job["type"], job["from"], job["to"], job["status"]) == ("drain", ["one"], [], "failed")
    figures = job["figures"]
    assert isinstance(figures, dict)
    states = figures["progress"]["states"]
    assert (states["registered"]["keys"], states["failed"]["keys"]) == (3, 1)
    with annex.Repository.open(one.path) as repository:
        assert set(repository.content.keys()) == {rotten}
        locations = {key: repository.branch.locations(key).present for key in keys}
    assert locations == {key: [one.uuid] if key == rotten else [two.uuid] for key in keys}
    assert host.holds("erin") == keys - {rotten}


def test_a_job_outlives_its_server_and_obeys_what_was_said(host: Host) -> None:
    host.tenant("carol")
    keys = host.fill("carol", 3)
    status, made = host.ask("POST", "carol/jobs", {"to": "two", "limits": {"bandwidth": "1B/s"}})
    assert status == 201
    page = f"carol/jobs/{made['id']}"
    host.wait(lambda: host.ask("GET", page)[1]["status"] == "processing")
    code, said = host.ask("POST", f"{page}/pause", {"reason": "backup"})
    assert (code, said["paused"], said["reason"], said["status"]) == (200, True, "backup", "processing")

    folder = host.server.folder
    host.server.stop()
    host.server = Server(folder, "--callback-host", "127.0.0.1")

    code, said = host.ask("GET", page)
    assert (code, said["status"], said["paused"], said["running"]) == (200, "processing", True, True)
    assert host.ask("POST", f"{page}/limits", {"limits": {"bandwidth": "none"}})[0] == 200
    assert host.ask("POST", f"{page}/limits", {"limits": {"bandwidth": "much"}})[0] == 400
    assert host.ask("POST", f"{page}/resume", {})[0] == 200
    host.wait(lambda: host.ask("GET", page)[1]["running"] is False)
    assert host.ask("GET", page)[1]["status"] == "succeeded"
    assert host.holds("carol") == keys


def test_a_quota_holds_for_jobs_and_a_cancelled_one_is_at_its_end(host: Host) -> None:
    host.tenant("small")
    host.fill("small", 3)
    host.server.tenants.limit("small", 3 * SIZE - 1)

    _, made = host.ask("POST", "small/jobs", {"to": "two"})
    page = f"small/jobs/{made['id']}"
    host.wait(lambda: host.ask("GET", page)[1]["running"] is False)

    assert host.ask("GET", page)[1]["status"] == "failed"
    assert host.ask("POST", f"{page}/retry", {"kind": "bad luck"})[0] == 400
    assert host.ask("POST", f"{page}/retry", {})[0] == 200
    host.wait(lambda: host.ask("GET", page)[1]["running"] is False)
    texts = [one["text"] for one in host.ask("GET", f"{page}/events")[1]["events"]]
    assert [text.startswith("job failed - two: 9000 bytes would go there") for text in texts].count(True) == 2
    assert host.ask("POST", f"{page}/cancel", {"reason": "too small"})[1]["status"] == "cancelled"
    assert host.ask("POST", f"{page}/resume", {})[0] == 400
    assert host.holds("small") == set()


@pytest.mark.interop
def test_what_a_job_proved_comes_to_the_dataset_with_a_sync(host: Host, tmp_path: Path, git_annex: str) -> None:
    host.tenant("dora")
    one, two = host.server.tenants.get("dora").repositories
    study = tmp_path / "study"

    def run(*words: str) -> str:
        who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        done = subprocess.run([words[0], *(who if words[0] == "git" else []), *words[1:]], cwd=study, text=True,
                              capture_output=True, check=False)  # fmt: skip
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    provision(study, [str(one.path), str(two.path)])
    (study / "out.txt").write_bytes(b"a result")
    run(git_annex, "add", "-q", "out.txt")
    run("git", "commit", "-qm", "a result")
    name = run("git", "remote").split()[0]
    run(git_annex, "sync", "-q", "--content", name)
    key = annex.Key.parse(run(git_annex, "lookupkey", "out.txt").strip())
    assert Attestations(study).newest(key) == {}

    _, made = host.ask("POST", "dora/jobs", {"to": "two", "from": ["one"]})
    host.wait(lambda: host.ask("GET", f"dora/jobs/{made['id']}")[1]["running"] is False)
    assert host.ask("GET", f"dora/jobs/{made['id']}")[1]["status"] == "succeeded"
    run(git_annex, "sync", "-q", "--no-content", name)

    newest = Attestations(study).newest(key)
    assert {uuid: one.verdict for uuid, one in newest.items()} == {str(two.uuid): Verdict.GOOD}
    assert two.uuid in run(git_annex, "whereis", "out.txt")
    signer = newest[str(two.uuid)].signer
    assert signer != Signer.of_user().name, "the server has a key of its own"
    receipt = tmp_path / "receipt.log"
    receipt.write_bytes(b"".join(Attestations(study).receipts(key)))
    checker, pem = Path(__file__).parents[2] / "examples/check_receipt.py", study / f".glimmer-store/keys/{signer}.pem"
    run(sys.executable, str(checker), str(receipt), str(pem))
