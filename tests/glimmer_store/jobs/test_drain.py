"""A repository is emptied only of what enough others were proven to have; git-annex agrees with what is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from backfilling import Backfill, git, make_backfill

import annexpy as annex
from glimmer_store.attest import Attestations, Signer, Verdict, reader
from glimmer_store.cli.app import main
from glimmer_store.enter import Entering
from glimmer_store.entry import Entry
from glimmer_store.errors import ConfigError
from glimmer_store.jobs.event import Folded
from glimmer_store.jobs.explain import explain, explained_text
from glimmer_store.jobs.floor import floor_of
from glimmer_store.jobs.ledger import Ledger
from glimmer_store.jobs.missing import missing, missing_text
from glimmer_store.jobs.operate import cancel, pause, resume, retry
from glimmer_store.jobs.plan import Plan, new_job, plan
from glimmer_store.jobs.ran import unplanned
from glimmer_store.jobs.registrar import register
from glimmer_store.jobs.reporting import report
from glimmer_store.jobs.spec import JobError, Retry
from glimmer_store.jobs.states import FailureKind, State
from glimmer_store.jobs.survey import Survey
from glimmer_store.jobs.worker import run_worker

ASYNCIO = pytest.mark.parametrize("anyio_backend", ["asyncio"])
QUICK = Retry(tries=2, base=0.05)
DAY = timedelta(days=1)
EACH = 0.1
"""Seconds for a key that a campaign may take at most, on a machine with much else to do."""


async def planned(backfill: Backfill, **settings: object) -> tuple[Plan, Ledger]:
    """A job that empties ``a``."""
    fields: dict[str, object] = {"retry": QUICK, "heartbeat": 0.5, **settings}
    amount, ledger = await plan(new_job(backfill.dataset, "drain", ["a"], **fields), backfill.root / "drain")
    assert ledger is not None
    return amount, ledger


async def drained(ledger: Ledger) -> dict[str, str]:
    """Let one worker do what can be done, and register it; key → its state, or why it failed."""
    await run_worker(ledger.folder)
    await register(ledger.folder)
    return {key: how(one) for shard in ledger.shards() for key, one in ledger.fold(shard).items()}


def how(one: Folded) -> str:
    assert one.last is not None
    return str(one.last.kind) if one.state is State.FAILED else str(one.state)


def found_by(git_annex: str, backfill: Backfill, *words: str) -> set[str]:
    """Keys that the real git-annex names."""
    argv = [git_annex, "findkeys", *words]
    return set(subprocess.run(argv, cwd=backfill.dataset, capture_output=True, text=True, check=True).stdout.split())


async def configured(backfill: Backfill, **settings: object) -> None:
    with annex.Repository.open(backfill.dataset) as repository:
        annex.configure(repository, **settings)  # type: ignore[arg-type]  # by the tests
        await repository.branch.commit()


async def attested(
    backfill: Backfill, keys: Iterable[annex.Key], ages: Mapping[str, timedelta], method: str = "reread"
) -> None:
    """Somebody found *keys* good, so long ago, at each of these repositories."""
    signer, now = Signer.of_user(), datetime.now(UTC)
    proofs = [
        signer.attest(key, backfill.uuids[name], name, Verdict.GOOD, method, when=now - age)  # type: ignore[arg-type]
        for key in keys
        for name, age in ages.items()
    ]
    with annex.Repository.open(backfill.dataset) as repository:
        await Entering(repository, "", ()).enter(Entry("proofs", tuple(signer.parts(proofs, reader(backfill.dataset)))))


def read_again(ledger: Ledger) -> set[tuple[str, str]]:
    """(key, UUID) of the copies that this job had read, and that were good."""
    lines = [line for shard in ledger.shards() for line in ledger.attestations(shard)]
    found = [one for line in lines for one in line.attestations]
    return {(one.key, one.uuid) for one in found if one.verdict is Verdict.GOOD}


def lose(backfill: Backfill, name: str, key: annex.Key) -> None:
    """Take a content away behind everybody's back."""
    path = backfill.object(name, key)
    assert path is not None
    path.parent.chmod(0o755)
    path.unlink()


