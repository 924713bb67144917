"""The classes of requests that are limited by themselves, and the seam to who counts them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

from gateway.http.principal import Principal


class RateClass(StrEnum):
    """A kind of requests; those of one class are counted together, for each caller."""

    QUOTE = "quote"
    READ = "read"
    WRITE = "write"
    SEND = "send"
    CHAT = "chat"
    BATCH = "batch"


# Returns the headers of an answer that say what the caller has left: computed when the answer is sent.
LimitHeaders = Callable[[], Sequence[tuple[bytes, bytes]]]
# Counts a request of the caller as so many, and raises `RateLimited` beyond its limit. None: it has no limit.
Charge = Callable[[Principal, RateClass, int], Awaitable[LimitHeaders | None]]


async def charge_nothing(principal: Principal, rate: RateClass, cost: int) -> None:
    """Count nothing: a gateway without limits."""
