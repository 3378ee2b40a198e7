"""Expected, stored and observed are told apart, and nothing is deleted on the strength of a claim."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from manifests import Study

import annexpy as annex
from glimmer_store.cli.commands.inspect import command
from glimmer_store.graph import GlimmerGraph
from glimmer_store.manifest.archiving import archive_manifest, chosen
from glimmer_store.manifest.deleting import Deleted, delete_at, delete_here
from glimmer_store.manifest.errors import ManifestError
from glimmer_store.manifest.inspecting import Inspection, Row, age
from glimmer_store.manifest.observing import Observations
from glimmer_store.manifest.standing import Observed, Policy, Standing, standing
from glimmer_store.record import StorageRecord
from glimmer_store.sidecar import Sidecar

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 11, 21, tzinfo=UTC)


async def archived(study: Study, *names: str, numcopies: int | None = 2) -> None:
    project = study.project
    async with GlimmerGraph.open(study.root, numcopies=numcopies) as graph:
        async for one in archive_manifest(graph, project, chosen(project, names, cached=not names)):
            assert one.status != "failed", one.reason


async def rows(study: Study, *names: str, now: datetime | None = None) -> dict[str, Row]:
    async with GlimmerGraph.open(study.root, numcopies=2) as graph:
        found = Inspection(graph, study.project, now=now).rows(names)
        return {row.declared.name.partition("/")[0]: row for row in found}


async def dropped(study: Study, name: str, remote: str, *, now: datetime | None = None) -> Deleted:
    async with GlimmerGraph.open(study.root, numcopies=2) as graph:
        inspection = Inspection(graph, study.project, now=now)
        (row,) = inspection.rows((name,))
        return await delete_at(inspection, row, remote)


# -- the three values --

A, B = "sha256:aa", "sha256:bb"


@pytest.mark.parametrize(
    ("expected", "stored", "observed", "stale", "said"),
    [
        ((A,), (A,), A, False, Standing.MATCH),
        ((), (A,), A, False, Standing.MATCH),
        ((A,), (A,), B, False, Standing.MODIFIED),
        ((B,), (A,), A, False, Standing.DRIFT),
        (("md5:x",), (A, "md5:x"), A, False, Standing.MATCH),
        ((A,), (A,), None, False, Standing.UNVERIFIED),
        ((A,), (A,), A, True, Standing.STALE),
        ((A,), (A,), "", False, Standing.MISSING),
    ],
)
def test_what_three_values_say(
    expected: tuple[str, ...], stored: tuple[str, ...], observed: str | None, stale: bool, said: Standing
) -> None:
    seen = None if observed is None else Observed(observed, NOW)
    assert standing(expected, stored, seen, stale=stale) is said


@given(st.integers(0, 400), st.sampled_from(["irreplaceable", "generated"]), st.text(max_size=8))
def test_what_is_stale_is_always_due(days: int, storage_class: str, name: str) -> None:
    policy, seen = Policy(sample=0.0), Observed(A, NOW - timedelta(days=days))
    limit = 90 if storage_class == "irreplaceable" else 365
    assert policy.due(name, seen, storage_class, NOW) is (days > limit)
    assert policy.due(name, None, storage_class, NOW)
    assert replace(policy, sample=1.0).due(name, seen, storage_class, NOW)


def test_what_was_seen_in_the_far_future_is_stale() -> None:
    assert not Policy().stale(Observed(A, NOW + timedelta(minutes=4)), "generated", NOW)
    assert Policy().stale(Observed(A, NOW + timedelta(minutes=6)), "generated", NOW)


def test_the_sample_touches_every_place_in_time() -> None:
    policy = Policy({"irreplaceable": timedelta(days=300)}, sample=0.05)
    seen = Observed(A, NOW)
    drawn = {
        name
        for day in range(200)
        for name in map(str, range(40))
        if policy.due(name, seen, "irreplaceable", NOW + timedelta(days=day))
    }
    assert len(drawn) == 40


def test_an_age_is_a_number_with_a_unit() -> None:
    assert age("90d") == timedelta(days=90)
    assert age("12h") == timedelta(hours=12)
    for wrong in ("", "d", "9", "-1d", "1y"):
        with pytest.raises(ValueError, match="a number with"):
            age(wrong)


# -- what there is --


async def test_copies_and_proofs_are_shown_beside_what_is_here(study: Study) -> None:
    study.download("co2", "mask")
    study.produce()
    await archived(study)

    found = await rows(study)

    assert {name: row.standing for name, row in found.items()} == dict.fromkeys(
        ("co2", "mask", "anomaly"), Standing.MATCH
    )
    assert found["co2"].verified == found["co2"].copies == ("vault1", "vault2", "vault3")
    assert (found["mask"].apparent, found["mask"].exclusive) == (200, 200)
    assert found["co2"].to_json()["node"] == found["co2"].node != ""


async def test_bytes_that_two_share_are_exclusive_to_none(study: Study) -> None:
    (study.sources / "mask" / "curve.csv").write_bytes((study.sources / "co2.csv").read_bytes())
    study.download("co2", "mask")
    await archived(study, "co2", "mask")
    found = await rows(study)
    assert (found["mask"].apparent, found["mask"].exclusive) == (218, 200)
    assert (found["co2"].apparent, found["co2"].exclusive) == (18, 0)


async def test_a_changed_file_is_measured_again_and_told(study: Study) -> None:
    """E1 and E9: the library's list stays clean, and its verify does not look at artefacts at all."""
    (path,) = study.download("co2")
    artefact = study.produce()
    await archived(study)
    path.write_bytes(b"year,ppm\n2020,999\n")
    (artefact / "data.json").write_text('{"grid": "5x5", "value": 7}')

    assert {row.standing for row in (await rows(study, "co2", "anomaly/v1")).values()} == {Standing.UNVERIFIED}
    for place in (path, artefact):
        await Observations(study.root).measure(place)
    assert {row.standing for row in (await rows(study, "co2", "anomaly/v1")).values()} == {Standing.MODIFIED}


