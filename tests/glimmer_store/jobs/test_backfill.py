"""A backfill ends with every copy read back and registered, whatever goes wrong on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from backfilling import Backfill, git, make_backfill, many

import annexpy as annex
from glimmer_store.attest import Attestations, Verdict
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.plan import new_job, plan
from glimmer_store.jobs.registrar import register
from glimmer_store.jobs.spec import JobError, Retry
from glimmer_store.jobs.states import FailureKind, State
from glimmer_store.jobs.worker import run_worker

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

QUICK = Retry(tries=3, base=0.05)


@pytest.fixture
async def backfill(tmp_path: Path) -> Backfill:
    return await make_backfill(tmp_path, many(30))


async def planned(backfill: Backfill, *, type_: str = "backfill", to: str = "new", **settings: object) -> Ledger:
    spec = new_job(backfill.dataset, type_, [to], retry=QUICK, heartbeat=0.5, **settings)  # type: ignore[arg-type]
    _, ledger = await plan(spec, backfill.root / "job")
    assert ledger is not None
    return ledger


async def done(ledger: Ledger) -> Counter[str]:
    """Let one worker do all of it, and register it; states."""
    await run_worker(ledger.folder)
    await register(ledger.folder)
    return Counter(one.state.value for shard in ledger.shards() for one in ledger.fold(shard).values())


def missing(backfill: Backfill, git_annex: str, name: str = "new") -> set[str]:
    """What the real git-annex knows of and says is not there."""
    argv = [git_annex, "findkeys", "--not", "--in", name]
    return set(subprocess.run(argv, cwd=backfill.dataset, capture_output=True, text=True, check=True).stdout.split())


def attested(backfill: Backfill, key: annex.Key, name: str = "new") -> Verdict | None:
    one = Attestations(backfill.dataset).newest(key).get(backfill.uuids[name])
    return None if one is None else one.verdict


@pytest.mark.interop
async def test_every_key_arrives_is_read_back_and_registered(backfill: Backfill, git_annex: str) -> None:
    assert len(missing(backfill, git_annex)) == 30

    told = backfill.run("--to", "new")

    assert (told["state"], told["states"], told["missing"]) == ("succeeded", {"registered": 30}, 0)
    assert missing(backfill, git_annex) == set()
    assert backfill.holds("new") == set(backfill.keys) == backfill.recorded("new")
    assert {attested(backfill, key) for key in backfill.keys} == {Verdict.GOOD}
    assert git(backfill.dataset, "status", "--porcelain") == ""


async def test_a_plan_tells_and_writes_nothing(backfill: Backfill) -> None:
    spec = new_job(backfill.dataset, "backfill", ["new"])
    before = git(backfill.dataset, "rev-parse", "git-annex")

    amount, ledger = await plan(spec)

    assert ledger is None
    assert (amount.keys, amount.sourceless, amount.size) == (30, 0, sum(key.size or 0 for key in backfill.keys))
    assert sum(amount.sources.values()) == 30
    assert not (backfill.dataset / ".git" / "glimmer-store").exists()
    assert git(backfill.dataset, "rev-parse", "git-annex") == before


async def test_what_is_proven_is_not_planned_again_and_what_is_only_claimed_is(backfill: Backfill) -> None:
    await done(await planned(backfill))
    assert (await plan(new_job(backfill.dataset, "backfill", ["new"])))[0].keys == 0

    with annex.Repository.open(backfill.dataset) as repository:
        repository.branch.set_present(backfill.keys[1], backfill.uuids["a"], True)
        await repository.branch.commit()
    amount, _ = await plan(new_job(backfill.dataset, "backfill", ["a"]))
    assert (amount.keys, amount.claimed, amount.proven) == (30, 21, 0)


async def test_a_cluster_and_an_unknown_name_are_refused(backfill: Backfill) -> None:
    git(backfill.dataset, "config", "remote.all.url", "ssh://gateway/x")
    git(backfill.dataset, "config", "remote.all.annex-uuid", "ac000000-0000-8000-8000-000000000000")
    for name in ("all", "ac000000-0000-8000-8000-000000000000", "nobody"):
        with pytest.raises(JobError, match=r"repository of that name|cluster"):
            new_job(backfill.dataset, "backfill", [name])


async def test_the_copies_of_both_sources_are_used(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, ((b"x%d" % n, "a b") for n in range(400)))
    ledger = await planned(backfill)

    await done(ledger)

    events = [event for shard in ledger.shards() for event in ledger.events(shard)]
    used = Counter(event.source for event in events if event.state is State.COPIED)
    assert set(used) == {backfill.uuids["a"], backfill.uuids["b"]}


# -- what lies, breaks and fills up --


@pytest.mark.parametrize("how", ["drop", "flip"])
async def test_a_peer_that_says_success_and_spoils_it_is_never_registered(
    tmp_path: Path, how: str, git_annex: str
) -> None:
    backfill = await make_backfill(tmp_path, many(6))
    backfill.lie("new", how)
    ledger = await planned(backfill)

    states = await done(ledger)

    assert states == {"failed": 6}
    kinds = {one.last.kind for shard in ledger.shards() for one in ledger.fold(shard).values() if one.last}
    assert kinds == {FailureKind.DEST_BAD}
    assert backfill.recorded("new") == set()
    assert len(missing(backfill, git_annex)) == 6
    assert {attested(backfill, key) for key in backfill.keys} <= {Verdict.BAD, Verdict.MISSING}
    log = git(backfill.dataset, "show", f"git-annex:{location_log(backfill, backfill.keys[0])}")
    assert f" 0 {backfill.uuids['new']}" in log, "absence is written, or the claim of the peer would be merged"


def location_log(backfill: Backfill, key: annex.Key) -> str:
    names = git(backfill.dataset, "ls-tree", "-r", "--name-only", "git-annex").split("\n")
    (found,) = (name for name in names if name.endswith(f"/{key}.log"))
    return found


async def test_a_peer_that_lies_once_is_given_the_content_again(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"content", "a")])
    backfill.lie("new", "flip", "1")

    assert await done(await planned(backfill)) == {"registered": 1}

    assert backfill.holds("new") == set(backfill.keys)
    assert attested(backfill, backfill.keys[0]) is Verdict.GOOD


async def test_a_corrupt_source_is_noticed_and_another_is_used(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"%d" % n, "a b") for n in range(6)])
    for key in backfill.keys[:3]:
        backfill.spoil("a", key)
    for key in backfill.keys[3:5]:
        path = backfill.object("b", key)
        assert path is not None
        path.parent.chmod(0o755)
        path.unlink()

    assert await done(await planned(backfill)) == {"registered": 6}

    assert backfill.holds("new") == set(backfill.keys)
    assert backfill.recorded("a") | set(backfill.keys[:3]) == set(backfill.keys)


async def test_a_source_that_was_found_bad_is_attested_and_recorded_so(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"only here", "a")])
    backfill.spoil("a", backfill.keys[0])
    ledger = await planned(backfill)

    assert await done(ledger) == {"failed": 1}

    assert attested(backfill, backfill.keys[0], "a") is Verdict.BAD
    assert backfill.recorded("a") == set()
    ((one,),) = [ledger.fold(shard).values() for shard in ledger.shards()]
    assert one.last is not None
    assert one.last.kind is FailureKind.SOURCE_BAD


async def test_a_full_destination_is_held_and_the_other_goes_on(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, many(8), "a b new full")
    backfill.lie("full", "full")
    spec = new_job(backfill.dataset, "backfill", ["full", "new"], sources=["a", "b"], retry=QUICK, heartbeat=0.5)
    _, ledger = await plan(spec, tmp_path / "job")
    assert ledger is not None

    states = await done(ledger)

    assert backfill.holds("new") == set(backfill.keys) == backfill.recorded("new")
    assert backfill.recorded("full") == set()
    assert set(ledger.held()) == {backfill.uuids["full"]}
    assert states["registered"] == 8
    assert states["failed"] == 0

    backfill.address("full", str(backfill.bare("full")))
    ledger.free(backfill.uuids["full"])
    assert await done(ledger) == {"registered": 16}


async def test_a_key_that_is_gone_everywhere_fails_and_holds_nothing_up(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [*many(5), (b"gone", "a")])
    gone = backfill.keys[-1]
    ledger = await planned(backfill)
    path = backfill.object("a", gone)
    assert path is not None
    path.parent.chmod(0o755)
    path.unlink()

    assert await done(ledger) == {"registered": 5, "failed": 1}

    assert gone not in backfill.recorded("a")


async def test_an_unreachable_destination_is_tried_again_and_then_fails(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, many(3))
    backfill.address("new", str(tmp_path / "nowhere.git"))
    ledger = await planned(backfill)

    assert await done(ledger) == {"failed": 3}

    events = [event for shard in ledger.shards() for event in ledger.events(shard)]
    waits = [event.wait for event in events if event.state is State.RETRY_WAIT]
    assert len(waits) == 6, "two retries each"
    assert len(set(waits)) > 2, "with jitter"


# -- other types of job --


async def test_a_verification_finds_what_rotted_and_changes_no_other_record(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"%d" % n, "a b") for n in range(5)])
    backfill.spoil("a", backfill.keys[2])

    assert await done(await planned(backfill, type_="verify", to="a")) == {"registered": 4, "failed": 1}

    assert backfill.recorded("a") == set(backfill.keys) - {backfill.keys[2]}
    assert [attested(backfill, key, "a") for key in backfill.keys].count(Verdict.GOOD) == 4
    assert backfill.object("a", backfill.keys[2]) is not None, "a verification takes nothing away"


async def test_a_repair_replaces_what_rotted_and_what_is_gone(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"%d" % n, "a b") for n in range(5)])
    backfill.spoil("a", backfill.keys[2])
    path = backfill.object("a", backfill.keys[4])
    assert path is not None
    path.parent.chmod(0o755)
    path.unlink()

    assert await done(await planned(backfill, type_="repair", to="a")) == {"registered": 5}

    assert backfill.holds("a") == set(backfill.keys) == backfill.recorded("a")


# -- several at once --


async def test_two_coordinators_share_one_job(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, many(60))
    ledger = await planned(backfill)
    argv = [sys.executable, "-m", "glimmer_store.cli.app", "backfill", "run", "--job", str(ledger.folder), "--json"]

    both = [subprocess.Popen([*argv, "--workers", "1"], stdout=subprocess.PIPE) for _ in range(2)]
    told = [json.loads(one.communicate(timeout=300)[0]) for one in both]

    assert [one["state"] for one in told] == ["succeeded", "succeeded"]
    events = [event for shard in ledger.shards() for event in ledger.events(shard)]
    registered = Counter(event.key for event in events if event.state is State.REGISTERED)
    assert registered == dict.fromkeys(map(str, backfill.keys), 1), "one registrar at a time"
    copied = Counter(event.key for event in events if event.state is State.COPIED)
    assert copied == registered, "no shard had two workers"
    assert backfill.holds("new") == set(backfill.keys) == backfill.recorded("new")


@pytest.mark.parametrize(("strength", "method"), [("peer", "peer"), ("reread", "reread")])
async def test_a_peer_of_ours_may_prove_its_copies_where_that_is_enough(
    tmp_path: Path, strength: str, method: str
) -> None:
    backfill = await make_backfill(tmp_path, [(b"one", "a"), (b"two", "b")])
    backfill.address("new", f"exec:{sys.executable} -m annexpy.cli.app serve --stdio {backfill.bare('new')}")
    ledger = await planned(backfill, verify=strength)

    assert await done(ledger) == {"registered": 2}

    events = [event for shard in ledger.shards() for event in ledger.events(shard)]
    assert {event.method for event in events if event.state is State.VERIFIED} == {method}
    newest = [Attestations(backfill.dataset).newest(key)[backfill.uuids["new"]] for key in backfill.keys]
    assert {(one.verdict, one.method) for one in newest} == {(Verdict.GOOD, method)}


async def test_what_the_receiver_verified_while_it_stored_may_be_enough(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"new", "a"), (b"there before", "a new")])
    ledger = await planned(backfill, verify="stream")

    assert await done(ledger) == {"registered": 2}

    one, other = (Attestations(backfill.dataset).newest(key)[backfill.uuids["new"]] for key in backfill.keys)
    assert (one.method, other.method) == ("stream", "reread")
