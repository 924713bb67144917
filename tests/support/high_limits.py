"""Limits that nobody reaches, for stacks under load: requests are counted, and none is refused."""

from __future__ import annotations

from gateway.http.rates import RateClass
from gateway.limits.policies import MOST_IN_A_WINDOW

RATE_LIMITS = {"GATEWAY_RATE_LIMITS": ",".join(f"{rate}={MOST_IN_A_WINDOW}" for rate in RateClass)}
