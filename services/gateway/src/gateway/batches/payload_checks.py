"""Payloads compared with the JSON Schema of their operation, before anything is promised."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import jsonschema_rs
from jsonschema_rs import RegexOptions, ValidationError

from chassis import plain
from contracts.message import FieldError
from gateway.http.strict_json import escaped

MOST_ERRORS = 20
# Payloads that are compared before others have their turn: some tenths of a millisecond.
_TURN = 200
_MOST_CHARACTERS = 300


class PayloadCheck:
    """Compares payloads with one JSON Schema. Raise `ValueError` for a schema that cannot be compiled.

    Formats are notes, as the standard has it; nothing that a schema refers to is fetched, and patterns
    match in linear time.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        # A value may be secret or huge, so it is not repeated.
        self._validator = jsonschema_rs.validator_for(
            schema, offline=True, mask="the value", pattern_options=RegexOptions()
        )

    def find(self, payload: Any) -> FieldError | None:
        """Return the first misfit of `payload`, with the pointer of its place in it; None when it fits."""
        if self._validator.is_valid(payload):
            return None
        error = _most_telling(next(iter(self._validator.iter_errors(payload))))
        pointer = "".join(f"/{escaped(str(part))}" for part in error.instance_path)
        return FieldError(pointer=pointer, detail=plain.text(error.message, most=_MOST_CHARACTERS))


async def find_all(check: PayloadCheck, payloads: Iterable[tuple[str, Any]]) -> list[FieldError]:
    """Return the first misfits of payloads, each of which comes with its own pointer."""
    found: list[FieldError] = []
    for number, (pointer, payload) in enumerate(payloads, start=1):
        error = check.find(payload)
        if error is not None:
            found.append(FieldError(pointer=pointer + error.pointer, detail=error.detail))
            if len(found) == MOST_ERRORS:
                break
        if number % _TURN == 0:
            await asyncio.sleep(0)
    return found


def _most_telling(error: ValidationError) -> ValidationError:
    """Return the error of the alternative that was meant: the only one that the value has the type of."""
    while error.kind.name in ("anyOf", "oneOf"):
        branches = [branch[0] for branch in getattr(error.kind, "context", ()) if branch]
        meant = [branch for branch in branches if branch.kind.name != "type"]
        if len(meant) != 1:
            break
        [error] = meant
    return error
