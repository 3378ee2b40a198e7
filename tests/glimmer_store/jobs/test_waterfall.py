"""The status of a job never goes back, and whoever asked is told of its end, by a real HTTP request."""

from __future__ import annotations

import json
import multiprocessing
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise, product
from pathlib import Path

import anyio
import pytest
from backfilling import Backfill, make_backfill, many
from hypothesis import given
from hypothesis import strategies as st

from glimmer_store.jobs.callback import check_url, known, tell
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.operate import retry
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.run import run_job
from glimmer_store.jobs.spec import JobError, Retry
from glimmer_store.jobs.states import JobState
from glimmer_store.jobs.waterfall import ALLOWED, JobEvent, JobLog, allowed, status_of

FACTS = json.loads((Path(__file__).parents[2] / "fixtures/derived/ingest-status-transitions.json").read_text())
ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@pytest.mark.parametrize(("now", "then"), list(product(FACTS["statuses"], repeat=2)))
def test_the_status_goes_where_that_of_an_ingest_may_go(now: str, then: str) -> None:
    assert allowed(JobState(now), JobState(then)) == (then in FACTS["allowed"][now])


def test_an_event_moves_what_was_accepted() -> None:
    assert status_of([JobEvent(0, None, "planning started")]) == FACTS["event_update_moves_accepted_to"]
    failed = [JobEvent(0, JobState.FAILED, "x"), JobEvent(1, None, "y")]
    assert status_of(failed) is JobState.FAILED


@given(said=st.lists(st.sampled_from([None, *JobState]), max_size=12))
def test_no_sequence_of_events_turns_the_status_back(said: list[JobState | None]) -> None:
    events = [JobEvent(float(n), status, "") for n, status in enumerate(said)]
    seen = [status_of(events[:n]) for n in range(len(events) + 1)]

    for before, after in pairwise(seen):
        assert before is after or after in ALLOWED[before]
    assert JobState.PAUSED not in seen


def _say(folder: Path, number: int) -> None:
    JobLog(folder).say(f"step {number} started")


def test_events_of_many_processes_are_all_there_after_a_torn_line(tmp_path: Path) -> None:
    log = JobLog(tmp_path)
    log.say("accepted", JobState.ACCEPTED)
    with (tmp_path / "status.jsonl").open("ab") as file:
        file.write(b'{"v":1,"t":')
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_say, args=(tmp_path, n)) for n in range(6)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert log.say("x" * 400 + "\nnew line", JobState.FAILED) is JobState.FAILED

    texts = [event.text for event in log.events()]
    assert sorted(texts[1:7]) == [f"step {n} started" for n in range(6)]
    assert len(texts[-1]) == 250
    assert "\n" not in texts[-1]


@dataclass
class Receiver:
    """Gets callbacks; answers as it was told, then 200."""

    answers: list[int] = field(default_factory=list)
    got: list[dict[str, object]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            code = made.answers.pop(0) if made.answers else 200
            self.send_response(code)
            if code == 302:
                self.send_header("Location", made.url)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}/done"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


async def at_once(seconds: float) -> None:
    await anyio.lowlevel.checkpoint()


@ASYNCIO
@pytest.mark.anyio
async def test_a_receiver_that_is_busy_is_told_later_and_once(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [503, 302, 200]
    naps: list[float] = []

    async def sleep(seconds: float) -> None:
        naps.append(seconds)

    first = await tell(tmp_path, receiver.url, "failed", {"id": "x"}, sleep=sleep)
    again = await tell(tmp_path, receiver.url, "failed", {"id": "x"}, sleep=sleep)
    later = await tell(tmp_path, receiver.url, "succeeded", {"id": "y"}, sleep=sleep)

    assert (first.status, first.tries, again) == ("succeeded", 3, first)
    assert later.status == "succeeded"
    assert [one["id"] for one in receiver.got] == ["x", "x", "x", "y"]
    assert naps == [1.0, 2.0]
    assert set(known(tmp_path)) == {"failed", "succeeded"}


@ASYNCIO
@pytest.mark.anyio
async def test_a_callback_that_fails_is_a_status_of_its_own(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [500] * 5

    found = await tell(tmp_path, receiver.url, "succeeded", {}, sleep=at_once)

    assert (found.status, found.tries, found.error) == ("failed", 5, "answered 500")
    assert await tell(tmp_path, receiver.url, "succeeded", {}, sleep=at_once) == found
    assert len(receiver.got) == 5
    assert FACTS["callback"]["failed"] == ["failed"]


@ASYNCIO
@pytest.mark.anyio
async def test_a_process_that_dies_between_tries_leaves_the_rest_to_the_next(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.answers = [500, 200]

    async def die(seconds: float) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await tell(tmp_path, receiver.url, "succeeded", {}, sleep=die)
    assert known(tmp_path)["succeeded"].status == "pending"
    assert (await tell(tmp_path, receiver.url, "succeeded", {}, sleep=at_once)).tries == 2


@pytest.mark.parametrize("url", ["", "ftp://127.0.0.1/", "http://", "https://h:99999/", "http://h/a b", "file:///etc"])
def test_what_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(JobError, match="callback"):
        check_url(url)


@ASYNCIO
@pytest.mark.anyio
async def test_a_run_tells_of_its_end_and_a_failed_job_may_succeed(tmp_path: Path, receiver: Receiver) -> None:
    backfill: Backfill = await make_backfill(tmp_path, many(3))
    only_copy = backfill.object("a", backfill.keys[0])
    assert only_copy is not None
    content = only_copy.read_bytes()
    only_copy.parent.chmod(0o755)
    only_copy.unlink()
    quick: dict[str, object] = {"retry": Retry(tries=2, base=0.05), "heartbeat": 0.5, "limits": {"workers": 1}}
    spec = new_job(backfill.dataset, "backfill", ["new"], callback=receiver.url, **quick)
    _, ledger = await plan(spec, tmp_path / "job")
    assert ledger is not None

    await run_job(ledger.folder)
    assert [one["status"] for one in receiver.got] == ["failed"]
    assert JobLog(ledger.folder).status is JobState.FAILED

    only_copy.write_bytes(content)
    retry(Ledger.open(ledger.folder))
    await run_job(ledger.folder)

    assert [one["status"] for one in receiver.got] == ["failed", "succeeded"]
    assert receiver.got[-1]["id"] == spec.id
    assert JobLog(ledger.folder).status is JobState.SUCCEEDED