# what is there → what becomes of it, and which copies are read for that
CASES = {
    "b has it": ("a b", "registered", "b"),
    "two have it": ("a b new", "registered", "one"),
    "nobody else has it": ("a", "too-few", ""),
    "b rotted": ("a b", "too-few", ""),
    "b rotted, new did not": ("a b new", "registered", "new"),
    "b was proven yesterday": ("a b", "registered", ""),
    "b was proven yesterday and is gone": ("a b", "too-few", ""),
    "b was proven long ago": ("a b", "registered", "b"),
    "b was proven tomorrow": ("a b", "registered", "b"),
    "b was proven by its peer": ("a b", "registered", "b"),
    "who has it is not trusted": ("a c", "too-few", ""),
    "who has it is dead": ("a d", "too-few", ""),
    "it is gone already": ("a", "registered", ""),
}


async def every_case(root: Path, git_annex: str) -> tuple[Backfill, dict[str, annex.Key]]:
    backfill = await make_backfill(root, [(case.encode(), CASES[case][0]) for case in CASES], "a b new c d")
    keys = dict(zip(CASES, backfill.keys, strict=True))
    for words in (["untrust", "c"], ["dead", "d"]):
        subprocess.run([git_annex, *words, "--force"], cwd=backfill.dataset, check=True, capture_output=True)
    await attested(backfill, [keys["b was proven yesterday"], keys["b was proven yesterday and is gone"]], {"b": DAY})
    await attested(backfill, [keys["b was proven long ago"]], {"b": 100 * DAY})
    await attested(backfill, [keys["b was proven tomorrow"]], {"b": -DAY})
    await attested(backfill, [keys["b was proven by its peer"]], {"b": DAY}, "peer")
    await attested(backfill, [keys["who has it is not trusted"], keys["who has it is dead"]], {"c": DAY, "d": DAY})
    for case in ("b rotted", "b rotted, new did not"):
        backfill.spoil("b", keys[case])
    lose(backfill, "b", keys["b was proven yesterday and is gone"])
    lose(backfill, "a", keys["it is gone already"])
    return backfill, keys


@pytest.mark.interop
@pytest.mark.anyio
@ASYNCIO
async def test_only_what_enough_others_are_proven_to_have_is_dropped(tmp_path: Path, git_annex: str) -> None:
    backfill, keys = await every_case(tmp_path, git_annex)
    amount, ledger = await planned(backfill)
    assert (amount.keys, amount.proven, amount.sourceless) == (len(CASES), 2, 4)

    became = await drained(ledger)

    assert {case: became[str(keys[case])] for case in CASES} == {case: told[1] for case, told in CASES.items()}
    stays = {keys[case] for case, told in CASES.items() if told[1] == "too-few"}
    assert backfill.holds("a") == stays == backfill.recorded("a")
    assert found_by(git_annex, backfill, "--in", "a") == set(map(str, stays))
    assert len(stays) == unplanned(ledger) == (await missing(ledger.spec)).whole.missing
    gone_at_b = {keys[case] for case in CASES if "rotted" in case or case.endswith("is gone")}
    assert found_by(git_annex, backfill, "--in", "b") == {
        str(keys[case]) for case, told in CASES.items() if " b" in told[0]
    } - set(map(str, gone_at_b)), "what was found missing or bad on the way is recorded so"
    fsck = [git_annex, "fsck", "--from", "a", "--fast", "--all", "--quiet"]
    assert subprocess.run(fsck, cwd=backfill.dataset, capture_output=True, text=True, check=False).stdout == ""
    names = {uuid: name for name, uuid in backfill.uuids.items()}
    seen: dict[str, list[str]] = {case: [] for case in CASES}
    for key, uuid in read_again(ledger):
        seen[next(case for case in CASES if str(keys[case]) == key)].append(names[annex.UUID(uuid)])
    assert len(seen.pop("two have it")) == 1, "one is enough"
    assert seen == {case: told[2].split() for case, told in CASES.items() if case != "two have it"}
    for key in set(backfill.keys) - stays:
        newest = Attestations(backfill.dataset).newest(key)
        assert newest[backfill.uuids["a"]].verdict is Verdict.MISSING, "a proof of what is gone must not count again"
    assert git(backfill.dataset, "status", "--porcelain") == ""
    await check_what_is_told(ledger, keys)


