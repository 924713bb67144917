"""Describes the errors that pydantic finds, in the same words in every answer, log line and message.

The words are those of JSON, not of Python types, and never repeat the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from chassis import plain

# The most characters of a place: a name in it may be as long as the document.
_MOST_PLACE = 200
# Pydantic makes all errors of a value in one step, 15 µs each, during which the whole process stands still.
_MOST_MADE = 2_000
_OBJECT, _LIST = "must be an object", "must be a list"
_INTEGER, _NUMBER, _BOOLEAN = "must be an integer", "must be a number", "must be true or false"
_WORDS: Mapping[str, str] = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_type": "must be a string",
    "int_type": _INTEGER,
    "int_parsing": _INTEGER,
    "int_from_float": _INTEGER,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": _BOOLEAN,
    "bool_parsing": _BOOLEAN,
    "uuid_type": "must be a UUID",
    "uuid_parsing": "must be a UUID",
    "list_type": _LIST,
    "tuple_type": _LIST,
    "set_type": _LIST,
    "frozen_set_type": _LIST,
    "dict_type": _OBJECT,
    "model_type": _OBJECT,
    "model_attributes_type": _OBJECT,
}
# At the end of pydantic's place of a name in an object.
_OF_NAME = ("[key]",)
_SUBJECT = re.compile(
    r"^(Input|Value|String|List|Tuple|Set|Dictionary|Data|Decimal input|URL|Date|Time) should "
)


def words(problem: Mapping[str, Any]) -> str:
    """Return the description of one of pydantic's errors, for example "must be at most 5"."""
    text = _WORDS.get(problem.get("type", ""))
    if text is None:
        text = plain.text(problem["msg"]).removeprefix("Value error, ").replace(" after validation,", ",")
        text = _SUBJECT.sub("must ", text)
    return f"its name {text}" if problem.get("is_of_name") else text


def errors_in(error: ValidationError) -> list[Any]:
    """Return pydantic's errors without the values, which may be secret or huge.

    If there are very many, return a single error of the whole value with their number.
    """
    count = error.error_count()
    if count > _MOST_MADE:
        return [{"loc": (), "msg": f"There are {count} errors, too many to name."}]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [_of_name(one) if one["loc"][-1:] == _OF_NAME else one for one in found]


def _of_name(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error of a name in an object at the place of the name, which is that of its value."""
    return {**problem, "loc": problem["loc"][:-1], "is_of_name": True}


def first(error: ValidationError) -> str:
    """Return the place and the words of the first error, for example `items.0.size: must be an integer`."""
    return placed(errors_in(error)[0])


def placed(problem: Mapping[str, Any]) -> str:
    """Return the place and the words of an error; of an error of the whole, only its words."""
    place = plain.text(".".join(map(str, problem["loc"])), most=_MOST_PLACE)
    return ": ".join(filter(None, (place, words(problem))))
