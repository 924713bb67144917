"""Rules for a relay's replies that an operator adds in a setting."""

from __future__ import annotations

import re
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from chassis import validation
from emailer.sending.outcomes import Rule, Verdict, Whose

Then = Literal["fail", "defer", "pause", "new-session"]
_Stage = Literal["mail", "recipient", "data", "content"]

_MEANT: dict[Then, tuple[Whose, Verdict]] = {
    "fail": ("mail", "failed"),
    "defer": ("recipient", "deferred"),
    "pause": ("route", "limited"),
    "new-session": ("session", "new-session"),
}


class _OwnRule(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    stages: Annotated[list[_Stage], Field(min_length=1)] = list(get_args(_Stage))
    codes: Annotated[list[Annotated[str, Field(pattern=r"^[45][0-9x]{2}$")]], Field(min_length=1)]
    says: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    then: Then


_RULES = TypeAdapter(list[_OwnRule])


def read(text: str) -> tuple[Rule, ...]:
    """Return the rules in `text`, a JSON list; an empty text has none.

    Raise `ValueError` with the position of an invalid rule.
    """
    if not text.strip():
        return ()
    try:
        given = _RULES.validate_json(text)
    except ValidationError as error:
        raise ValueError(validation.first(error)) from None
    return tuple(_rule(number, one) for number, one in enumerate(given))


def _rule(number: int, given: _OwnRule) -> Rule:
    whose, verdict = _MEANT[given.then]
    codes = "|".join(code.replace("x", "[0-9]") for code in given.codes)
    try:
        says = None if given.says is None else re.compile(given.says, re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{number}.says: is not a regular expression: {error}") from None
    return Rule(given.name, tuple(given.stages), re.compile(codes), whose, verdict, says=says)
