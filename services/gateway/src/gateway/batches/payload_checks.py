"""Validation of payloads against the JSON Schema of their operation, before anything is accepted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import jsonschema_rs
from jsonschema_rs import RegexOptions, ValidationError

from chassis import plain
from chassis.problems import pointer
from contracts.message import FieldError, Json
from contracts.schema_rules import MOST_TOGETHER, count_together

MOST_ERRORS = 20
# How many payloads, and for how long, are validated before other tasks may run; one is validated at once.
_TURN, _TURN_S = 200, 0.001
_MOST_CHARACTERS = 300
_MOST_VALUES = 2_000
# The description beside these keywords can say what they mean, or what to do with a longer value.
_DESCRIBED = ("maxLength", "anyOf", "not", "pattern")


class PayloadCheck:
    """Validates payloads against one JSON Schema. Raise `ValueError` for a schema that cannot be compiled.

    Formats are annotations, as in the standard; references of a schema are not fetched, and patterns match in
    linear time.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        # A value may be secret or huge, so messages do not contain it.
        self._validator = jsonschema_rs.validator_for(
            schema,
            offline=True,
            mask="the value",
            pattern_options=RegexOptions(),
            keywords={MOST_TOGETHER: _MostTogether},
        )

    def find(self, payload: Any) -> FieldError | None:
        """Return the first error of `payload` with its JSON pointer; None if the payload is valid."""
        if self._validator.is_valid(payload):
            return None
        # To locate an error, the library collects all errors of every alternative.
        if _has_more_values(payload, _MOST_VALUES):
            return FieldError(pointer="", detail="does not fit; it has too many values to say which is wrong")
        try:
            self._validator.validate(payload)
        except ValidationError as first:
            error = _most_telling(first)
        else:
            return None
        detail = plain.text(error.message, most=_MOST_CHARACTERS)
        if error.kind.name in _DESCRIBED:
            with suppress(LookupError, TypeError):
                broken: Any = self.schema
                for key in error.schema_path[:-1]:
                    broken = broken[key]
                description = plain.text(str(broken["description"]), most=_MOST_CHARACTERS)
                # What is forbidden is named as a schema, which says less.
                detail = description if error.kind.name == "not" else f"{detail}: {description}"
        return FieldError(pointer=pointer(tuple(error.instance_path)), detail=detail)


class _MostTogether:
    """The keyword of a schema for the number of items that several members may have together."""

    def __init__(self, schema: dict[str, Any], value: Any, _path: list[str | int]) -> None:
        match value:
            case {"names": [*names], "most": int(most)} if all(isinstance(name, str) for name in names):
                self._names, self._most = names, most
            case _:
                raise ValueError(f"{MOST_TOGETHER} must have names and most")
        self._description = str(schema.get("description", f"{', '.join(names)} must be at most {most}"))

    def validate(self, value: Json) -> None:
        """Raise `ValueError` if they have more; the library makes its error of it."""
        if isinstance(value, dict) and count_together(value, self._names) > self._most:
            raise ValueError(self._description)


async def find_all(check: PayloadCheck, payloads: Iterable[tuple[str, Any]]) -> list[FieldError]:
    """Return the first errors of payloads, each of which comes with its own pointer."""
    found: list[FieldError] = []
    began = time.perf_counter()
    for number, (place, payload) in enumerate(payloads, start=1):
        error = check.find(payload)
        if error is not None:
            found.append(FieldError(pointer=place + error.pointer, detail=error.detail))
            if len(found) == MOST_ERRORS:
                break
        if number % _TURN == 0 or time.perf_counter() - began > _TURN_S:
            await asyncio.sleep(0)
            began = time.perf_counter()
    return found


def _has_more_values(payload: Any, most: int) -> bool:
    pending, seen = [payload], 0
    while pending and seen <= most:
        value = pending.pop()
        if isinstance(value, dict | list):
            seen += len(value)
            pending.extend(list(value.values() if isinstance(value, dict) else value)[: most + 1])
    return seen > most


def _most_telling(error: ValidationError) -> ValidationError:
    """Return the error of the alternative that was probably intended: the only one of the value's type."""
    while error.kind.name in ("anyOf", "oneOf"):
        branches = [branch[0] for branch in getattr(error.kind, "context", ()) if branch]
        meant = [branch for branch in branches if branch.kind.name != "type"]
        if len(meant) != 1:
            break
        [error] = meant
    return error
