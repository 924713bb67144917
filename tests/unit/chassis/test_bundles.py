"""Messages to one destination that travel as one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from chassis.broker import bundles
from chassis.broker.bundles import BrokenBundle
from chassis.broker.envelope import Outgoing


def message(number: int, *, key: str = "orders", body: bytes | None = None, **changes: Any) -> Outgoing:
    made = Outgoing("commands", key, body or b'{"n": %d}' % number, "order.v1", f"id-{number}", {"x": number})
    return replace(made, **changes)


def test_the_parts_of_a_bundle_are_the_messages_as_they_were() -> None:
    messages = [message(0, body=b'{"text":\n "\xc3\xa9"}'), message(1, headers={}), message(2)]
    wrapped = bundles.wrap(messages)
    parts = bundles.unwrap(wrapped.body)
    assert [(p.message_type, p.message_id, p.headers, p.body) for p in parts] == [
        (m.message_type, m.message_id, m.headers, m.body) for m in messages
    ]
    assert (wrapped.exchange, wrapped.routing_key, wrapped.persistent) == ("commands", "orders", True)


def test_messages_are_together_with_those_of_their_destination_in_their_order() -> None:
    messages = [message(number, key="even" if number % 2 == 0 else "odd") for number in range(10)]
    assert sorted(bundles.group(messages)) == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_few_messages_stay_single() -> None:
    assert bundles.group([message(number) for number in range(3)]) == [[0], [1], [2]]
    assert bundles.wrap([message(1)]) == message(1)


def test_a_bundle_is_bounded_in_messages_and_bytes() -> None:
    assert [len(group) for group in bundles.group([message(n) for n in range(150)])] == [64, 64, 22]
    large = [message(n, body=b'"' + b"x" * 12_000 + b'"') for n in range(12)]
    assert [len(group) for group in bundles.group(large)] == [5, 5, 1, 1]


@pytest.mark.parametrize(
    "unusual",
    [
        {"body": b"x" * 20_000},
        {"headers": {"x": "x" * 400_000}},
        {"headers": {"x": 2**64}},
        {"headers": {"x": "\ud800"}},
        {"headers": {"x": [1]}},
        {"headers": {str(number): 1 for number in range(100)}},
        {"message_id": "i" * 300},
        {"message_type": "t" * 300},
        {"reply_to": "somebody"},
        {"expiration_ms": 5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_an_unusual_message_is_left_out_of_its_bundle(unusual: dict[str, Any]) -> None:
    messages = [message(number) for number in range(9)]
    messages[4] = message(4, **unusual)
    assert sorted(bundles.group(messages)) == [[0, 1, 2, 3], [4], [5, 6, 7, 8]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}\n",
        b"[]\n",
        b"no json\n{}",
        b'[["t","i",{},2]]\n{',
        b'[["t","i",{},2]]\n{}}',
        b'[["t","i",{},-2]]\n',
        b'[["t","i",2]]\n{}',
    ],
)
def test_an_invalid_bundle_is_refused_without_being_quoted(body: bytes) -> None:
    with pytest.raises(BrokenBundle) as refused:
        bundles.unwrap(body)
    assert "json{" not in str(refused.value)


def test_a_bundle_of_too_many_messages_is_refused() -> None:
    most = [message(number) for number in range(256)]
    assert len(bundles.unwrap(bundles.wrap(most).body)) == 256
    with pytest.raises(BrokenBundle):
        bundles.unwrap(bundles.wrap([*most, message(256)]).body)


def test_beside_a_release_that_reads_no_bundles_every_message_stays_single(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bundles.Travel, "together", False)
    assert bundles.group([message(number) for number in range(5)]) == [[0], [1], [2], [3], [4]]
