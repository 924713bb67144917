"""The payloads and results of operations, stored as JSON texts."""

from __future__ import annotations

import json
from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from batch_processor.errors import BadResult, InvalidItem, ResultTooLarge
from chassis import validation
from contracts.json_values import DEEPEST, is_too_deep
from contracts.message import Json

MOST_RESULT_BYTES = 256 * 1024
_MOST_PROBLEMS = 10


def read_payload(model: type[BaseModel] | None, text: str) -> Any:
    """Return the payload as `model`, or without one as plain data. Raise `InvalidItem` with the fields."""
    if model is None:
        # Not with a parser that turns large integers into doubles.
        return from_json(text)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        named = validation.errors_in(error)[:_MOST_PROBLEMS]
        raise InvalidItem("; ".join(map(validation.placed, named))) from error


def write_result(result: Json) -> str:
    """Return `result` as the JSON text that is stored. Raise `BadResult` or `ResultTooLarge`."""
    try:
        data = orjson.dumps(result)
    except TypeError as error:
        raise BadResult(f"The result is not JSON: {error}.") from error
    if b"null" in data:
        # orjson writes NaN and the infinities as null, which no caller can tell from None.
        try:
            json.dumps(result, allow_nan=False, default=str)
        except ValueError as error:
            raise BadResult(f"The result is not JSON: {error}.") from error
    _require_keepable(data)
    return data.decode()


def require_json_text(text: object) -> str:
    """Return `text` if it is a JSON document that can be stored. Raise `BadResult` or `ResultTooLarge`."""
    if not isinstance(text, str):
        raise BadResult(f"The result is a {type(text).__name__}; it must be JSON in a str.")
    try:
        data = text.encode()
        orjson.loads(data)
    except ValueError as error:
        raise BadResult(f"The result is not JSON: {error}.") from error
    _require_keepable(data)
    return text


def _require_keepable(data: bytes) -> None:
    if len(data) > MOST_RESULT_BYTES:
        raise ResultTooLarge(f"The result has {len(data)} bytes; at most {MOST_RESULT_BYTES} are kept.")
    if is_too_deep(data):
        raise BadResult(f"The result is nested more than {DEEPEST} levels deep.")