async def test_a_source_that_changed_is_drift_and_no_damage(study: Study) -> None:
    study.download("co2")
    await archived(study, "co2")
    text = study.manifest.read_text()
    study.manifest.write_text(text.replace("sha256:46a3a7ed", "sha256:00000000"))
    assert (await rows(study, "co2"))["co2"].standing is Standing.DRIFT


async def test_proofs_grow_old(study: Study) -> None:
    study.download("co2")
    await archived(study, "co2")
    row = (await rows(study, "co2", now=datetime.now(UTC) + timedelta(days=91)))["co2"]
    assert (row.verified, row.standing) == ((), Standing.STALE)
    assert row.copies == ("vault1", "vault2", "vault3")  # that it is claimed, the log says for ever


async def test_what_only_the_archive_has_is_shown(study: Study) -> None:
    artefact = study.produce()
    await archived(study)
    (artefact / ".complete").unlink()
    row = (await rows(study))["anomaly"]
    assert row.declared.name == f"anomaly/v1/{artefact.name}"
    assert len(row.verified) == 3


# -- deletion --


def objects(study: Study, number: int) -> list[Path]:
    return [path for path in (study.bare(number) / "annex/objects").rglob("*--*") if path.is_file()]


async def test_a_copy_goes_only_while_enough_verified_ones_stay(study: Study) -> None:
    study.download("mask")
    await archived(study, "mask")

    done = await dropped(study, "mask", "vault1")

    assert len(done.keys) == 4
    assert objects(study, 1) == []
    row = (await rows(study, "mask"))["mask"]
    assert row.verified == row.copies == ("vault2", "vault3")
    (file,) = (study.root / "rokb").rglob("dataset-mask-*.md")
    record = StorageRecord.from_fields(Sidecar.read(file).fields)
    assert record is not None
    assert [place.remote for place in record.stored_at] == ["vault2", "vault3"]
    with pytest.raises(annex.NotEnoughCopies, match="1 copy verified, 2 needed"):
        await dropped(study, "mask", "vault2")
    assert len(objects(study, 2)) == 4


async def test_a_claimed_copy_does_not_count(study: Study) -> None:
    """The location log has three; one proof is bad, so one of the two good ones may not go."""
    study.download("co2")
    await archived(study, "co2")
    key = annex.Key.parse(objects(study, 3)[0].name)
    async with GlimmerGraph.open(study.root) as graph:
        (place,) = [place for place, _ in graph.archive.remotes if place.name == "vault3"]
        objects(study, 3)[0].chmod(0o644)
        objects(study, 3)[0].write_bytes(b"?" * 18)
        await graph.rewrite("verified", {}, await graph.archive.prove({place: [key]}))
    row = (await rows(study, "co2"))["co2"]
    assert (len(row.copies), row.verified) == (3, ("vault1", "vault2"))

    with pytest.raises(annex.NotEnoughCopies, match="vault3"):
        await dropped(study, "co2", "vault1")