async def check_what_is_told(ledger: Ledger, keys: Mapping[str, annex.Key]) -> None:
    told, text = await report(ledger)
    reasons = told["health"]["reasons"]  # type: ignore[index]
    assert sum(one["keys"] for one in reasons) == 5
    assert all("0 copies verified, 1 needed" in one["text"] for one in reasons)
    assert all("backfill run --to NAME, then: backfill retry --kind too-few" in one["remedy"] for one in reasons)
    assert "backfill retry --kind too-few" in text.replace("\\", "")
    assert told["speed"]["dropping"]["keys"] == told["progress"]["states"]["registered"]["keys"] == 8  # type: ignore[index]
    assert "verifying" not in told["speed"]  # type: ignore[operator]
    assert told["resources"]["dest"]["a"]["bytes-to-go"] == 0, "what stays is not to go"  # type: ignore[index]
    assert str(told["first"]).startswith("every irreplaceable key of this job was dropped")
    assert Survey(ledger).look().around.state == "failed"
    (one,) = explain(ledger, str(keys["nobody else has it"]))
    assert "backfill run --to" in one.remedy
    for case, why in (("b rotted", "b (it was read, and is bad"), ("who has it is not trusted", "c (it is untrusted)")):
        (one,) = explain(ledger, str(keys[case]))
        assert why in explained_text(one)
    (one,) = explain(ledger, str(keys["b has it"]))
    assert "stays: b (locked)" in explained_text(one)
    assert one.to_json()["error"] is None
    assert missing_text(await missing(ledger.spec)).startswith("5 keys are left")


@pytest.mark.anyio
@ASYNCIO
async def test_every_rule_that_keeps_a_content_is_obeyed_as_it_is_when_it_would_go(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"x", "a b")])
    (key,) = backfill.keys
    await attested(backfill, backfill.keys, {"b": DAY})
    _, ledger = await planned(backfill)

    await configured(backfill, numcopies=2)
    assert await drained(ledger) == {str(key): "too-few"}
    (one,) = explain(ledger, str(key))
    assert "counted: b (proven, reread); 2 needed: numcopies.log" in explained_text(one)

    await configured(backfill, numcopies=1, required={backfill.uuids["a"]: "anything"})
    assert retry(ledger, [FailureKind.TOO_FEW]) == {"too-few": 1}
    assert await drained(ledger) == {str(key): "required"}
    assert (await plan(ledger.spec))[0].required == 1
    await configured(backfill, required={backfill.uuids["a"]: ""})

    retry(ledger)
    with annex.Repository.open(backfill.bare("a")) as repository:
        async with annex.Local(repository).lock_content(key):
            assert await drained(ledger) == {str(key): "transient"}, "somebody holds on to it"

    assert backfill.holds("a") == {key} == backfill.recorded("a")
    retry(ledger)
    assert await drained(ledger) == {str(key): "registered"}
    assert backfill.holds("a") == set() == backfill.recorded("a")


