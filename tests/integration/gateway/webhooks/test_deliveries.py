"""Deliveries to a receiver, on real servers: repeated, bounded, replayed and removed."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest

from gateway.webhooks import deliverer, delivery_service, promises
from gateway.webhooks.outcomes import RETRY_AFTER_S
from support.doubles.receiver import RequestReceiver, Told, receiver
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until
from support.webhook_calls import (
    READS_MAIL,
    admin_id,
    created,
    deliveries,
    detail,
    due_now,
    mail,
    until_status,
)


async def test_a_failed_attempt_is_repeated_under_the_same_id_until_one_succeeds(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    hook.script = [
        Told(500, body=b"out of order"),
        Told(302, {"location": "http://127.0.0.1/elsewhere"}),
        Told(None),
    ]
    await hooks_house.publish([mail(await admin_id(hooks))])
    for count in (1, 2, 3):
        await hook.received(count)
        (delivery,) = await deliveries(hooks.api, webhook_id)

        async def waits(attempts: int = count, delivery_id: str = delivery["id"]) -> bool:
            found = await detail(hooks.api, webhook_id, delivery_id)
            return len(found["history"]) == attempts and found["status"] == "pending"

        await until(waits)
        (waiting,) = await deliveries(hooks.api, webhook_id)
        assert waiting["next"]["what"] == f"attempt {count + 1}"
        by = datetime.fromisoformat(waiting["next"]["by"])
        usual = RETRY_AFTER_S[count - 1]
        assert usual - 5 < (by - datetime.now(UTC)).total_seconds() < 1.2 * usual
        await due_now(hooks)
    await hook.received(4)
    await until_status(hooks.api, webhook_id, delivery["id"], "succeeded")
    assert len({request.headers["webhook-id"] for request in hook.requests}) == 1
    found = await detail(hooks.api, webhook_id, delivery["id"])
    told = [(attempt["status"], attempt["answer"]) for attempt in found["history"]]
    assert told == [(500, "out of order"), (302, None), (None, None), (204, None)]


async def test_after_ten_attempts_a_delivery_has_failed_and_can_be_replayed(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    hook.usual = Told(500)
    await hooks_house.publish([mail(await admin_id(hooks))])
    for count in range(1, 11):
        await hook.received(count)
        (delivery,) = await deliveries(hooks.api, webhook_id)

        async def is_recorded(attempts: int = count, delivery_id: str = delivery["id"]) -> bool:
            return len((await detail(hooks.api, webhook_id, delivery_id))["history"]) == attempts

        await until(is_recorded)
        await due_now(hooks)
    (delivery,) = await deliveries(hooks.api, webhook_id, status="failed")
    assert (delivery["attempts"], delivery["next"]) == (10, None)
    shown = (await hooks.api.get(f"/v1/webhooks/{webhook_id}")).json()
    assert (shown["failures"], shown["last_failure"]) == (
        10, "The receiver answered 500; only 2xx is a success.",
    )  # fmt: skip
    hook.usual = Told(200, body=b"ok")
    path = f"/v1/webhooks/{webhook_id}/deliveries/{delivery['id']}/replay"
    assert (await hooks.api.post(path)).status_code == 202
    await hook.received(11)
    await until_status(hooks.api, webhook_id, delivery["id"], "succeeded")
    assert (await hooks.api.get(f"/v1/webhooks/{webhook_id}")).json()["failures"] == 0


async def test_410_disables_the_webhook_and_withdraws_what_waits(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    hook.usual = Told(500)
    owner = await admin_id(hooks)
    await hooks_house.publish([mail(owner)])
    await hook.received(1)
    hook.usual = Told(410)
    await hooks_house.publish([mail(owner)])

    async def is_disabled() -> bool:
        return bool((await hooks.api.get(f"/v1/webhooks/{webhook_id}")).json()["status"] == "disabled")

    await until(is_disabled)
    statuses = {one["status"] for one in await deliveries(hooks.api, webhook_id)}
    assert statuses == {"withdrawn", "failed"}
    await hooks_house.publish([mail(owner)])
    assert_problem(await hooks.api.post(f"/v1/webhooks/{webhook_id}/test"), 409, "conflict")
    hook.usual = Told()
    hook.requests.clear()
    enabled = await hooks.api.patch(f"/v1/webhooks/{webhook_id}", json={"status": "active"})
    assert (enabled.json()["status"], enabled.json()["disabled_reason"]) == ("active", None)
    path = f"/v1/webhooks/{webhook_id}/deliveries/replay"
    tried = (await hooks.api.post(path, params={"dry_run": "true", "type": "email.delivered"})).json()
    assert tried == {
        "matched": 2, "changed": 2, "dry_run": True, "complete": True, "next_cursor": None, "exact": True,
    }  # fmt: skip
    assert hook.requests == []
    done = (await hooks.api.post(path, params={"type": "email.delivered"})).json()
    assert done == {
        "matched": 2, "changed": 2, "dry_run": False, "complete": True, "next_cursor": None, "exact": True,
    }  # fmt: skip
    await hook.received(2)


async def test_a_receiver_that_hangs_holds_places_of_its_owner_only(
    hooks: RunningGateway, hooks_house: House
) -> None:
    user = await hooks.new_user()
    key = await hooks.new_key(*READS_MAIL, user_id=user)
    async with receiver(Told(after_s=60)) as slow, receiver() as fast, hooks.client(key) as guest:
        ids = [await created(guest, slow.url) for _ in range(10)]
        for _ in range(5):
            await hooks_house.publish([mail(str(user)) for _ in range(20)])
        await until(lambda: slow.at_once >= 10)
        await created(hooks.api, fast.url)
        await hooks_house.publish([mail(await admin_id(hooks)) for _ in range(20)])
        await fast.received(20)
        assert slow.most_at_once <= 16
        for webhook_id in ids:
            assert (await guest.delete(f"/v1/webhooks/{webhook_id}")).status_code == 204


async def test_a_receiver_that_answers_late_or_without_end_has_failed(
    hooks: RunningGateway, hook: RequestReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliverer, "ANSWER_WITHIN_S", 0.5)
    webhook_id = await created(hooks.api, hook.url)
    hook.script = [Told(after_s=60), Told(200, body=b"x" * 1_000_000)]
    late = (await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")).json()["id"]
    await hook.received(1)
    # The first one has failed; so the second one begins alone.
    endless = (await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")).json()["id"]
    for delivery_id, words in ((late, "did not answer within 0.5 s"), (endless, "more than 65536 bytes")):

        async def has_failed(delivery_id: str = delivery_id, words: str = words) -> bool:
            history = (await detail(hooks.api, webhook_id, delivery_id))["history"]
            return bool(history and words in history[0]["error"])

        await until(has_failed)


async def test_a_delivery_keeps_its_last_attempts(hooks: RunningGateway, hook: RequestReceiver) -> None:
    webhook_id = await created(hooks.api, hook.url)
    delivery_id = (await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")).json()["id"]
    for count in range(1, 23):
        await hook.received(count)
        await until_status(hooks.api, webhook_id, delivery_id, "succeeded")
        await hooks.api.post(f"/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/replay")
    await until_status(hooks.api, webhook_id, delivery_id, "succeeded")
    history = (await detail(hooks.api, webhook_id, delivery_id))["history"]
    assert len(history) == 20
    assert history == sorted(history, key=lambda attempt: attempt["at"])


async def test_a_bulk_replay_goes_on_until_it_is_complete(
    hooks: RunningGateway, hook: RequestReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery_service, "MOST_REPLAYED", 2)
    webhook_id = await created(hooks.api, hook.url)
    for _ in range(3):
        await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")
    await hook.received(3)
    for one in await deliveries(hooks.api, webhook_id):
        await until_status(hooks.api, webhook_id, one["id"], "succeeded")
    last = (await deliveries(hooks.api, webhook_id))[0]["created_at"]
    path = f"/v1/webhooks/{webhook_id}/deliveries/replay"
    wanted = {"status": "succeeded", "created_before": last}
    hook.usual = Told(500)
    first = (await hooks.api.post(path, params=wanted)).json()
    assert (first["matched"], first["changed"], first["complete"]) == (2, 2, False)
    await hook.received(5)
    rest = (await hooks.api.post(path, params={**wanted, "cursor": first["next_cursor"]})).json()
    assert rest == {
        "matched": 0, "changed": 0, "dry_run": False, "complete": True, "next_cursor": None, "exact": True,
    }  # fmt: skip


async def test_no_more_wait_for_one_webhook_than_its_limit(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promises, "MOST_PENDING", 3)
    user = await hooks.new_user()
    async with hooks.client(await hooks.new_key(*READS_MAIL, user_id=user)) as owner:
        hook.usual = Told(500)
        webhook_id = await created(owner, hook.url)
        for _ in range(5):
            await hooks_house.publish([mail(str(user))])
        # What is handled after it comes later than all of them.
        await created(hooks.api, hook.url, "email.expired")
        await hooks_house.publish([mail(await admin_id(hooks), "expired")])
        await until(lambda: any(request.type == "email.expired" for request in hook.requests))
        assert len(await deliveries(owner, webhook_id)) == 3


async def test_old_deliveries_are_removed_and_deleted_webhooks_with_all_of_theirs(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    await hooks_house.publish([mail(await admin_id(hooks)) for _ in range(3)])
    await hook.received(3)
    ids = [one["id"] for one in await deliveries(hooks.api, webhook_id)]
    for delivery_id in ids:
        await until_status(hooks.api, webhook_id, delivery_id, "succeeded")
    await hooks.database.execute(
        "UPDATE webhook_deliveries SET finished_at = now() - interval '8 days' WHERE id = $1", UUID(ids[0])
    )
    upkeep = hooks.gateway.resources.webhook_upkeep
    await upkeep.remove_old()
    assert [one["id"] for one in await deliveries(hooks.api, webhook_id)] == ids[1:]
    assert (await hooks.api.delete(f"/v1/webhooks/{webhook_id}")).status_code == 204
    await upkeep.remove_old()
    left = await hooks.database.fetchval(
        "SELECT count(*) FROM webhook_deliveries WHERE webhook_id = $1", UUID(webhook_id)
    )
    assert left == 0
    assert await hooks.database.fetchval("SELECT count(*) FROM webhooks WHERE id = $1", UUID(webhook_id)) == 0


async def test_deliveries_wait_for_a_disabled_user_for_a_week_and_for_others_as_long_as_it_takes(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    user = await hooks.new_user()
    hook.usual = Told(500)
    waiting: list[tuple[httpx.AsyncClient, str]] = []
    async with hooks.client(await hooks.new_key(*READS_MAIL, user_id=user)) as owner:
        for client in (owner, hooks.api):
            webhook_id = await created(client, hook.url)
            await client.post(f"/v1/webhooks/{webhook_id}/test")
            waiting.append((client, webhook_id))
        await hook.received(2)
        for client, webhook_id in waiting:
            await until_status(client, webhook_id, (await deliveries(client, webhook_id))[0]["id"], "pending")
        upkeep, ids = hooks.gateway.resources.webhook_upkeep, [UUID(webhook_id) for _, webhook_id in waiting]
        await hooks.change_user(user, status="disabled")
        found = []
        for days in (6, 8):
            await hooks.database.execute(
                "UPDATE webhook_deliveries SET next_at = now() - make_interval(days => $2)"
                " WHERE webhook_id = ANY ($1::uuid[]) AND status = 'pending'",
                ids,
                days,
            )
            await upkeep.remove_old()
            rows = await hooks.database.fetch(
                "SELECT webhook_id, status FROM webhook_deliveries WHERE webhook_id = ANY ($1::uuid[])", ids
            )
            found.append({row["webhook_id"]: row["status"] for row in rows})
        await hooks.change_user(user, status="active")
    of_disabled, other = ids
    assert found == [
        {of_disabled: "pending", other: "pending"},
        {of_disabled: "withdrawn", other: "pending"},
    ]
