"""What is wrong with a value is said in one voice, in the terms of JSON, and without the value."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chassis import validation


def _refuse(_: str) -> str:
    raise ValueError("must be a name of ours")


class StrictPart(BaseModel):
    model_config = ConfigDict(extra="forbid")
    size: int


def error_of(kind: Any, value: object, *, strict: bool = False) -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value, strict=strict)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (StrictPart, {}, "size: is required"),
        (StrictPart, {"size": 1, "other": 2}, "other: is not a known field"),
        (StrictPart, {"size": "many"}, "size: must be an integer"),
        (StrictPart, {"size": 1.5}, "size: must be an integer"),
        (StrictPart, [], "must be an object"),
        (list[StrictPart], [{"size": 1}, {"size": None}], "1.size: must be an integer"),
        (
            dict[Annotated[str, Field(max_length=2)], int],
            {"abc": 1},
            "abc: its name must have at most 2 characters",
        ),
        (dict[Annotated[str, Field(max_length=2)], int], {"ab": "x"}, "ab: must be an integer"),
        (list[int], 5, "must be a list"),
        (dict[str, int], 5, "must be an object"),
        (str, 5, "must be a string"),
        (float, "much", "must be a number"),
        (bool, "maybe", "must be true or false"),
        (Annotated[int, Field(ge=1)], 0, "must be greater than or equal to 1"),
        (Annotated[str, Field(max_length=2)], "abc", "must have at most 2 characters"),
        (Annotated[str, Field(pattern="^a")], "b", "must match pattern '^a'"),
        (Annotated[list[int], Field(min_length=1)], [], "must have at least 1 item, not 0"),
        (Annotated[Decimal, Field(decimal_places=2)], "1.234", "must have no more than 2 decimal places"),
        (Literal["low", "high"], "other", "must be 'low' or 'high'"),
        (Annotated[str, AfterValidator(_refuse)], "theirs", "must be a name of ours"),
    ],
)
def test_the_first_error_says_where_and_what_a_value_must_be(kind: Any, value: object, expected: str) -> None:
    assert validation.first(error_of(kind, value)) == expected


@pytest.mark.parametrize(
    "kind", [UUID, date, datetime, Decimal, int, float, bool, str, list[int], StrictPart]
)
def test_descriptions_have_neither_the_words_of_the_library_nor_the_value(kind: Any) -> None:
    said = validation.first(error_of(kind, {"dear diary": 1}))
    assert said.startswith(("must ", "size: is required"))
    assert not re.search("diary|[Ii]nput should|dictionary|instance", said)


def test_the_place_of_an_error_has_a_readable_length() -> None:
    said = validation.first(error_of(StrictPart, {"size": 1, "n" * 5_000: 1}))
    assert said.endswith("…: is not a known field")
    assert len(said) < 250