@pytest.mark.anyio
@ASYNCIO
async def test_without_a_work_tree_the_most_that_its_history_asks_for_holds(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"x", "a b new")])
    study, bare = backfill.dataset, backfill.bare("a")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    asks = {
        ".gitattributes": ("*.md annex.numcopies=1\n* annex.mincopies=2\n", (2, ".gitattributes")),
        "sub/.gitattributes": ("* annex.numcopies=3\n", (3, ".gitattributes")),
        "rokb/derivatives/x.md": ("---\nid: x\nnumcopies-required: 4\n---\n", (4, "a node")),
        "sub-01/x.json": ('{"_x-glimmer": {"numcopies-required": 5}}', (5, "a node")),
        "glimmer-store.toml": ("[classes.generated]\nnumcopies = 6\n", (6, "storage class generated")),
    }

    def asked() -> tuple[int, str]:
        with annex.Repository.open(bare) as repository:
            return floor_of(repository)

    assert asked() == (0, "")
    for number, (name, (text, floor)) in enumerate(asks.items()):
        (study / name).parent.mkdir(parents=True, exist_ok=True)
        (study / name).write_text(text)
        git(study, "add", name)
        git(study, *who, "commit", "-qm", name)
        git(study, "push", "-q", str(bare), f"HEAD:refs/heads/{'synced/' * (number % 2)}main")
        assert asked() == floor
    git(study, "push", "-q", "-f", str(bare), "git-annex")

    spec = replace(new_job(study, "drain", ["a"], retry=QUICK, heartbeat=0.5), dataset=str(bare))
    amount, ledger = await plan(spec, tmp_path / "drain")

    assert ledger is not None
    assert (amount.keys, amount.sourceless) == (1, 1)
    assert await drained(ledger) == {str(backfill.keys[0]): "too-few"}
    (one,) = explain(ledger, str(backfill.keys[0]))
    assert "6 needed: storage class generated" in explained_text(one)
    (study / "glimmer-store.toml").write_text("[classes]\ngenerated = 7\n")
    git(study, *who, "commit", "-qam", "spoilt")
    git(study, "push", "-q", str(bare), "HEAD:refs/heads/main")
    with pytest.raises(ConfigError, match="AttributeError"):
        asked()


@pytest.mark.anyio
@ASYNCIO
async def test_who_is_trusted_counts_without_a_lock_but_not_without_a_proof(tmp_path: Path, git_annex: str) -> None:
    backfill = await make_backfill(tmp_path, [(b"x", "a b")])
    subprocess.run([git_annex, "trust", "b", "--force"], cwd=backfill.dataset, check=True, capture_output=True)
    backfill.address("b", str(tmp_path / "nowhere.git"))
    _, ledger = await planned(backfill)
    assert set((await drained(ledger)).values()) == {"transient"}, "it cannot be asked, and nobody has proven it"

    await attested(backfill, backfill.keys, {"b": DAY})
    retry(ledger)
    assert set((await drained(ledger)).values()) == {"registered"}
    assert backfill.holds("a") == set()


@pytest.mark.anyio
@ASYNCIO
async def test_a_key_without_a_hash_needs_a_person(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [])
    plain = annex.Key.parse("WORM-s4-m1--plain")
    with annex.Repository.open(backfill.dataset) as dataset:
        for name in "ab":
            with annex.Repository.open(backfill.bare(name)) as repository:
                await annex.put(annex.Local(repository), plain, b"text")
            dataset.branch.set_present(plain, backfill.uuids[name], True)
        await dataset.branch.commit()
    _, ledger = await planned(backfill)
    assert await drained(ledger) == {str(plain): "terminal"}


@pytest.mark.anyio
@ASYNCIO
async def test_a_paused_drain_drops_nothing_and_a_cancelled_one_keeps_what_is_there(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"x", "a b")])
    await attested(backfill, backfill.keys, {"b": DAY})
    _, ledger = await planned(backfill)
    pause(ledger, places=["a"])
    assert (await run_worker(ledger.folder, wait=False)).dropped == 0
    resume(ledger, places=["a"])
    cancel(ledger)
    assert (await run_worker(ledger.folder, wait=False)).dropped == 0
    assert backfill.holds("a") == set(backfill.keys)


@pytest.mark.anyio
@ASYNCIO
async def test_two_drains_that_count_on_each_other_leave_one_copy_of_everything(tmp_path: Path) -> None:
    backfill = await make_backfill(tmp_path, [(b"%d" % n, "a b") for n in range(60)])
    await attested(backfill, backfill.keys, {"a": DAY, "b": DAY})
    ledgers = []
    for name in "ab":
        spec = new_job(backfill.dataset, "drain", [name], retry=QUICK, heartbeat=0.5)
        ledgers.append((await plan(spec, tmp_path / name))[1])

    async with anyio.create_task_group() as group:
        for ledger in ledgers:
            assert ledger is not None
            group.start_soon(run_worker, ledger.folder)
    for ledger in ledgers:
        await register(ledger.folder)  # type: ignore[union-attr]  # both were planned

    left = {name: backfill.holds(name) for name in "ab"}
    assert left["a"] | left["b"] == set(backfill.keys)
    assert left["a"] & left["b"] != set(backfill.keys), "and something was dropped"
    assert left == {name: backfill.recorded(name) for name in "ab"}


