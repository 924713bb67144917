"""The limits of a batch: its own, those of its operation, and those of the operation's limit key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.operation import LIMIT_KEY, Operation
from chassis import logging
from contracts import batch_options
from contracts import batches as contract
from contracts.batch_options import RateLimit

log = logging.get(__name__)

OPERATION = "operation:"
BATCH = "batch:"
# A rate is counted in so many slots: no more items begin within any period than the rate allows, and in the
# long run fewer by up to one part in this number.
_SLOTS = 100
_SHORTEST_SLOT_S = 0.01
_RULE = re.compile(r"(?P<items>[1-9]\d{0,6})(?:/(?P<per_s>[1-9]\d{0,4}))?")


@dataclass(frozen=True, slots=True)
class LimitRule:
    """Under `key`, up to `max_concurrency` items may run at once, and as many may begin as `rate` allows."""

    key: str
    max_concurrency: int | None = None
    rate: RateLimit | None = None

    @property
    def slot_s(self) -> float | None:
        """Return the length in seconds of a slot of the rate; None without a rate."""
        return None if self.rate is None else max(_SHORTEST_SLOT_S, self.rate.per_s / _SLOTS)

    @property
    def window_s(self) -> float:
        """Return how long an item that has begun counts, in seconds from the start of its slot."""
        return 0.0 if self.rate is None else self.rate.per_s + (self.slot_s or 0)

    def room(self, *, in_flight: int, unclaimed: int, charged: int) -> int:
        """Return how many more items may be let through.

        `in_flight` items were let through and are not done, `unclaimed` of them were not claimed by a worker
        yet, and `charged` items were claimed within the window.
        """
        rooms = [] if self.max_concurrency is None else [self.max_concurrency - in_flight]
        if self.rate is not None:
            rooms.append(self.rate.items - charged - unclaimed)
        return max(0, min(rooms))

    def to_contract(self) -> contract.Limit:
        """Return the limit as callers see it: the key of a batch's own is `batch`."""
        key = "batch" if self.key.startswith(BATCH) else self.key
        return contract.Limit(key=key, max_concurrency=self.max_concurrency, rate_limit=self.rate)


def parse(text: str) -> dict[str, LimitRule]:
    """Return the limits of a setting by their keys: `provider:alpaca=200/60,operation:http.request=5`.

    A number is the items that may run at once; `200/60` means that 200 may begin within 60 seconds. A key may
    have both. Raise `ValueError` with the part that cannot be read.
    """
    found: dict[str, LimitRule] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        rule = _RULE.fullmatch(value)
        if not re.fullmatch(LIMIT_KEY, key) or key.startswith(BATCH) or rule is None:
            raise ValueError(
                f"{part!r} is not a limit: write provider:alpaca=200/60 for 200 items in 60 seconds, or "
                "operation:http.request=5 for 5 items at once"
            )
        limit, items = found.get(key, LimitRule(key)), int(rule["items"])
        given = limit.max_concurrency if rule["per_s"] is None else limit.rate
        if given is not None:
            raise ValueError(f"{part!r} limits {key} a second time")
        try:
            found[key] = (
                replace(limit, max_concurrency=items)
                if rule["per_s"] is None
                else replace(limit, rate=RateLimit(items=items, per_s=int(rule["per_s"])))
            )
        except ValueError:
            raise ValueError(f"{part!r} has a rate beyond 1000000 items or 86400 seconds") from None
    return found


class LimitBook:
    """The limits of the installed operations: those they declare, replaced by those of the setting."""

    def __init__(self, operations: Mapping[str, Operation], configured: Mapping[str, LimitRule]) -> None:
        self._of_operation: dict[str, tuple[LimitRule, ...]] = {}
        unused = dict(configured)
        for name, operation in operations.items():
            key = OPERATION + name
            wanted = configured.get(key, LimitRule(key))
            own = LimitRule(
                key,
                wanted.max_concurrency or operation.max_concurrency,
                wanted.rate or operation.rate_limit,
            )
            limits = [own] if own.max_concurrency or own.rate else []
            if operation.limit_key and operation.limit_key in configured:
                limits.append(configured[operation.limit_key])
            if limits:
                self._of_operation[name] = tuple(limits)
            unused.pop(key, None)
            unused.pop(operation.limit_key or "", None)
        for key in unused:
            log.warning("limit is unused: no operation counts under its key", key=key)

    @property
    def limited_operations(self) -> list[str]:
        """Return the operations whose batches all have limits."""
        return list(self._of_operation)

    def of_operation(self, name: str) -> tuple[LimitRule, ...]:
        """Return the limits of all batches of an operation."""
        return self._of_operation.get(name, ())

    def of_batch(self, batch_id: UUID, operation: str, options: str) -> tuple[LimitRule, ...]:
        """Return all limits of a batch with `options`, JSON text; its own come first."""
        own = _own(batch_id, options)
        return (*own, *self.of_operation(operation))

    def gate_of(self, batch: StoredBatch) -> str | None:
        """Return the gate at which the chunks of a batch wait; None when it has no limits."""
        if _own(batch.id, batch.options):
            return f"{BATCH}{batch.id}"
        operation = batch.operation or ""
        return OPERATION + operation if operation in self._of_operation else None


def rooms(limits: Iterable[LimitRule], used: Mapping[str, tuple[int, int, int]]) -> dict[str, int]:
    """Return how many more items each key lets through; `used` has `in_flight`, `unclaimed` and `charged`."""
    found = {}
    for limit in limits:
        in_flight, unclaimed, charged = used.get(limit.key, (0, 0, 0))
        found[limit.key] = limit.room(in_flight=in_flight, unclaimed=unclaimed, charged=charged)
    return found


def _own(batch_id: UUID, options: str) -> tuple[LimitRule, ...]:
    # Most batches have no limits of their own; their options need not be parsed.
    if "max_concurrency" not in options and "rate_limit" not in options:
        return ()
    given = batch_options.read(json.loads(options))
    if given.max_concurrency is None and given.rate_limit is None:
        return ()
    return (LimitRule(f"{BATCH}{batch_id}", given.max_concurrency, given.rate_limit),)