async def test_old_proofs_do_not_count_for_a_deletion(study: Study) -> None:
    study.download("co2")
    await archived(study, "co2")
    with pytest.raises(annex.NotEnoughCopies, match="no good proof that is new enough"):
        await dropped(study, "co2", "vault1", now=datetime.now(UTC) + timedelta(days=91))


async def test_a_copy_that_is_verified_and_gone_since_is_noticed(study: Study) -> None:
    """A fresh proof is not enough either: the drop looks, and locks."""
    study.download("co2")
    await archived(study, "co2")
    found = objects(study, 3)[0]
    found.parent.chmod(0o755)
    found.unlink()
    with pytest.raises(annex.NotEnoughCopies):
        await dropped(study, "co2", "vault1")
    assert len(objects(study, 1)) == 1


async def test_contents_that_something_else_has_too_stay(study: Study) -> None:
    (study.sources / "mask" / "curve.csv").write_bytes((study.sources / "co2.csv").read_bytes())
    study.download("co2", "mask")
    await archived(study, "co2", "mask")
    done = await dropped(study, "mask", "vault1")
    assert [str(key) for key in done.shared] == [path.name for path in objects(study, 1)]
    assert (await rows(study, "co2"))["co2"].verified == ("vault1", "vault2", "vault3")


async def test_what_is_here_goes_only_when_the_archive_has_it(study: Study) -> None:
    (path, _) = study.download("co2", "mask")
    await archived(study, "co2")
    async with GlimmerGraph.open(study.root, numcopies=2) as graph:
        inspection = Inspection(graph, study.project)
        co2, mask = inspection.rows(("co2", "mask"))
        await delete_here(inspection, co2)
        with pytest.raises(ManifestError, match="never archived"):
            await delete_here(inspection, mask)
        with pytest.raises(ManifestError, match="not at its own place"):
            await delete_here(inspection, inspection.row(study.project.find("co2")))
    assert not path.exists()
    assert study.project.recorded(study.project.find("co2")) == ""


async def test_what_is_here_stays_when_the_archive_does_not_have_it_any_more(study: Study) -> None:
    """Whoever dropped it there has signed nothing."""
    (path,) = study.download("co2")
    await archived(study, "co2")
    for number in (1, 2):
        (found,) = objects(study, number)
        found.parent.chmod(0o755)
        found.unlink()
    async with GlimmerGraph.open(study.root, numcopies=2) as graph:
        inspection = Inspection(graph, study.project)
        (co2,) = inspection.rows(("co2",))
        with pytest.raises(annex.NotEnoughCopies, match="not there any more"):
            await delete_here(inspection, co2)
    assert path.exists()


async def test_copies_in_untrusted_repositories_do_not_count_for_a_deletion(study: Study) -> None:
    (path,) = study.download("co2")
    await archived(study, "co2")
    async with GlimmerGraph.open(study.root, numcopies=3) as graph:
        repository = graph.archive.repository
        place = graph.archive.remotes[1][0]
        repository.config.set(f"remote.{place.name}.annex-uuid", str(place.uuid))
        repository.config.set(f"remote.{place.name}.annex-trustlevel", "untrusted")
        inspection = Inspection(graph, study.project)
        (co2,) = inspection.rows(("co2",))
        with pytest.raises(annex.NotEnoughCopies, match="untrusted"):
            await delete_here(inspection, co2)
    with pytest.raises(annex.NotEnoughCopies, match="untrusted"):
        await dropped(study, "co2", "vault1")
    assert path.exists()
    assert len(objects(study, 1)) == 1


def test_the_command_tells_all_of_it_in_one_line_of_json(study: Study) -> None:
    study.download("co2")
    result = CliRunner().invoke(command, ["-C", str(study.root), "--json", "--only-here"], standalone_mode=False)
    assert result.exception is None, result.output
    (line,) = result.output.splitlines()
    assert {"expected", "stored", "observed", "verified-copies", "exclusive-size"} <= set(json.loads(line))