def test_only_one_repository_is_emptied_and_it_is_named_with_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backfill = anyio.run(make_backfill, tmp_path, [(b"x", "a b")])
    with pytest.raises(JobError, match="one repository"):
        new_job(backfill.dataset, "drain", ["a", "b"])
    here = ["backfill", "plan", "--type", "drain", "-C", str(backfill.dataset)]
    for words in (["--to", "a"], ["--from", "a", "--from", "b"], ["--to", "b", "--from", "a"], []):
        assert main([*here, *words]) == 2
        assert "--from" in capsys.readouterr().err
    assert main([*here, "--from", "a"]) == 0
    assert "proven elsewhere: 0; to be read elsewhere first, or to stay: 1" in capsys.readouterr().out


# -- kills --


async def campaign(backfill: Backfill, git_annex: str, alone: set[annex.Key], kills: int) -> int:
    """Kill workers while they drop; then let one end it. How many were killed."""
    _, ledger = await planned(backfill, heartbeat=0.1)
    argv = [sys.executable, "-m", "glimmer_store.cli.app", "backfill", "worker", "--job", str(ledger.folder)]
    choose = random.Random(6)
    happened = 0
    for mark in sorted(choose.randrange(1, len(backfill.keys) - len(alone)) for _ in range(kills)):
        worker = subprocess.Popen(argv, stdout=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + 600 + EACH * len(backfill.keys)
        while len(held(backfill, "a")) > len(backfill.keys) - mark and worker.poll() is None:
            assert time.monotonic() < deadline, "it does not get on"
            time.sleep(0.001)
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            happened += 1
        worker.wait()
        assert held(backfill, "b") == set(map(str, set(backfill.keys) - alone))

    became = Counter((await drained(ledger)).values())

    assert happened >= kills // 2
    assert became == {"registered": len(backfill.keys) - len(alone), "too-few": len(alone)}
    assert backfill.holds("a") == alone == backfill.recorded("a")
    assert found_by(git_annex, backfill, "--in", "a") == set(map(str, alone))
    assert found_by(git_annex, backfill, "--in", "b") == held(backfill, "b")
    return happened


def held(backfill: Backfill, name: str) -> set[str]:
    """What a repository has, by the names of its files."""
    with annex.Repository.open(backfill.bare(name)) as repository:
        return {str(key) for key in repository.content.keys()}  # noqa: SIM118  # it is no dict


async def killed(root: Path, git_annex: str, number: int, kills: int) -> int:
    contents = [(b"%d" % n, "a" if n % 10 == 0 else "a b") for n in range(number)]
    backfill = await make_backfill(root, contents)
    alone = {key for key, (_, having) in zip(backfill.keys, contents, strict=True) if having == "a"}
    return await campaign(backfill, git_annex, alone, kills)


@pytest.mark.interop
@pytest.mark.anyio
@ASYNCIO
async def test_a_drain_that_is_killed_loses_nothing_and_ends(tmp_path: Path, git_annex: str) -> None:
    await killed(tmp_path, git_annex, 100, kills=1)


@pytest.mark.campaign
@pytest.mark.interop
@pytest.mark.anyio
@ASYNCIO
async def test_many_keys_survive_twenty_kills(tmp_path: Path, git_annex: str, request: pytest.FixtureRequest) -> None:
    """``pytest --campaign -s tests/glimmer_store/jobs/test_drain.py -k twenty_kills``: of 10,000, or ``--keys``."""
    keys, begun = min(10_000, request.config.getoption("--keys")), time.monotonic()
    happened = await killed(tmp_path, git_annex, keys, kills=20)
    print(f"\n{keys} keys, a tenth of which must stay; {happened} kills; {time.monotonic() - begun:.0f} s")
