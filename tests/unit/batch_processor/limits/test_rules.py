"""Limits: which hold for a batch, how a setting is read, and that no window has more than its rate allows."""

from __future__ import annotations

import math
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from batch_processor.batches.life_cycle import StoredBatch
from batch_processor.limits import rules
from batch_processor.limits.rules import LimitBook, LimitRule
from batch_processor.operation import Context, Operation
from contracts.batch_options import BatchOptions, RateLimit
from contracts.message import Json

_ID = UUID(int=7)


async def _run(payload: Json, _: Context) -> Json:
    return payload


def made(name: str, **changes: object) -> Operation:
    return Operation(name=name, description="for tests", payload=None, run=_run, **changes)  # type: ignore[arg-type]


def test_a_setting_limits_items_at_work_and_items_begun_per_second() -> None:
    assert rules.parse(" provider:alpaca=200/60, provider:alpaca=8 ,operation:http.request=5") == {
        "provider:alpaca": LimitRule("provider:alpaca", 8, RateLimit(items=200, per_s=60)),
        "operation:http.request": LimitRule("operation:http.request", 5),
    }
    assert rules.parse("") == {}


@pytest.mark.parametrize(
    "text",
    [
        "provider",
        "provider:alpaca",
        "provider:alpaca=0",
        "provider:alpaca=5/0",
        "provider:alpaca=-1",
        "provider:alpaca=1.5",
        "provider:alpaca=5,provider:alpaca=6",
        "provider:alpaca=2000000/60",
        "batch:7=5",
        "two words=5",
    ],
)
def test_a_setting_that_cannot_be_read_is_refused_with_the_part(text: str) -> None:
    with pytest.raises(ValueError, match=text.rsplit(",", 1)[-1].split("=", maxsplit=1)[0]):
        rules.parse(text)


def test_a_batch_has_its_own_limits_those_of_its_operation_and_those_of_its_named_key() -> None:
    operations = {
        "free": made("free"),
        "slow": made("slow", max_concurrency=9, limit_key="provider:x"),
        "keyed": made("keyed", limit_key="provider:y"),
    }
    book = LimitBook(operations, rules.parse("provider:x=10/1,operation:slow=3"))
    options = '{"max_concurrency": 2}'
    assert [limit.key for limit in book.of_batch(_ID, "slow", options)] == [
        f"batch:{_ID}",
        "operation:slow",
        "provider:x",
    ]
    assert [limit.max_concurrency for limit in book.of_batch(_ID, "slow", options)] == [2, 3, None]
    assert book.limited_operations == ["slow"]
    assert book.gate_of(StoredBatch(_ID, "ann", operation="slow")) == "operation:slow"
    assert book.gate_of(StoredBatch(_ID, "ann", operation="slow", options=options)) == f"batch:{_ID}"
    for name in ("free", "keyed"):
        assert book.gate_of(StoredBatch(_ID, "ann", operation=name, options='{"priority": "high"}')) is None


@pytest.mark.parametrize(
    ("options", "location"),
    [
        ({"max_concurrency": 0}, ("max_concurrency",)),
        ({"max_concurrency": True}, ("max_concurrency",)),
        ({"max_concurrency": 1.5}, ("max_concurrency",)),
        ({"rate_limit": {"items": 0}}, ("rate_limit", "items")),
        ({"rate_limit": {"items": 5, "per_s": 0}}, ("rate_limit", "per_s")),
        ({"rate_limit": {"items": 5, "per_s": 86_401}}, ("rate_limit", "per_s")),
        ({"rate_limit": {"per_s": 5}}, ("rate_limit", "items")),
        ({"rate_limit": {"items": 5, "burst": 5}}, ("rate_limit", "burst")),
        ({"rate_limit": 5}, ("rate_limit",)),
    ],
)
def test_an_invalid_limit_is_refused_with_its_place(
    options: dict[str, object], location: tuple[str, ...]
) -> None:
    with pytest.raises(ValidationError) as refused:
        BatchOptions.model_validate(options)
    assert refused.value.errors()[0]["loc"] == location


@pytest.mark.parametrize(
    ("limit", "used", "room"),
    [
        (LimitRule("k", 5), (0, 0, 0), 5),
        (LimitRule("k", 5), (3, 1, 900), 2),
        (LimitRule("k", 5), (9, 9, 0), 0),
        (LimitRule("k", None, RateLimit(items=10, per_s=60)), (900, 0, 4), 6),
        (LimitRule("k", None, RateLimit(items=10, per_s=60)), (9, 5, 4), 1),
        (LimitRule("k", 5, RateLimit(items=10, per_s=60)), (1, 0, 8), 2),
        (LimitRule("k", 2, RateLimit(items=10, per_s=60)), (1, 0, 0), 1),
    ],
)
def test_the_room_of_a_limit_is_what_both_of_its_parts_leave(
    limit: LimitRule, used: tuple[int, int, int], room: int
) -> None:
    assert rules.rooms([limit], {"k": used}) == {"k": room}


@given(
    items=st.integers(1, 30),
    per_s=st.sampled_from([1, 2, 60, 3600]),
    steps=st.lists(
        st.tuples(st.floats(0, 0.4), st.integers(1, 40), st.floats(0, 0.3)), min_size=1, max_size=60
    ),
)
def test_no_window_has_more_items_than_the_rate_allows_however_late_they_are_claimed(
    items: int, per_s: int, steps: list[tuple[float, int, float]]
) -> None:
    """Each step: periods until a look, the items that wait then, and periods until a worker claims them."""
    limit = LimitRule("k", None, RateLimit(items=items, per_s=per_s))
    slot_s = limit.slot_s
    assert slot_s is not None
    now, admitted = 1_000_000.0, list[tuple[float, int]]()
    for pause, waiting, delay in steps:
        now += pause * per_s
        claimed = [(at, count) for at, count in admitted if at <= now]
        unclaimed = sum(count for at, count in admitted if at > now)
        in_window = [
            count for at, count in claimed if math.floor(at / slot_s) * slot_s > now - limit.window_s
        ]
        room = limit.room(in_flight=0, unclaimed=unclaimed, charged=sum(in_window))
        if passed := min(room, waiting):
            admitted.append((now + delay * per_s, passed))
    for start, _ in admitted:
        assert sum(count for at, count in admitted if start <= at < start + per_s) <= items
