"""Events that are promised to webhooks: what a group of them costs, however many webhooks hear of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from gateway.webhooks import promises
from gateway.webhooks.events import WebhookEvent
from gateway.webhooks.service import MOST_WEBHOOKS
from support.doubles.statements import AnsweredConnection

LONG = "x" * 40_000


class Hooks:
    """A database with all the webhooks that the owners 1, 2 … may have; notes the payloads of each insert."""

    def __init__(self, owners: int = 1) -> None:
        self.stored: list[list[str]] = []
        self._owners = [str(number) for number in range(1, owners + 1)]

    async def find_listening_webhooks(self, *_: Any) -> list[dict[str, Any]]:
        return [
            {
                "id": UUID(int=1000 * int(owner) + number),
                "owner_id": owner,
                "events": ["task.completed"],
                "made_by": f"key-{owner}",
                "maker_scopes": [],
            }
            for owner in self._owners
            for number in range(MOST_WEBHOOKS)
        ]

    async def find_usable_keys(self, key_ids: Sequence[str]) -> list[dict[str, Any]]:
        digests = {"digest": b"", "previous_digest": None, "previous_until": None}
        user = {"user_name": "Ann", "role": "member", "scopes": ["batches:read"], "expires_at": None}
        return [
            {"id": key_id, "user_id": int(key_id.removeprefix("key-")), **user, **digests}
            for key_id in key_ids
        ]

    async def count_pending_deliveries(self, ids: Sequence[UUID], _: int) -> list[dict[str, Any]]:
        return [{"id": id_, "pending": 0} for id_ in ids]

    async def insert_deliveries(self, *columns: list[Any]) -> None:
        self.stored.append(columns[4])


def ends(count: int, data: Any, *, owner: str = "1") -> list[WebhookEvent]:
    return [
        WebhookEvent(owner, "task.completed", datetime(2026, 11, 30, tzinfo=UTC), partial(data, number))
        for number in range(count)
    ]


async def promise(database: Hooks, happened: Sequence[WebhookEvent]) -> None:
    connection: Any = AnsweredConnection(database)
    await promises.Promises(lambda: None).promise(connection, happened)


async def test_the_body_of_an_event_is_written_once_for_all_webhooks() -> None:
    written: Counter[int] = Counter()

    def data(number: int) -> Mapping[str, Any]:
        written[number] += 1
        return {"number": number}

    database = Hooks()
    await promise(database, ends(30, data))
    assert set(written.values()) == {1}
    payloads = [payload for stored in database.stored for payload in stored]
    assert len(payloads) == 30 * MOST_WEBHOOKS
    assert len(set(payloads)) == 30


async def test_no_statement_stores_more_than_a_bounded_part_of_a_group() -> None:
    long, short = Hooks(), Hooks()
    await promise(long, ends(30, lambda number: {"number": number, "text": LONG}))
    await promise(short, ends(200, lambda number: {"number": number}))
    sizes = [sum(map(len, payloads)) for payloads in long.stored]
    assert sum(sizes) > 30 * MOST_WEBHOOKS * len(LONG)
    assert max(sizes) < promises.MOST_CHARACTERS_AT_ONCE + 2 * len(LONG)
    assert max(map(len, short.stored)) == promises.MOST_STORED_AT_ONCE


async def test_the_webhooks_of_an_owner_cost_nothing_for_the_events_of_others() -> None:
    looks: Counter[str] = Counter()

    class Looked(WebhookEvent):
        """An event that counts how often it is compared."""

        def __getattribute__(self, name: str) -> Any:
            looks[name] += 1
            return super().__getattribute__(name)

    happened = [
        Looked(one.owner_id, one.type, one.at, one.data, one.named)
        for number in range(30)
        for one in ends(2, lambda _: {}, owner=str(number + 1))
    ]
    looks.clear()
    await promise(Hooks(30), happened)
    assert looks["owner_id"] < 3 * len(happened) * MOST_WEBHOOKS
