"""Proofs are signed, the newest counts, and anybody can check them without us."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import annexpy as annex
from glimmer_store.attest import FOLDER, Attestation, Attestations, Signer, Verdict, fold, log_path
from glimmer_store.entry import union
from glimmer_store.errors import ConfigError

KEY = annex.Key.parse("SHA256E-s3--ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.txt")
START = datetime(2026, 11, 21, tzinfo=UTC)
CHECKER = Path(__file__).parents[2] / "examples" / "check_receipt.py"


@pytest.fixture
def signer() -> Signer:
    return Signer.of_user()


@pytest.fixture
def enter(tmp_path: Path, signer: Signer) -> Callable[..., None]:
    """Put attestations into a dataset's folder."""

    def put(*attestations: Attestation) -> None:
        for part in signer.parts(attestations):
            path = tmp_path / part.path.decode()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(part.change(path.read_bytes() if path.exists() else None))

    return put


def proof(signer: Signer, verdict: Verdict, seconds: float, uuid: str = "u1") -> Attestation:
    return signer.attest(KEY, uuid, "vault1", verdict, "reread", when=START + timedelta(seconds=seconds))


def test_the_key_is_the_user_s_alone_and_stays(store_home: Path, signer: Signer) -> None:
    assert (store_home / "ed25519.pem").stat().st_mode & 0o777 == 0o600
    assert Signer.of_user().name == signer.name

    (store_home / "ed25519.pem").chmod(0o644)
    with pytest.raises(ConfigError, match="others may read"):
        Signer.of_user()


def test_what_is_written_reads_back_and_is_valid(tmp_path: Path, signer: Signer, enter: Callable[..., None]) -> None:
    good = proof(signer, Verdict.GOOD, 0)
    enter(good)

    assert Attestation.from_line(good.to_line()) == good
    assert Attestations(tmp_path).newest(KEY) == {"u1": good}
    assert (good.size, good.method, good.time) == (3, "reread", "2026-11-21T00:00:00.000000Z")


def test_a_failed_verification_voids_the_proof_before_it(
    tmp_path: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    enter(proof(signer, Verdict.GOOD, 0), proof(signer, Verdict.BAD, 1), proof(signer, Verdict.GOOD, 0, "u2"))

    newest = Attestations(tmp_path).newest(KEY)

    assert {uuid: one.verdict for uuid, one in newest.items()} == {"u1": Verdict.BAD, "u2": Verdict.GOOD}


@pytest.mark.parametrize("field", ["key", "uuid", "remote", "time", "host", "method", "verdict", "size"])
def test_no_field_can_be_changed(tmp_path: Path, signer: Signer, enter: Callable[..., None], field: str) -> None:
    bad = proof(signer, Verdict.BAD, 0)
    changed: dict[str, object] = {"verdict": Verdict.GOOD, "size": 4}
    forged = replace(bad, **{field: changed.get(field, str(getattr(bad, field)) + "x")})  # type: ignore[arg-type]
    enter(proof(signer, Verdict.GOOD, 0))

    assert Attestations(tmp_path).valid(bad)
    assert not Attestations(tmp_path).valid(forged)


def test_a_signer_that_the_dataset_does_not_know_counts_for_nothing(
    tmp_path: Path, signer: Signer, enter: Callable[..., None]
) -> None:
    enter(proof(signer, Verdict.BAD, 0))
    for pem in (tmp_path / FOLDER / "keys").iterdir():
        pem.unlink()

    assert Attestations(tmp_path).newest(KEY) == {}


times = st.integers(0, 3)
proofs = st.lists(
    st.builds(
        lambda uuid, at, verdict: Attestation("k", uuid, "r", 1, "reread", f"t{at}", "h", verdict, "s", "x"),
        st.sampled_from(["u1", "u2"]),
        times,
        st.sampled_from(Verdict),
    ),
    max_size=8,
)


@given(proofs, proofs)
def test_what_counts_does_not_depend_on_the_order_of_merging(one: list[Attestation], other: list[Attestation]) -> None:
    def log(some: list[Attestation]) -> bytes:
        return b"".join(each.to_line() for each in some)

    merged = union(log(one), log(other))

    assert merged == union(log(other), log(one)) == union(merged, log(one))
    back = [each for each in map(Attestation.from_line, merged.splitlines()) if each is not None]
    assert fold(back) == fold([*one, *other])


@given(
    st.binary(max_size=80)
    | st.recursive(
        st.none() | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.sampled_from(["v", "key", "uuid", "size", "sig"]), v),
    ).map(lambda v: repr(v).replace("'", '"').encode())
)
def test_a_line_that_is_no_attestation_is_none(line: bytes) -> None:
    assert Attestation.from_line(line) is None


def checked(*words: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, CHECKER, *words], capture_output=True, text=True, check=False, timeout=60)


def test_a_receipt_is_checked_without_us(tmp_path: Path, signer: Signer, enter: Callable[..., None]) -> None:
    enter(proof(signer, Verdict.GOOD, 0), proof(signer, Verdict.GOOD, 1))
    log, pem = tmp_path / log_path(str(KEY)).decode(), tmp_path / FOLDER / "keys" / f"{signer.name}.pem"

    good = checked(log, pem)
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith(f"good     vault1 (u1)  {KEY}  reread, 2026-11-21T00:00:01.000000Z, from ")

    whole = log.read_bytes()
    log.write_bytes(whole.replace(b'"size":3', b'"size":4'))
    forged = checked(log, pem)
    assert forged.returncode == 1
    assert "the signature is not good" in forged.stderr

    log.write_bytes(whole)
    enter(proof(signer, Verdict.MISSING, 2))
    gone = checked(log, pem)
    assert gone.returncode == 1
    assert gone.stdout.startswith("missing  vault1")
    assert "glimmer_store" not in CHECKER.read_text().replace("without glimmer_store", "")
