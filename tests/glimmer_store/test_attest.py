"""Proofs are signed, the newest counts, and anybody can check them without us."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

import annexpy as annex
from glimmer_store.attest import FOLDER, Attestation, Attestations, Signer, Verdict, log_parts, reader
from glimmer_store.entry import union
from glimmer_store.errors import ConfigError
from glimmer_store.receipts import Receipts, fold, partition

KEY = annex.Key.parse("SHA256E-s3--ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.txt")
START = datetime(2026, 11, 21, tzinfo=UTC)
CHECKER = Path(__file__).parents[2] / "examples" / "check_receipt.py"


@pytest.fixture
def signer() -> Signer:
    return Signer.of_user()


@pytest.fixture
def enter(tmp_path: Path, signer: Signer) -> Callable[..., None]:
    """Put attestations into a dataset's folder."""

    def put(*attestations: Attestation, root: Path = tmp_path) -> None:
        for part in signer.parts(attestations, reader(root)):
            path = root / part.path.decode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(part.change(path.read_bytes() if path.exists() else None))

    return put


def proof(
    signer: Signer, verdict: Verdict, seconds: float, uuid: str = "u1", key: annex.Key = KEY, remote: str = "vault1"
) -> Attestation:
    return signer.attest(key, uuid, remote, verdict, "reread", when=START + timedelta(seconds=seconds))


def key(number: int) -> annex.Key:
    return annex.Key.parse(f"SHA256E-s3--{number:064x}.txt")


def logs(root: Path) -> list[Path]:
    return sorted((root / FOLDER / "attestations").rglob("*.log"))


def old_line(store_home: Path, signer: Signer, verdict: str, seconds: int) -> bytes:
    """A line of version 1, as it used to be written."""
    time = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    fields = {"v": 1, "key": str(KEY), "uuid": "u1", "remote": "vault1", "size": 3, "method": "reread", "time": time,
              "host": "h", "verdict": verdict, "signer": signer.name}  # fmt: skip
    private = load_pem_private_key((store_home / "ed25519.pem").read_bytes(), None)
    signed = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    sig = private.sign(b"glimmer-store attestation 1\n" + signed)  # type: ignore[union-attr, call-arg]
    return json.dumps(fields | {"sig": base64.b64encode(sig).decode()}).encode() + b"\n"


