"""Classes of requests, each with a limit of its own, and the interface of what counts them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum

from gateway.http.principal import Principal


class RateClass(StrEnum):
    """A kind of requests. The requests of a caller in one class are counted together."""

    QUOTE = "quote"
    READ = "read"
    WRITE = "write"
    SEND = "send"
    CHAT = "chat"
    BATCH = "batch"


# Returns the headers that say what the caller has left, computed when the answer is sent.
LimitHeaders = Callable[[], Sequence[tuple[bytes, bytes]]]
# Counts a request of the caller as that many; raises `RateLimited` beyond its limit. None: there is no limit.
Charge = Callable[[Principal, RateClass, int], Awaitable[LimitHeaders | None]]


async def charge_nothing(principal: Principal, rate: RateClass, cost: int) -> None:
    """Count nothing: a gateway without limits."""
