from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from medseg.errors import ConfigError
from medseg.settings import Settings, parse


class Part(Settings):
    kind: Literal["linear", "spline"] = "linear"
    share: float = Field(default=0.5, ge=0, lt=1)


class Whole(Settings):
    name: str
    steps: int = 3
    on: bool = False
    size: tuple[int, int, int] = (1, 2, 3)
    part: Part = Part()
    parts: tuple[Part, ...] = (Part(),)
    odd: Annotated[int, Field(ge=1)] = 1
    some: Annotated[tuple[int, ...], Field(min_length=1)] = (1,)
    each: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] = 1

    @field_validator("odd")
    @classmethod
    def _odd(cls, odd: int) -> int:
        if odd % 2 == 0:
            raise ValueError(f"must be odd; got {odd}")
        return odd


def test_values_come_in_as_written_in_yaml() -> None:
    made = parse(Whole, {"name": "a", "size": [4, 5, 6], "part": {"share": 0}, "parts": [{"kind": "spline"}, {}]})
    assert made.size == (4, 5, 6)
    assert made.parts == (Part(kind="spline"), Part())
    assert made.part == Part(share=0.0)


def test_a_value_is_frozen_and_can_be_shared() -> None:
    made = Whole(name="a")
    with pytest.raises(ValidationError):
        made.steps = 4
    assert hash(made) == hash(Whole(name="a"))
    assert made == Whole(name="a")


def test_nothing_changes_on_the_way_through_json() -> None:
    made = Whole(name="a", size=(7, 8, 9), parts=(Part(kind="spline", share=0.25),))
    assert parse(Whole, made.model_dump(mode="json")) == made


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stepz": 4}, "stepz: unknown option. Did you mean 'steps'?"),
        ({"part": {"shared": 1}}, "part.shared: unknown option. Did you mean 'share'?"),
        ({"parts": [{}, {"zzz": 1}]}, "parts.1.zzz: unknown option. Known: kind, share."),
        ({"steps": "many"}, "steps: expected a whole number, got 'many'"),
        ({"steps": 1.5}, "steps: expected a whole number, got 1.5"),
        ({"on": "perhaps"}, "on: expected true or false, got 'perhaps'"),
        ({"name": 3}, "name: expected a text, got 3"),
        ({"part": 3}, "part: expected names and values, got 3"),
        ({"part": {"kind": "cubic"}}, "part.kind: expected 'linear' or 'spline', got 'cubic'"),
        ({"part": {"share": 1}}, "part.share: expected a number less than 1, got 1"),
        ({"part": {"share": -1}}, "part.share: expected a number greater than or equal to 0, got -1"),
        ({"part": {"share": "x"}}, "part.share: expected a number, got 'x'"),
        ({"size": 3}, "size: expected a list, such as [1, 2, 3], got 3"),
        ({"size": [1, 2, 3, 4]}, "size: expected 3 values, got [1, 2, 3, 4]"),
        ({"odd": 2}, "odd: must be odd; got 2"),
        ({"each": 0}, "each: expected a number greater than or equal to 1, got 0"),
        ({"each": [2, 0]}, "each.1: expected a number greater than or equal to 1, got 0"),
        ({"each": [2, "x"]}, "each.1: expected a whole number, got 'x'"),
        ({"each": "x"}, "each: expected a whole number, got 'x'"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Whole, {"name": "a", **values})
    assert str(caught.value) == message
    with pytest.raises(ConfigError) as caught:
        parse(Whole, {"name": "a", **values}, "train")
    assert str(caught.value) == f"train.{message}"


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Whole, {"steps": "x", "part": {"z": 1}})
    message = str(caught.value)
    for part in ("name: a value is missing", "steps: expected a whole number", "part.z: unknown option"):
        assert part in message
    assert "\n" not in message


def test_too_few_values_are_counted_too() -> None:
    with pytest.raises(ConfigError, match=r"^size"):
        parse(Whole, {"name": "a", "size": [1, 2]})
    with pytest.raises(ConfigError, match=re.escape("some: expected 1 value at least, got []")):
        parse(Whole, {"name": "a", "some": []})


def test_a_value_of_any_length_is_told_in_a_line() -> None:
    with pytest.raises(ConfigError, match=r"^steps: expected a whole number, got 'many.*\.\.\.$") as caught:
        parse(Whole, {"name": "a", "steps": "many" * 100})
    assert len(str(caught.value)) < 200
    with pytest.raises(ConfigError, match=r"got 'a\\nb'$"):
        parse(Whole, {"name": "a", "steps": "a\nb"})
