"""What each repository holds is counted right, whatever is committed, waiting or gone."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annexpy.keys.key import Key
from annexpy.logs.location import LocationLog
from annexpy.logs.paths import log_key
from annexpy.repo import scan
from annexpy.repo.held import HeldSizes
from annexpy.repo.repository import Repository
from annexpy.uuids import UUID

KEYS = [Key.parse(f"SHA256-s{10**n}--{n:064x}") for n in range(5)] + [Key.parse("URL--unsized")]
UUIDS = [UUID("one"), UUID("two"), UUID("three")]


def counted(repository: Repository) -> dict[UUID, int]:
    """By reading every log."""
    sizes: Counter[UUID] = Counter()
    for path, content in repository.branch.scan():
        key = log_key(path)
        if key is not None:
            sizes.update(dict.fromkeys(LocationLog.parse(content).present, key.size or 0))
    return {uuid: size for uuid, size in sizes.items() if size}


DOINGS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(KEYS), st.sampled_from(UUIDS), st.booleans()),
        st.sampled_from(["sync", "commit", "look", "journal", "again", "elsewhere"]),
    ),
    max_size=25,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(doings=DOINGS)
def test_sizes_follow_whatever_happens(doings: list[object], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("held")
    with Repository.init(path, bare=True) as repository, Repository.open(path) as other:
        held = HeldSizes(repository, fresh=0)
        for doing in doings:
            match doing:
                case (Key() as key, uuid, present):
                    repository.branch.set_present(key, uuid, present)
                case "sync":
                    repository.branch.sync_now()
                case "commit":
                    repository.branch.commit_now()
                case "elsewhere":
                    other.branch.set_present(KEYS[3], UUIDS[2], True)
                    other.branch.commit_now()
                case "journal":
                    other.branch.set_present(KEYS[4], UUIDS[1], True)
                    other.branch.sync_now()
                case "again":
                    held = HeldSizes(repository, fresh=0)
            if doing == "look":
                assert held.sizes() == counted(repository)
        assert held.sizes() == counted(repository)


def commit_keys(repository: Repository, uuid: UUID, *keys: Key) -> None:
    for key in keys:
        repository.branch.set_present(key, uuid, True)
    repository.branch.commit_now()


def test_all_logs_are_read_once_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Repository.init(tmp_path, bare=True) as repository:
        commit_keys(repository, UUIDS[0], *KEYS)
        held = HeldSizes(repository, fresh=0)
        assert held.sizes() == {UUIDS[0]: 11_111}
        monkeypatch.setattr(scan, "read_all", None)

        commit_keys(repository, UUIDS[1], KEYS[2])

        assert held.sizes() == {UUIDS[0]: 11_111, UUIDS[1]: 100}
        assert HeldSizes(repository).sizes() == {UUIDS[0]: 11_111, UUIDS[1]: 100}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"tip": 5, "sizes": {}}', b'{"tip": "00", "sizes": {"one": 1}}']
)
def test_a_file_that_is_no_good_costs_one_reading(tmp_path: Path, content: bytes) -> None:
    with Repository.init(tmp_path, bare=True) as repository:
        commit_keys(repository, UUIDS[0], *KEYS)
        HeldSizes(repository).sizes()
        (tmp_path / "annex/annexpy/sizes").write_bytes(content)

        assert HeldSizes(repository).sizes() == {UUIDS[0]: 11_111}
        assert json.loads((tmp_path / "annex/annexpy/sizes").read_bytes())["sizes"] == {"one": 11_111}


def test_a_log_that_is_gone_counts_no_more(tmp_path: Path) -> None:
    with Repository.init(tmp_path, bare=True) as repository:
        tip = repository.branch.tip
        commit_keys(repository, UUIDS[0], *KEYS)
        held = HeldSizes(repository, fresh=0)
        assert held.sizes() == {UUIDS[0]: 11_111}
        assert tip is not None

        (tmp_path / "refs/heads/git-annex").write_text(f"{tip}\n")  # as after git annex forget

        assert held.sizes() == {}


def test_what_arrives_counts_at_once(tmp_path: Path) -> None:
    with Repository.init(tmp_path, bare=True) as repository:
        held = HeldSizes(repository)
        with held.arriving(UUIDS[0], KEYS[2]):
            assert held.sizes() == {UUIDS[0]: 100}
            repository.branch.set_present(KEYS[2], UUIDS[0], True)

        assert held.sizes() == {UUIDS[0]: 100}
        assert HeldSizes(repository).sizes() == {UUIDS[0]: 100}


def test_what_did_not_arrive_does_not_count(tmp_path: Path) -> None:
    with Repository.init(tmp_path, bare=True) as repository:
        held = HeldSizes(repository, fresh=0)

        def arrive() -> None:
            with held.arriving(UUIDS[0], KEYS[2]):
                assert held.sizes() == {UUIDS[0]: 100}
                raise ConnectionResetError

        with pytest.raises(ConnectionResetError):
            arrive()

        assert held.sizes() == {}


def test_between_two_looks_nothing_is_read(tmp_path: Path) -> None:
    with Repository.init(tmp_path, bare=True) as repository:
        held = HeldSizes(repository, fresh=3600)
        assert held.sizes() == {}
        commit_keys(repository, UUIDS[0], *KEYS)
        assert held.sizes() == {}