def test_the_key_is_the_user_s_alone_and_stays(store_home: Path, signer: Signer) -> None:
    assert (store_home / "ed25519.pem").stat().st_mode & 0o777 == 0o600
    assert Signer.of_user().name == signer.name

    (store_home / "ed25519.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        Signer.of_user()


def test_what_is_written_reads_back_and_is_valid(tmp_path: Path, signer: Signer, enter: Callable[..., None]) -> None:
    good = proof(signer, Verdict.GOOD, 0)
    enter(good)

    assert Attestations(tmp_path).newest(KEY) == {"u1": good}
    assert (good.method, good.time) == ("reread", "2026-11-21T00:00:00.000000Z")


def test_a_failed_verification_voids_the_proof_before_it(
    tmp_path: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    enter(proof(signer, Verdict.GOOD, 0), proof(signer, Verdict.BAD, 1), proof(signer, Verdict.GOOD, 0, "u2"))

    newest = Attestations(tmp_path).newest(KEY)

    assert {uuid: one.verdict for uuid, one in newest.items()} == {"u1": Verdict.BAD, "u2": Verdict.GOOD}


@pytest.mark.parametrize("what", ["host", "time", "signer", "ways", "of", "path"])
def test_no_field_can_be_changed(tmp_path: Path, signer: Signer, enter: Callable[..., None], what: str) -> None:
    keys = [each for each in map(key, range(600)) if partition(str(each)) in ("00", "01")]
    enter(*(proof(signer, Verdict.BAD, n, key=each) for n, each in enumerate(keys)))
    line = logs(tmp_path)[0].read_bytes()
    whole = Receipts.from_line(line)
    assert whole is not None
    assert len(whole.attestations) > 1
    assert whole.path
    assert Attestations(tmp_path).valid(whole)
    fields = json.loads(line)
    changes: dict[str, object] = {
        "host": "elsewhere", "time": "2026-11-22T00:00:00.000000Z", "signer": "x",
        "ways": [["u1", "vault1", "reread", "good"]], "of": fields["of"][::-1], "path": [],
    }  # fmt: skip
    for changed in ({what: changes[what]}, {"of": fields["of"][:-1]}, {"of": [*fields["of"], [0, 1, str(KEY)]]}):
        forged = Receipts.from_line(json.dumps(fields | changed).encode())
        assert forged is not None
        assert not Attestations(tmp_path).valid(forged)


def test_a_signer_that_the_dataset_does_not_know_counts_for_nothing(
    tmp_path: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    enter(proof(signer, Verdict.BAD, 0))
    for pem in (tmp_path / FOLDER / "keys").iterdir():
        pem.unlink()

    assert Attestations(tmp_path).newest(KEY) == {}


proofs = st.lists(
    st.builds(
        lambda key, uuid, at, verdict: Attestation(
            key, uuid, "r", "reread", f"2026-11-21T00:00:00.00000{at}Z", "h", verdict, "s"
        ),
        st.sampled_from(["k", "k2", "ü\udcff"]),
        st.sampled_from(["u1", "u2"]),
        st.integers(0, 3),
        st.sampled_from(Verdict),
    ),
    max_size=8,
)


@given(proofs, proofs)
def test_what_counts_does_not_depend_on_the_order_of_merging(one: list[Attestation], other: list[Attestation]) -> None:
    def log(some: list[Attestation]) -> bytes:
        return Receipts.make(some, [], b"", b"").line if some else b""

    merged = union(log(one), log(other))

    assert merged == union(log(other), log(one)) == union(merged, log(one))
    back = [each for each in map(Receipts.from_line, merged.splitlines(keepends=True)) if each is not None]
    assert fold(each for some in back for each in some.attestations) == fold([*one, *other])


@given(proofs.filter(bool))
def test_what_is_hashed_is_the_json_that_is_documented(some: list[Attestation]) -> None:
    for one in some:
        fields = {"v": 2, "verdict": one.verdict.value}
        fields |= {name: getattr(one, name) for name in ("key", "uuid", "remote", "method", "time", "host", "signer")}
        assert one.to_bytes() == json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.text() | st.integers(),
        lambda v: st.lists(v) | st.dictionaries(st.sampled_from(["v", "key", "uuid", "of", "ways", "path", "sig"]), v),
    ).map(lambda v: json.dumps(v).encode())
    | st.fixed_dictionaries(
        {"v": st.sampled_from([1, 2]), "sig": st.just(""), "time": st.sampled_from(["2026-11-21T00:00:00", "x", 3]),
         "of": st.lists(st.lists(st.integers() | st.text(), max_size=4)), "ways": st.lists(st.lists(st.text())),
         "path": st.lists(st.text() | st.integers(), min_size=1), "host": st.text(), "signer": st.text()},
    ).map(lambda v: json.dumps(v).encode())
)  # fmt: skip
def test_a_line_that_is_no_attestation_is_none(line: bytes) -> None:
    assert Receipts.from_line(line) is None


# -- the log --


def test_many_keys_take_one_signature_and_few_files(tmp_path: Path, signer: Signer, enter: Callable[..., None]) -> None:
    keys = [key(number) for number in range(3000)]
    enter(*(proof(signer, Verdict.GOOD, n, key=each) for n, each in enumerate(keys)))

    assert len(logs(tmp_path)) == 256
    lines = [Receipts.from_line(file.read_bytes()) for file in logs(tmp_path)]
    assert len({one.sig for one in lines if one is not None}) == 1
    assert sum(file.stat().st_size for file in logs(tmp_path)) / 3000 < 160
    known = Attestations(tmp_path)
    assert all(set(known.newest(each)) == {"u1"} for each in keys)
    assert known.newest_many(keys) == {each: known.newest(each) for each in keys}


def test_a_file_that_is_full_is_left_alone_and_the_next_begins(
    tmp_path: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    for number in range(60):
        enter(proof(signer, Verdict.GOOD, number))
        if len(logs(tmp_path)) == 2:
            break
    first, second = logs(tmp_path)
    assert first.name == "0001.log"
    assert 16 << 10 <= first.stat().st_size < 18 << 10
    was = first.read_bytes()
    enter(proof(signer, Verdict.BAD, 100))
    assert first.read_bytes() == was
    assert second.stat().st_size < 2000
    assert Attestations(tmp_path).newest(KEY)["u1"].verdict is Verdict.BAD


def test_what_is_in_the_log_is_not_entered_again(tmp_path: Path, signer: Signer) -> None:
    receipts = signer.sign([proof(signer, Verdict.GOOD, 0)])
    read = reader(tmp_path)
    for part in log_parts(receipts, {signer.name: signer.public}, read):
        (tmp_path / part.path.decode()).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / part.path.decode()).write_bytes(part.change(None))
    assert log_parts(receipts, {signer.name: signer.public}, read) == []


def test_memory_does_not_grow_with_the_keys_that_are_looked_up(
    tmp_path: Path, signer: Signer, enter: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = sorted((key(number) for number in range(2000)), key=lambda each: partition(str(each)))
    enter(*(proof(signer, Verdict.GOOD, 0, key=each) for each in keys))
    monkeypatch.setattr("glimmer_store.attest._HELD", 50)
    known = Attestations(tmp_path)
    for each in keys:
        assert known.newest(each)["u1"].key == str(each)
        assert sum(map(len, known._parts.values())) < 100


def test_logs_of_before_are_read_and_count_with_the_new_ones(
    tmp_path: Path, store_home: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    enter(proof(signer, Verdict.GOOD, 5, "u2"))
    old = tmp_path / FOLDER / "attestations" / hashlib.sha256(str(KEY).encode()).hexdigest()[:2] / f"{KEY}.log"
    old.parent.mkdir()
    old.write_bytes(old_line(store_home, signer, "good", 0) + old_line(store_home, signer, "bad", 3))

    found = Attestations(tmp_path).newest(KEY)
    assert {uuid: one.verdict.value for uuid, one in found.items()} == {"u1": "bad", "u2": "good"}
    enter(proof(signer, Verdict.GOOD, 6))
    assert Attestations(tmp_path).newest(KEY)["u1"].verdict is Verdict.GOOD
    old.write_bytes(old_line(store_home, signer, "bad", 7).replace(b'"bad"', b'"good"'))
    assert Attestations(tmp_path).newest(KEY)["u1"].time == "2026-11-21T00:00:06.000000Z", "forged: it does not count"


def git(root: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    return subprocess.run(["git", "-C", root, *who, *words], capture_output=True, text=True, check=True).stdout


def test_two_clones_that_both_verified_merge_with_stock_git(
    tmp_path: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    git(tmp_path, "init", "-q", "-b", "main", str(ours))
    keys = [key(number) for number in range(30)]
    enter(*(proof(signer, Verdict.GOOD, n, key=each) for n, each in enumerate(keys)), root=ours)
    git(ours, "add", ".")
    git(ours, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", str(ours), str(theirs))
    new = key(1000)
    for root, uuid in ((ours, "u1"), (theirs, "u2")):
        for repeated in range(2):
            some = [proof(signer, Verdict.BAD, 1000 + n + repeated, uuid, each) for n, each in enumerate([*keys, new])]
            enter(*some, root=root)
            git(root, "add", ".")
            git(root, "commit", "-qm", uuid)
    git(ours, "pull", "-q", "--no-rebase", "--no-edit", str(theirs), "main")

    merged = Attestations(ours)
    assert git(ours, "status", "--porcelain") == ""
    for each in (*keys, new):
        assert {uuid: one.verdict for uuid, one in merged.newest(each).items()} == {
            "u1": Verdict.BAD,
            "u2": Verdict.BAD,
        }


# -- receipts --


def checked(*words: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CHECKER, *words], capture_output=True, text=True, check=False, timeout=60)


def test_a_receipt_of_one_key_is_checked_without_us(
    tmp_path: Path, store_home: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    others = [proof(signer, Verdict.GOOD, n, key=key(n)) for n in range(700)]
    enter(proof(signer, Verdict.GOOD, 0), *others, proof(signer, Verdict.GOOD, 1), proof(signer, Verdict.GOOD, 1, "u2"))
    pem = tmp_path / FOLDER / "keys" / f"{signer.name}.pem"
    log = tmp_path / "receipt.log"
    log.write_bytes(b"".join(Attestations(tmp_path).receipts(KEY)))
    assert len(log.read_bytes().splitlines()) == 2
    assert str(others[0].key) not in log.read_text(), "a receipt tells of one key"

    good = checked(log, pem)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith(f"good     vault1 (u1)  {KEY}  reread, 2026-11-21T00:00:01.000000Z, from ")
    assert good.stdout.count("\n") == 2

    whole = log.read_bytes()
    for was, is_ in (
        (b"s3--", b"s4--"),
        (b'"path":["', b'"path":["x'),
        (b'"u2"', b'"u1"'),
        (b'"path":[', b'"path":[">",'),
    ):
        log.write_bytes(whole.replace(was, is_))
        assert log.read_bytes() != whole
        forged = checked(log, pem)
        assert forged.returncode == 1
        assert "the signature is not good" in forged.stderr or "no receipt" in forged.stderr
    assert "glimmer_store" not in CHECKER.read_text().replace("without glimmer_store", "")


def test_whole_logs_are_checked_without_us_also_those_of_before(
    tmp_path: Path, store_home: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    enter(*(proof(signer, Verdict.GOOD, n, key=key(n)) for n in range(300)), proof(signer, Verdict.GOOD, 1))
    pem = tmp_path / FOLDER / "keys" / f"{signer.name}.pem"
    whole = tmp_path / "whole.log"
    whole.write_bytes(b"".join(file.read_bytes() for file in logs(tmp_path)) + old_line(store_home, signer, "good", 0))
    good = checked(whole, pem)
    assert (good.returncode, good.stderr, good.stdout.count("good ")) == (0, "", 301)

    whole.write_bytes(whole.read_bytes() + old_line(store_home, signer, "missing", 2))
    gone = checked(whole, pem)
    assert gone.returncode == 1
    assert f"missing  vault1 (u1)  {KEY}" in gone.stdout
