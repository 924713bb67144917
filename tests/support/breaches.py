"""Values that a JSON Schema forbids, each one past a bound that it declares."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Path = tuple[str | int, ...]

# What a schema may refer to again, such as the parts of a part.
_DEEPEST = 8
_OF_FORMAT = {
    "uuid": "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11",
    "date-time": "2030-01-01T00:00:00Z",
    "date": "2030-01-01",
    "email": "ann@example.com",
}


# Most patterns are not matched by one of these.
_ODD = (" ", "!", "x", "9", "\N{SNOWMAN}")


@dataclass(frozen=True)
class Breach:
    """A value for the place `path` of a document, and the keyword of the schema that forbids it."""

    path: Path
    keyword: str
    value: Any

    @property
    def pointer(self) -> str:
        """The JSON pointer of the place."""
        return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in self.path)

    def put_into(self, document: Any) -> Any:
        """Return a copy of `document` with the value at its place."""
        if not self.path:
            return self.value
        whole = copy.deepcopy(document) if isinstance(document, dict) else {}
        place: Any = whole
        for part, following in zip(self.path[:-1], self.path[1:], strict=True):
            kind = list if isinstance(following, int) else dict
            if isinstance(part, int):
                if not place:
                    place.append(kind())
                if not isinstance(place[part], kind):
                    place[part] = kind()
            elif not isinstance(place.get(part), kind):
                place[part] = kind()
            place = place[part]
        last = self.path[-1]
        if isinstance(last, int) and not place:
            place.append(self.value)
        else:
            place[last] = self.value
        return whole


class Breaches:
    """Finds the breaches of schemas that refer to `models`."""

    def __init__(self, models: Mapping[str, Json]) -> None:
        self._models = models

    def of(self, schema: Json, path: Path = ()) -> Iterator[Breach]:
        """Yield a breach of each bound of `schema` and of its parts."""
        if len(path) > _DEEPEST:
            return
        options = self._options(schema)
        for option in options:
            # What breaks one alternative could fit another.
            own = [] if len(options) > 1 else [Breach(path, *one) for one in self._own(option)]
            yield from own
            yield from self._of_parts(option, path)

    def _own(self, schema: Json) -> Iterator[tuple[str, Any]]:
        """Yield the keyword and a value for each bound of a schema itself."""
        kind = schema.get("type")
        if "enum" in schema or "const" in schema:
            yield "enum", "none of these" if kind == "string" else -987_654
            return
        if kind in ("integer", "number"):
            for keyword, step in (("minimum", -1), ("maximum", 1)):
                if keyword in schema:
                    yield keyword, schema[keyword] + step
            for keyword in ("exclusiveMinimum", "exclusiveMaximum"):
                if keyword in schema:
                    yield keyword, schema[keyword]
            yield "type", True
        if kind == "string":
            if schema.get("minLength", 0):
                yield "minLength", "x" * (schema["minLength"] - 1)
            if "maxLength" in schema:
                yield "maxLength", "x" * (schema["maxLength"] + 1)
            if schema.get("format") in _OF_FORMAT:
                yield "format", "x"
            if "pattern" in schema:
                yield from (("pattern", one) for one in _ODD if not re.search(schema["pattern"], one))
            yield "type", 7
        if kind == "array":
            if schema.get("minItems", 0):
                yield "minItems", [self.valid(schema["items"])] * (schema["minItems"] - 1)
            if "maxItems" in schema:
                yield "maxItems", [self.valid(schema["items"])] * (schema["maxItems"] + 1)
            yield "type", {}
        if kind == "object":
            if "maxProperties" in schema:
                most = schema["maxProperties"]
                value = schema.get("additionalProperties")
                yield (
                    "maxProperties",
                    {f"k{n}": self.valid(value) if isinstance(value, dict) else 1 for n in range(most + 1)},
                )
            yield "type", 7

    def _of_parts(self, schema: Json, path: Path) -> Iterator[Breach]:
        if schema.get("additionalProperties") is False:
            yield Breach((*path, "surprise"), "additionalProperties", 1)
        for name, part in schema.get("properties", {}).items():
            yield from self.of(part, (*path, name))
        if isinstance(more := schema.get("additionalProperties"), dict):
            yield from self.of(more, (*path, "k"))
        if isinstance(items := schema.get("items"), dict):
            yield from self.of(items, (*path, 0))

    def valid(self, schema: Json) -> Any:
        """Return a value that fits a simple schema."""
        if schema.get("examples"):
            return schema["examples"][0]
        schema = self._options(schema)[0]
        if schema.get("examples"):
            return schema["examples"][0]
        if "enum" in schema:
            return schema["enum"][0]
        match schema.get("type"):
            case "string":
                return _OF_FORMAT.get(schema.get("format", ""), "x" * max(1, schema.get("minLength", 1)))
            case "integer" | "number":
                return schema.get("minimum", 1)
            case "array":
                return [self.valid(schema["items"])] * schema.get("minItems", 0)
            case "object":
                properties = schema.get("properties", {})
                return {name: self.valid(properties[name]) for name in schema.get("required", ())}
        return schema.get("const", 1)

    def _options(self, schema: Json) -> list[Json]:
        """Return the alternatives of a schema but null, which a reference is one of."""
        if "$ref" in schema:
            return self._options(self._models[schema["$ref"].rpartition("/")[2]])
        found = [option for key in ("anyOf", "oneOf") for option in schema.get(key, ())]
        if not found:
            return [schema]
        return [one for option in found if option.get("type") != "null" for one in self._options(option)]
