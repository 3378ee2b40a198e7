"""What is published about the storage fields is what is made from the field table, and says what the code says."""

from __future__ import annotations

import json
from importlib.resources import files

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annexpy import UUID
from glimmer_store.policy import StorageClass
from glimmer_store.record import Location, StorageRecord
from glimmer_store.schema import frontmatter_patch, json_schema, problems
from glimmer_store.schema.published import JSON_SCHEMA_FILE, PATCH_FILE

SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PLACE = {"remote": "vault", "uuid": "11111111-1111-4111-8111-111111111111"}


def test_the_files_beside_the_code_are_what_is_made() -> None:
    folder = files("glimmer_store.schema")
    assert json.loads(folder.joinpath(JSON_SCHEMA_FILE).read_text()) == SCHEMA
    assert folder.joinpath(PATCH_FILE).read_text() == frontmatter_patch()


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


places = st.fixed_dictionaries(
    {
        "remote": st.sampled_from(["vault", "", 1]),
        "uuid": st.sampled_from([PLACE["uuid"], "u", "", ".a", "ac345678-1234-8", 7]),
    }
)
odd = st.none() | st.booleans() | st.integers(-1, 4) | st.text(max_size=3) | st.lists(places | st.none(), max_size=3)
given_fields = {
    "stored-at": st.lists(places, max_size=3) | odd,
    "copies": st.integers(0, 3) | odd,
    "numcopies-required": st.integers(1, 3) | odd,
    "verified": st.booleans() | odd,
    "storage-class": st.sampled_from(["irreplaceable", "generated"]) | odd,
}


@given(st.fixed_dictionaries({}, optional={**given_fields, "foreign": odd}))
@settings(max_examples=150)
def test_the_schema_and_the_code_agree(fields: dict[str, object]) -> None:
    """But for the two rules that JSON Schema cannot say."""
    ours = list(problems(fields))
    stored = fields.get("stored-at")
    if isinstance(stored, list):
        uuids = [place.get("uuid") for place in stored if isinstance(place, dict)]
        if len(set(map(str, uuids))) < len(uuids) or fields.get("copies") != len(stored):
            assert VALIDATOR.is_valid(fields) >= (not ours)
            return
    assert VALIDATOR.is_valid(fields) == (not ours), ours


@pytest.mark.parametrize("storage_class", StorageClass)
@pytest.mark.parametrize("copies", range(3))
def test_what_is_written_fits_the_schema_and_reads_back(storage_class: StorageClass, copies: int) -> None:
    found = tuple(Location(f"vault{n}", UUID(f"{n}1111111-1111-4111-8111-111111111111")) for n in range(copies))
    record = StorageRecord(found, 2, copies > 0, storage_class)

    VALIDATOR.validate(record.to_fields())

    assert StorageRecord.from_fields(record.to_fields()) == record
