"""The options of a batch, checked by every interface that accepts batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.message import Json
from contracts.schema_rules import lacks_all

Priority = Literal["low", "normal", "high"]


class ToleratedFailure(BaseModel):
    """The failed items that a batch tolerates: a count, a percentage, or the lower of both."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, json_schema_extra={"not": lacks_all("count", "percent")}
    )
    count: int | None = Field(default=None, ge=0, le=2**31 - 1, strict=True)
    percent: float | None = Field(default=None, ge=0, le=100, strict=True)

    @model_validator(mode="after")
    def _something_is_given(self) -> Self:
        if self.count is None and self.percent is None:
            raise ValueError("must have count, percent or both")
        return self

    def allows(self, failed: int, *, total: int) -> bool:
        """Return whether a batch of `total` items goes on when `failed` of them have failed."""
        by_count = self.count is None or failed <= self.count
        return by_count and (self.percent is None or failed * 100 <= self.percent * total)


class RateLimit(BaseModel):
    """The number of items that may start within any `per_s` seconds. Each attempt at an item counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    items: int = Field(ge=1, le=1_000_000, strict=True)
    per_s: int = Field(default=1, ge=1, le=86_400, strict=True)


class BatchOptions(BaseModel):
    """The options of a batch.

    Among the chunks of one owner, those of batches with higher `priority` run first; it has no effect between
    owners. Once more items than `tolerated_failure` have failed, no more items start and the batch is
    `failed`. At most `max_concurrency` of its items run at once over all workers, and no more start than
    `rate_limit` allows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    priority: Priority = "normal"
    tolerated_failure: ToleratedFailure | None = Field(default=None, examples=[{"percent": 5}])
    max_concurrency: int | None = Field(default=None, ge=1, le=100_000, strict=True, examples=[4])
    rate_limit: RateLimit | None = Field(default=None, examples=[{"items": 200, "per_s": 60}])

    def to_message(self) -> dict[str, Json]:
        """Return the options as a message carries them: those that were given."""
        given: dict[str, Json] = self.model_dump(mode="json", exclude_defaults=True)
        return given


def read(sent: Mapping[str, Json]) -> BatchOptions:
    """Return the options that a message carries.

    An unknown or invalid option is ignored: it comes from another release, and accepted work must run.
    """
    known: dict[str, Json] = {}
    for name in BatchOptions.model_fields.keys() & sent.keys():
        try:
            BatchOptions.model_validate({name: sent[name]})
        except ValidationError:
            continue
        known[name] = sent[name]
    return BatchOptions.model_validate(known)
