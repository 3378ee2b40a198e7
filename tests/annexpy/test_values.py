"""Values are dataclasses to everybody who asks, whenever they are asked."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from typing import ClassVar

import pytest

from annexpy.values import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Place:
    """A frozen one."""

    kind: ClassVar = "place"
    name: str
    cost: int = 100
    secret: str = field(default="s", repr=False)
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, order=True)
class Far(Place):
    away: int = 1


@dataclass(slots=True)
class Open:
    number: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("below zero")


def test_a_value_is_what_was_given_and_the_defaults() -> None:
    value = Place("a", tags=["x"])

    assert (value.name, value.cost, value.tags, Place.kind) == ("a", 100, ["x"], "place")
    assert repr(value) == "Place(name='a', cost=100, tags=['x'])"
    assert Place("a").tags is not Place("a").tags
    assert not hasattr(value, "__dict__")


def test_values_are_equal_when_all_of_them_is() -> None:
    assert Place("a") == Place("a")
    assert Place("a") != Place("b")
    assert Place("a") != Far("a")
    assert hash(Checked(1)) == hash(Checked(1))
    assert Far("a") < Far("b") <= Far("b") < Far("b", away=2)


def test_frozen_values_refuse_changes() -> None:
    value = Place("a")

    with pytest.raises(dataclasses.FrozenInstanceError):
        value.name = "b"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del value.name  # type: ignore[misc]
    with pytest.raises(AttributeError):
        value.other = 1  # type: ignore[attr-defined]


def test_the_others_may_change_and_have_no_hash() -> None:
    value = Open()
    value.number = 3

    assert value == Open(3)
    with pytest.raises(TypeError):
        hash(value)


def test_what_is_missing_or_too_much_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="name"):
        Place()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Open(1, 2)  # type: ignore[call-arg]


def test_the_check_after_the_beginning_runs() -> None:
    with pytest.raises(ValueError, match="below"):
        Checked(-1)


def test_copies_and_pickles_are_equal() -> None:
    value = Far("a", tags=["x"])

    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value
    assert replace(value, cost=5) == Far("a", 5, tags=["x"]) == dataclasses.replace(value, cost=5)


def test_dataclasses_finds_what_it_looks_for() -> None:
    assert [one.name for one in dataclasses.fields(Far)] == ["name", "cost", "secret", "tags", "away"]
    assert dataclasses.asdict(Open(2)) == {"number": 2}
    assert dataclasses.is_dataclass(Checked)
    assert list(inspect.signature(Far).parameters) == ["name", "cost", "secret", "tags", "away"]


def test_values_match_by_place() -> None:
    match Place("a", 7):
        case Place(name, cost):
            assert (name, cost) == ("a", 7)
        case _:
            pytest.fail("a Place")
