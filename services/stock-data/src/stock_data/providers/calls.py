"""The metrics of calls to providers: how many, how they ended and how long they took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from chassis import metrics
from stock_data.errors import ProviderFailure, UnknownSymbol


@contextmanager
def counted(provider: str, call: str) -> Iterator[None]:
    """Count the call made in the block under its outcome: `ok`, the failure's kind, or `cancelled`."""
    outcome = "cancelled"
    started = time.perf_counter()
    try:
        yield
        outcome = "ok"
    except (ProviderFailure, UnknownSymbol) as error:
        outcome = error.kind
        raise
    finally:
        metrics.PROVIDER_CALLS.labels(provider, call, outcome).inc()
        metrics.PROVIDER_SECONDS.labels(provider, call).observe(time.perf_counter() - started)
