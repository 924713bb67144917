"""The grammar of filters: the same query parameters narrow a list and choose what a bulk action changes.

A feature declares the criteria of its objects once, as a `Filter`, and derives from it the query of the list
and the query of each bulk action:

    class EmailFilter(CreatedWithin):
        status: Several[EmailStatus] | None = None

    class EmailsQuery(EmailFilter, Page): ...
    class EmailsBulk(EmailFilter, Bulk): ...
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from contracts.times import Instant
from gateway.http.strict_json import MOST_ID

T = TypeVar("T")

_MOST_VALUES = 100


def written_as(pattern: str, what: str) -> BeforeValidator:
    """Return a check of the spelling of a parameter: pydantic would also accept ` 1`, `1_0` and `yes`."""

    def check(value: object) -> object:
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            raise ValueError(f"must be {what}")
        return value

    return BeforeValidator(check)


# Values separated by commas, of which an object must have one. An empty value is refused.
Several = Annotated[
    list[T],
    BeforeValidator(lambda value: value.split(",") if isinstance(value, str) else value),
    Field(min_length=1, max_length=_MOST_VALUES),
]
# The id of an object, as one of several.
Id = Annotated[int, Field(ge=1, le=MOST_ID), written_as("[0-9]{1,19}", "a whole number in decimal digits")]


YesOrNo = Annotated[bool, written_as("true|false", "true or false")]


class Filter(BaseModel):
    """A filter of objects: an object is selected if it matches every given parameter.

    The criteria are the parameters whose default is None. A parameter with another default, or without one,
    has another purpose, for instance a rate or the name of a service.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of the criteria."""
        fields = cls.model_fields.items()
        return [name for name, field in fields if field.default is None and name != "cursor"]

    @property
    def chosen(self) -> dict[str, Any]:
        """The given criteria by name."""
        return {name: value for name in self.names() if (value := getattr(self, name)) is not None}


class CreatedWithin(Filter):
    """A filter by the time of creation; both limits are exclusive."""

    created_after: Instant | None = Field(default=None, description="only objects created after this time")
    created_before: Instant | None = Field(default=None, description="only objects created before this time")


class PageQuery(Filter):
    """The beginning and the length of a page."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=500, description="`next_cursor` of the page before")


class PageById(Filter):
    """Like `Page`, for a list in the order of its ids; the cursor is the last id seen."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: int | None = Field(default=None, ge=0, le=MOST_ID, description="`next_cursor` of the page before")


class DryRun(Filter):
    """The parameters of an action that can be tried without an effect.

    A dry run only reads: the server asks for the scope of the `excerpt` that the answer declares.
    """

    dry_run: YesOrNo = Field(default=False, description="report what would be changed, and change nothing")


class Bulk(DryRun):
    """The parameters of a bulk action besides its filter; a request without criteria is refused."""

    @model_validator(mode="after")
    def _something_is_chosen(self) -> Self:
        if not self.chosen:
            raise ValueError(
                f"give at least one of {', '.join(self.names())}: without a filter it would apply to all"
            )
        return self


class SteppedBulk(Bulk):
    """The parameters of a bulk action that examines a limited number of objects by each call."""

    cursor: str | None = Field(default=None, max_length=500, description="`next_cursor` of the call before")


class BulkResult(BaseModel):
    """The effect of a bulk action or, with `dry_run`, the effect that it would have.

    `matched` objects matched the filter and `changed` of them were changed; the others are in a state in
    which the action has no effect. A call changes a limited number: repeat it until `complete` is true.
    """

    matched: int
    changed: int
    dry_run: bool
    complete: bool


class SteppedResult(BulkResult):
    """The effect of one step of a bulk action that examines a limited number of objects by each call.

    Repeat it with `next_cursor` as `cursor` until `complete` is true; the sums of `matched` and of `changed`
    are then those of all objects. Without a `next_cursor` begin again, without a cursor. When `exact` is
    false, more than `matched` may have matched: only some of those that cannot be changed were counted.
    """

    next_cursor: str | None = None
    exact: bool = True


class BulkOutline(BaseModel):
    """The effect of a bulk action, for a key that may not read the objects: what matched is not counted."""

    changed: int
    dry_run: bool
    complete: bool


class SteppedOutline(BulkOutline):
    """The effect of one step of a bulk action, for a key that may not read the objects."""

    next_cursor: str | None
