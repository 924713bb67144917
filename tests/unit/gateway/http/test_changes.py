"""Bodies of PATCH: absent fields, null and the declared schema."""

from __future__ import annotations

import pytest
from pydantic import Field, ValidationError

from gateway.http.changes import Change


class LampChange(Change):
    """A change of a lamp."""

    thing = "lamp"
    name: str | None = Field(default=None, max_length=10)


class ShadeChange(Change):
    """A change of a shade, which always has a colour."""

    thing = "shade"
    colour: str


def test_an_absent_field_is_read_as_none() -> None:
    assert LampChange.model_validate({}).name is None


def test_null_is_refused_with_the_name_of_the_thing() -> None:
    with pytest.raises(ValidationError, match="no field of a lamp can be removed"):
        LampChange.model_validate({"name": None})


def test_the_schema_has_neither_null_nor_a_default() -> None:
    [field] = LampChange.model_json_schema()["properties"].values()
    assert field == {"maxLength": 10, "title": "Name", "type": "string"}
    [field] = ShadeChange.model_json_schema()["properties"].values()
    assert field == {"title": "Colour", "type": "string"}
