"""A limit on failed authentication by client address."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from dataclasses import dataclass

_MOST_ADDRESSES = 10_000
# An IPv6 subscriber controls all addresses of a network of this size.
_IPV6_NETWORK_BITS = 64


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled_at: float


class FailureLimit:
    """Allows each address a burst of failures, and then one every `refill_s` seconds."""

    def __init__(self, *, burst: int, refill_s: float) -> None:
        self._burst = burst
        self._refill_s = refill_s
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait_s(self, address: str) -> int:
        """Return after how many seconds the address may fail again; 0 when it may now."""
        bucket = self._buckets.get(network_of(address))
        if bucket is None:
            return 0
        self._refill(bucket)
        return 0 if bucket.tokens >= 1 else math.ceil((1 - bucket.tokens) * self._refill_s)

    def count(self, address: str) -> None:
        """Count a failure of the address."""
        network = network_of(address)
        bucket = self._buckets.setdefault(network, _Bucket(self._burst, time.monotonic()))
        self._refill(bucket)
        bucket.tokens = max(0.0, bucket.tokens - 1)
        self._buckets.move_to_end(network)
        if len(self._buckets) > _MOST_ADDRESSES:
            self._buckets.popitem(last=False)

    def _refill(self, bucket: _Bucket) -> None:
        now = time.monotonic()
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.filled_at) / self._refill_s)
        bucket.filled_at = now


def network_of(address: str) -> str:
    """Return the addresses that one client controls: an IPv4 address itself, of an IPv6 one its /64 network.

    An IPv4 address that is mapped to IPv6 is returned as IPv4, and text that is no address as it is.
    """
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = found.ipv4_mapped
    return str(mapped) if mapped else str(ipaddress.IPv6Network((found, _IPV6_NETWORK_BITS), strict=False))
