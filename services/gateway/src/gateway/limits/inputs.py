"""The answer of `GET /v1/me/usage`."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from gateway.http.rates import RateClass


class OwnerUsage(BaseModel):
    """The use of a limit by all keys of the user together in the current window, over all gateways."""

    limit: int
    used: int
    remaining: int


class ClassUsage(BaseModel):
    """The use of one limit by the caller in the current window, over all gateways.

    `owner` is about all keys of the user together: other keys may have used most of that.
    """

    name: RateClass = Field(description="the class of the requests, as in `RateLimit` and `x-rate-class`")
    limit: int
    window_s: int
    used: int
    remaining: int
    resets_at: datetime
    owner: OwnerUsage


class LimitUsage(BaseModel):
    """The limits of the calling key, or of the user of an access token.

    A class without a limit is not listed. `shared` is false while the database does not answer: then this
    gateway counts alone.
    """

    data: list[ClassUsage]
    shared: bool
