"""JSON Schemas of all declared types, each model described once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

Json = dict[str, Any]
Mode = Literal["validation", "serialization"]

_REFERENCE = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class SchemaPlace:
    """A place in the document that has a schema: its name, its type, and its direction."""

    name: str
    kind: Any
    mode: Mode


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schema of each place, and the models that these refer to."""

    by_place: Mapping[str, Json]
    models: Mapping[str, Json]

    def properties(self, place: str) -> tuple[Mapping[str, Json], frozenset[str]]:
        """Return the fields of the model at `place`, and the names of the required ones."""
        # Of an answer with an excerpt the whole one comes first.
        schema = self.by_place[place]
        schema = schema.get("anyOf", [schema])[0]
        if "$ref" in schema:
            schema = self.models[schema["$ref"].removeprefix(_REFERENCE)]
        return schema.get("properties", {}), frozenset(schema.get("required", ()))


class _Untitled(GenerateJsonSchema):
    """JSON Schemas without titles of fields, which would only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic calls it
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> Json:
        found = super().model_schema(schema)
        if "description" in found:
            # Docstrings are wrapped for the source; the page wraps lines itself.
            found["description"] = re.sub(r"(?<!\n)\n(?!\n)", " ", found["description"])
        return found


def of(places: Iterable[SchemaPlace]) -> Schemas:
    """Return the schemas of `places`."""
    adapters = [(place.name, place.mode, TypeAdapter(place.kind)) for place in places]
    schemas, definitions = TypeAdapter.json_schemas(
        adapters, ref_template=_REFERENCE + "{model}", schema_generator=_Untitled
    )
    return Schemas(
        {name: dict(schema) for (name, _), schema in schemas.items()},
        definitions.get("$defs", {}),
    )


def referenced(document: Json, models: Mapping[str, Json]) -> dict[str, Json]:
    """Return the `models` by name to which `document` refers, directly or through other models."""
    found: dict[str, Json] = {}
    waiting = _references(document)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = models[name]
            waiting |= _references(models[name])
    return dict(sorted(found.items()))


def without_null(schema: Json) -> Json:
    """Return `schema` without the alternative null, which a parameter cannot be."""
    rest = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if not rest:
        return schema
    others = {
        key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)
    }
    return {**rest[0], **others} if len(rest) == 1 else {"anyOf": rest, **others}


def _references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = part.get("$ref")
        found = (
            {own.removeprefix(_REFERENCE)} if isinstance(own, str) and own.startswith(_REFERENCE) else set()
        )
        return found.union(*(_references(value) for value in part.values()))
    if isinstance(part, list):
        return set().union(*(_references(value) for value in part))
    return set()
