"""Says what pydantic finds wrong with a value, in the same words in every answer, log line and message.

They say what a value must be in the terms of JSON, never in those of Python, and never repeat the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from chassis import plain

# A name may be as long as its document.
_MOST_PLACE = 200
# Pydantic makes all of its errors in one step, 15 µs each, in which nothing else of the process runs.
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
_SUBJECT = re.compile(
    r"^(Input|Value|String|List|Tuple|Set|Dictionary|Data|Decimal input|URL|Date|Time) should "
)


def words(problem: Mapping[str, Any]) -> str:
    """Return what is wrong, for example "must be at most 5", from one of the errors that pydantic lists."""
    if (found := _WORDS.get(problem.get("type", ""))) is not None:
        return found
    text = plain.text(problem["msg"]).removeprefix("Value error, ").replace(" after validation,", ",")
    return _SUBJECT.sub("must ", text)


def errors_in(error: ValidationError) -> list[Any]:
    """Return pydantic's errors without the values, which may be secret or huge.

    Of very many only their number is returned, as one error of the whole.
    """
    count = error.error_count()
    if count > _MOST_MADE:
        return [{"loc": (), "msg": f"There are {count} errors, too many to name."}]
    return list(error.errors(include_url=False, include_context=False, include_input=False))


def first(error: ValidationError) -> str:
    """Return the place and the words of the first error, for example `items.0.size: must be an integer`."""
    return placed(errors_in(error)[0])


def placed(problem: Mapping[str, Any]) -> str:
    """Return the place and the words of an error; of an error of the whole, only its words."""
    place = plain.text(".".join(map(str, problem["loc"])), most=_MOST_PLACE)
    return ": ".join(filter(None, (place, words(problem))))
