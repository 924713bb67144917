"""Webhooks that are changed while something is on its way to them, on real servers."""

from __future__ import annotations

import asyncio
from uuid import UUID

from gateway.webhooks import repository
from support.doubles.receiver import RequestReceiver, Told
from support.gateway_stack import House, RunningGateway
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


async def _somebody_waits_for_a_lock(hooks: RunningGateway) -> bool:
    return bool(
        await hooks.database.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND wait_event_type = 'Lock'"
        )
    )


async def test_a_webhook_is_disabled_while_an_attempt_ends_and_neither_waits_for_the_other(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    hook.usual = Told(500, after_s=0.5)
    delivery_id = (await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")).json()["id"]
    await hook.received(1)
    async with hooks.gateway.resources.runtime.postgres.transaction() as connection:
        await repository.lock(connection, UUID(webhook_id), await admin_id(hooks))
        await until(lambda: _somebody_waits_for_a_lock(hooks))
        await repository.withdraw(connection, UUID(webhook_id), most=10)
    await until_status(hooks.api, webhook_id, delivery_id, "withdrawn")

    async def is_noted() -> bool:
        return bool((await hooks.api.get(f"/v1/webhooks/{webhook_id}")).json()["failures"] == 1)

    # The database would have ended one of two that wait for each other.
    await until(is_noted, timeout_s=5)


async def test_410_of_a_url_that_was_replaced_meanwhile_does_not_disable_the_webhook(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    hook.usual = Told(410, after_s=0.5)
    delivery_id = (await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")).json()["id"]
    await hook.received(1)
    moved = await hooks.api.patch(f"/v1/webhooks/{webhook_id}", json={"url": f"{hook.url}/new"})
    assert moved.status_code == 200
    await until_status(hooks.api, webhook_id, delivery_id, "failed")
    shown = (await hooks.api.get(f"/v1/webhooks/{webhook_id}")).json()
    assert (shown["status"], shown["failures"]) == ("active", 0)


async def test_nothing_waits_for_a_webhook_that_was_disabled_while_an_event_was_handled(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    owner = await admin_id(hooks)
    postgres = hooks.gateway.resources.runtime.postgres
    async with postgres.transaction() as connection:
        found = await repository.listening(connection, [owner], ["email.delivered"])
        assert webhook_id in {str(row["id"]) for row in found}
        change = asyncio.create_task(
            hooks.api.patch(f"/v1/webhooks/{webhook_id}", json={"status": "disabled"})
        )
        await until(lambda: change.done() or _somebody_waits_for_a_lock(hooks))
        await connection.execute(
            "INSERT INTO webhook_deliveries (id, webhook_id, owner_id, type, payload) "
            "VALUES (gen_random_uuid(), $1, $2, 'email.delivered', '{}')",
            UUID(webhook_id), owner,
        )  # fmt: skip
    assert (await change).json()["status"] == "disabled"
    assert [one["status"] for one in await deliveries(hooks.api, webhook_id)] == ["withdrawn"]


async def test_nothing_is_sent_for_a_user_who_was_disabled_until_they_are_enabled_again(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    user = await hooks.new_user()
    async with hooks.client(await hooks.new_key(*READS_MAIL, user_id=user)) as owner:
        webhook_id = await created(owner, hook.url)
        hook.usual = Told(500)
        await owner.post(f"/v1/webhooks/{webhook_id}/test")
        await hook.received(1)
    await hooks.change_user(user, status="disabled")
    await due_now(hooks)
    # A look that finds what came later has passed over what waits for the user.
    other = await created(hooks.api, hook.url)
    sent = (await hooks.api.post(f"/v1/webhooks/{other}/test")).json()["id"]
    assert [request.headers["webhook-id"] for request in await hook.received(2)][1:] == [sent]
    await hooks.change_user(user, status="active")
    await due_now(hooks)
    await hook.received(3)


async def test_the_audit_trail_names_the_server_of_a_url_and_no_token_in_it(hooks: RunningGateway) -> None:
    webhook_id = await created(hooks.api, "https://example.com/services/T0KEN")
    path = f"/v1/webhooks/{webhook_id}"
    moved = await hooks.api.patch(path, json={"url": "https://example.org:8443?key=T0KEN"})
    assert moved.status_code == 200
    assert (await hooks.api.delete(path)).status_code == 204
    rows = await hooks.database.fetch(
        "SELECT action, before::text, after::text FROM audit_entries WHERE target = $1 ORDER BY id",
        f"webhook:{webhook_id}",
    )
    kept = " ".join(str(value) for row in rows for value in row.values())
    assert len(rows) == 3
    assert "T0KEN" not in kept
    assert "https://example.com/…" in kept
    assert "https://example.org:8443/…" in kept


async def test_a_stop_gives_back_interrupted_attempts(house: House, hook: RequestReceiver) -> None:
    dsn = await house.database()
    stopped = await house.open(dsn=dsn, webhook_internal_targets="127.0.0.1")
    webhook_id = await created(stopped.api, hook.url)
    hook.script = [Told(after_s=60)]
    delivery_id = (await stopped.api.post(f"/v1/webhooks/{webhook_id}/test")).json()["id"]
    await hook.received(1)
    await stopped.gateway.resources.deliverer.close()
    other = await house.open(dsn=dsn, webhook_internal_targets="127.0.0.1", bootstrap_key=stopped.admin_key)
    await hook.received(2)
    await until_status(other.api, webhook_id, delivery_id, "succeeded")
    (delivery,) = await deliveries(other.api, webhook_id)
    assert delivery["attempts"] == 1


async def test_a_stop_gives_back_what_is_being_claimed_at_that_moment(
    house: House, hook: RequestReceiver
) -> None:
    stopped = await house.open(dsn=await house.database(), webhook_internal_targets="127.0.0.1")
    await stopped.database.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_advisory_xact_lock(1); RETURN new; END'"
    )
    await stopped.database.execute(
        "CREATE TRIGGER wait BEFORE UPDATE ON webhook_deliveries FOR EACH ROW EXECUTE FUNCTION wait()"
    )
    webhook_id = await created(stopped.api, hook.url)
    hook.usual = Told(after_s=60)
    async with stopped.database.acquire() as holder, holder.transaction():
        await holder.execute("SELECT pg_advisory_xact_lock(1)")
        await stopped.api.post(f"/v1/webhooks/{webhook_id}/test")
        await until(lambda: _somebody_waits_for_a_lock(stopped))
        closing = asyncio.create_task(stopped.gateway.resources.deliverer.close())
        await asyncio.sleep(0)
    await closing

    async def nobody_waits() -> bool:
        return not await _somebody_waits_for_a_lock(stopped)

    await until(nobody_waits)
    claimed = await stopped.database.fetchval("SELECT count(*) FROM webhook_deliveries WHERE attempts > 0")
    assert claimed == 0


async def test_what_a_revoked_key_has_promised_is_withdrawn_and_can_be_replayed_for_another(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    user = await hooks.new_user()
    key = await hooks.new_key(*READS_MAIL, user_id=user)
    async with hooks.client(key) as owner:
        webhook_id = await created(owner, hook.url)
        hook.usual = Told(500)
        await hooks_house.publish([mail(str(user))])
        await hook.received(1)
    await hooks.database.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key.split("_")[2])
    async with hooks.client(await hooks.new_key(*READS_MAIL, user_id=user)) as owner:
        (delivery,) = await deliveries(owner, webhook_id)
        await due_now(hooks)
        await until_status(owner, webhook_id, delivery["id"], "withdrawn")
        found = await detail(owner, webhook_id, delivery["id"])
        assert (found["attempts"], [one["status"] for one in found["history"]]) == (1, [500, None])
        assert "change the webhook with another one" in found["history"][1]["error"]
        hook.usual = Told()
        changed = await owner.patch(f"/v1/webhooks/{webhook_id}", json={"description": "of another key"})
        assert changed.status_code == 200
        replayed = await owner.post(f"/v1/webhooks/{webhook_id}/deliveries/{delivery['id']}/replay")
        assert replayed.status_code == 202
        await until_status(owner, webhook_id, delivery["id"], "succeeded")
        assert len(hook.requests) == 2
