"""The common parts of all upstreams' answers: validated numbers and times, element by element."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, WrapValidator

from chassis import threads, validation
from stock_data.errors import BadData

P = TypeVar("P")

# About 2 ms of processor time.
_READ_AT_ONCE_BYTES = 32 * 1024

# More digits than a price or a volume has: `"1e999999"` would overflow, or fill a megabyte as text.
_MOST_DIGITS, _MOST_PLACES = 40, 20
Positive = Annotated[
    Decimal, Field(gt=0, allow_inf_nan=False, max_digits=_MOST_DIGITS, decimal_places=_MOST_PLACES)
]
NotNegative = Annotated[
    Decimal, Field(ge=0, allow_inf_nan=False, max_digits=_MOST_DIGITS, decimal_places=_MOST_PLACES)
]
# Well inside the range of `date`, so that days before and after can be computed.
Time = Annotated[
    AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(2200, 1, 1, tzinfo=UTC))
]


class Payload(BaseModel):
    """A part of an answer; fields that are not documented are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


@dataclass(frozen=True, slots=True)
class Malformed:
    """An element of an answer that does not have the documented shape: the reason, and its symbol."""

    reason: str
    symbol: str | None = None


def judged(*, by: str = "symbol") -> WrapValidator:
    """Turn an invalid element into a `Malformed`, so that the others can be used.

    `by` is the field in which an element names its symbol.
    """

    def judge(value: Any, validate: Callable[[Any], Any]) -> Any:
        try:
            return validate(value)
        except ValidationError as error:
            named = value.get(by) if isinstance(value, dict) else None
            return Malformed(_describe(error), named if isinstance(named, str) else None)

    return WrapValidator(judge)


async def read(adapter: TypeAdapter[P], body: bytes) -> P:
    """Return the answer in `body`, as `parse` does; a long one is read in a thread.

    10,000 bars take 80 ms, a megabyte of malformed elements takes half a second.
    """
    if len(body) <= _READ_AT_ONCE_BYTES:
        return parse(adapter, body)
    return await threads.run(partial(parse, adapter, body))


def parse(adapter: TypeAdapter[P], body: bytes) -> P:
    """Return the answer in `body`. Raise `BadData` when it does not have the documented shape."""
    try:
        return adapter.validate_json(body)
    except ValidationError as error:
        raise BadData(_describe(error)) from error


def _describe(error: ValidationError) -> str:
    return f"The answer is not as documented: {validation.first(error)}"
