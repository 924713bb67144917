"""Webhooks from HTTP to a receiver, on real servers: who gets which events, and who may see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from chassis.broker import envelope
from chassis.broker.envelope import new_id
from contracts.batches import Batch, BatchFinished
from gateway.webhooks import delivery_repository, service
from support.doubles.receiver import RequestReceiver
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.waiting import until
from support.webhook_calls import (
    READS_MAIL,
    admin_id,
    created,
    deliveries,
    detail,
    mail,
    until_status,
)


async def test_events_of_a_mail_are_delivered_and_verified_by_the_library_of_the_standard(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url, "email.delivered", "email.failed")
    await hooks_house.publish([mail(await admin_id(hooks), status) for status in ("queued", "delivered")])
    (request,) = await hook.received(1)
    secret = (await hooks.api.get(f"/v1/webhooks/{webhook_id}/secret")).json()
    verified = Webhook(secret["secret"]).verify(request.body, dict(request.headers))
    assert verified["type"] == "email.delivered"
    assert verified["data"]["status"] == "delivered"
    with pytest.raises(WebhookVerificationError):
        Webhook(secret["secret"]).verify(request.body + b" ", dict(request.headers))
    (delivery,) = await deliveries(hooks.api, webhook_id)
    assert delivery["id"] == request.headers["webhook-id"]
    await until_status(hooks.api, webhook_id, delivery["id"], "succeeded")
    found = await detail(hooks.api, webhook_id, delivery["id"])
    assert found["payload"] == verified
    assert [(attempt["status"], attempt["error"]) for attempt in found["history"]] == [(204, None)]
    shown = (await hooks.api.get(f"/v1/webhooks/{webhook_id}")).json()
    assert (shown["failures"], shown["last_failure"]) == (0, None)


async def test_the_end_of_a_batch_is_delivered_without_its_results(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    await created(hooks.api, hook.url, "batch.completed")
    batch = Batch.model_validate(
        {
            "id": new_id(),
            "kind": "batch",
            "operation": "echo",
            "status": "completed",
            "counts": {"total": 2, "pending": 0, "running": 0, "succeeded": 2, "failed": 0,
                       "cancelled": 0, "skipped": 0},
            "accepted_at": datetime.now(UTC),
            "finished_at": datetime.now(UTC),
            "metadata": {"order": "7"},
            "result": "secret",
        }
    )  # fmt: skip
    event = BatchFinished(batch=batch, owner_id=await admin_id(hooks))
    await hooks_house.publish([envelope.event(event, message_id=new_id())])
    (request,) = await hook.received(1)
    assert b"secret" not in request.body
    assert request.type == "batch.completed"
    assert b'"order":"7"' in request.body


async def test_events_of_other_owners_and_other_types_are_not_delivered(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    user = await hooks.new_user()
    async with hooks.client(await hooks.new_key(*READS_MAIL, user_id=user)) as owner:
        await created(owner, hook.url, "email.failed")
        messages = [
            mail("999"),
            mail(await admin_id(hooks), "failed"),
            mail(str(user)),
            mail(str(user), "failed"),
        ]
        await hooks_house.publish(messages)
        (request,) = await hook.received(1)
        assert request.type == "email.failed"
    rows = await hooks.database.fetch("SELECT type FROM webhook_deliveries WHERE owner_id = $1", str(user))
    assert [row["type"] for row in rows] == ["email.failed"]


async def test_an_event_that_comes_twice_is_delivered_once(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    message = mail(await admin_id(hooks))
    await hooks_house.publish([message, message, message])
    await hooks_house.publish([mail(await admin_id(hooks))])
    await hook.received(2)
    assert len(await deliveries(hooks.api, webhook_id)) == 2


async def test_a_secret_is_rotated_with_an_overlap_in_which_both_sign(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    old = (await hooks.api.get(f"/v1/webhooks/{webhook_id}/secret")).json()["secret"]
    assert (await hooks.api.post(f"/v1/webhooks/{webhook_id}/rotate", json={"overlap_s": 60})).is_success
    new = (await hooks.api.get(f"/v1/webhooks/{webhook_id}/secret")).json()
    assert (new["previous_secret"], new["secret"] == old) == (old, False)
    assert (await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")).status_code == 202
    (both,) = await hook.received(1)
    for secret in (old, new["secret"]):
        assert Webhook(secret).verify(both.body, dict(both.headers))["type"] == "webhook.test"
    assert (await hooks.api.post(f"/v1/webhooks/{webhook_id}/rotate", json={"overlap_s": 0})).is_success
    await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")
    request = (await hook.received(2))[1]
    with pytest.raises(WebhookVerificationError):
        Webhook(new["secret"]).verify(request.body, dict(request.headers))


async def test_internal_addresses_are_refused_in_a_url_and_when_a_name_resolves_to_one(house: House) -> None:
    guarded = await house.open()
    for url in (
        "http://127.0.0.1:9/",
        "http://169.254.169.254/latest",
        "https://[::1]/",
        "http://10.0.0.1:25/",
    ):
        answer = await guarded.api.post("/v1/webhooks", json={"url": url, "events": ["email.failed"]})
        assert assert_problem(answer, 422, "invalid-input")["errors"][0]["pointer"] == "/url"
    webhook_id = await created(guarded.api, "http://localhost:9999/")
    delivery = (await guarded.api.post(f"/v1/webhooks/{webhook_id}/test")).json()

    async def is_refused() -> bool:
        history = (await detail(guarded.api, webhook_id, delivery["id"]))["history"]
        return bool(history and "not public" in history[0]["error"])

    await until(is_refused)


async def test_an_event_needs_the_scope_of_its_object_to_be_chosen_delivered_and_read(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    user = await hooks.new_user()
    only = await hooks.new_key("webhooks:write", user_id=user)
    both = await hooks.new_key(*READS_MAIL, user_id=user)
    async with hooks.client(only) as narrow, hooks.client(both) as wide:
        wanted = {"url": hook.url, "events": ["email.delivered"]}
        assert_problem(await narrow.post("/v1/webhooks", json=wanted), 403, "forbidden")
        webhook_id = await created(wide, hook.url)
        await hooks_house.publish([mail(str(user))])
        await hook.received(1)
        (delivery,) = await deliveries(wide, webhook_id)
        assert await deliveries(narrow, webhook_id) == []
        assert await deliveries(wide, webhook_id, type="email.failed") == []
        refused = await narrow.get(
            f"/v1/webhooks/{webhook_id}/deliveries", params={"type": "email.delivered"}
        )
        assert_problem(refused, 403, "forbidden")
        path = f"/v1/webhooks/{webhook_id}/deliveries/{delivery['id']}"
        assert_problem(await narrow.get(path), 403, "forbidden")
        assert_problem(await narrow.post(f"{path}/replay"), 403, "forbidden")
        # A new address would get what waits and what comes.
        moved = await narrow.patch(f"/v1/webhooks/{webhook_id}", json={"url": "https://example.com/"})
        assert_problem(moved, 403, "forbidden")
        bulk = f"/v1/webhooks/{webhook_id}/deliveries/replay"
        before = {"created_before": (datetime.now(UTC) + timedelta(days=1)).isoformat()}
        found = await narrow.post(bulk, params={**before, "status": "succeeded", "dry_run": "true"})
        assert found.json()["matched"] == 0
        assert_problem(
            await narrow.post(bulk, params={**before, "type": "email.delivered"}), 403, "forbidden"
        )
        key_id = both.split("_")[2]
        await hooks.database.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key_id)
        await hooks_house.publish([mail(str(user))])
        await hooks_house.publish([mail(await admin_id(hooks))])
        other = await created(hooks.api, hook.url)
        await hooks_house.publish([mail(await admin_id(hooks))])
        await hook.received(2)
        assert len(await deliveries(hooks.api, other)) == 1
    async with hooks.client(await hooks.new_key(*READS_MAIL, user_id=user)) as reader:
        assert len(await deliveries(reader, webhook_id)) == 1


async def test_a_repeated_replay_is_answered_only_to_a_key_that_may_read_the_events(
    hooks: RunningGateway, hooks_house: House, hook: RequestReceiver
) -> None:
    user = await hooks.new_user()
    reads, narrow = [await hooks.new_key(*scopes, user_id=user) for scopes in (READS_MAIL, READS_MAIL[:1])]
    async with hooks.client(reads) as reader, hooks.client(narrow) as other:
        webhook_id = await created(reader, hook.url)
        await hooks_house.publish([mail(str(user))])
        await hook.received(1)
        (delivery,) = await deliveries(reader, webhook_id)
        await until_status(reader, webhook_id, delivery["id"], "succeeded")
        path = f"/v1/webhooks/{webhook_id}/deliveries"
        for way in (f"{path}/replay?status=succeeded&dry_run=true", f"{path}/{delivery['id']}/replay"):
            headers = {"idempotency-key": f'"{way}"'}
            first = await reader.post(way, headers=headers)
            assert_problem(await other.post(way, headers=headers), 403, "forbidden")
            again = await reader.post(way, headers=headers)
            assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
        assert first.json()["type"] == "email.delivered"


async def test_an_owner_has_a_limited_number_of_webhooks_and_repeats_are_harmless(
    hooks: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MOST_WEBHOOKS", 2)
    async with hooks.client(await hooks.new_key(*READS_MAIL)) as owner:
        headers = {"idempotency-key": '"one"'}
        first = await created(owner, "https://example.com/", **headers)
        assert await created(owner, "https://example.com/", **headers) == first
        second = await created(owner, "https://example.com/")
        wanted = {"url": "https://example.com/", "events": ["email.failed"]}
        assert_problem(await owner.post("/v1/webhooks", json=wanted), 409, "conflict")
        page = (await owner.get("/v1/webhooks", params={"limit": 1})).json()
        assert [one["id"] for one in page["data"]] == [second]
        rest = (await owner.get("/v1/webhooks", params={"cursor": page["next_cursor"]})).json()
        assert ([one["id"] for one in rest["data"]], rest["next_cursor"]) == ([first], None)
        tag = (await owner.get(f"/v1/webhooks/{first}")).headers["etag"]
        changed = await owner.patch(
            f"/v1/webhooks/{first}", json={"description": "x"}, headers={"if-match": tag}
        )
        assert (changed.status_code, changed.json()["description"]) == (200, "x")
        nothing = await owner.patch(f"/v1/webhooks/{first}", json={"url": None})
        assert_problem(nothing, 422, "invalid-input", "/url")
        assert (await owner.get(f"/v1/webhooks/{first}")).headers["etag"] == changed.headers["etag"]
        stale = await owner.delete(f"/v1/webhooks/{first}", headers={"if-match": tag})
        assert_problem(stale, 412, "precondition-failed")
        assert (await owner.delete(f"/v1/webhooks/{first}")).status_code == 204
        assert_problem(await owner.get(f"/v1/webhooks/{first}"), 404, "not-found")
    actions = [
        row["action"] for row in await hooks.database.fetch(
            "SELECT action FROM audit_entries WHERE target = $1 ORDER BY id", f"webhook:{first}"
        )
    ]  # fmt: skip
    assert actions == ["webhook.created", "webhook.changed", "webhook.deleted"]


async def test_secrets_are_stored_encrypted_and_anew_after_a_rotation_of_the_pepper(
    house: House,
) -> None:
    dsn = await house.database()
    before = await house.open(dsn=dsn)
    webhook_id = await created(before.api, "https://example.com/")
    secret = (await before.api.get(f"/v1/webhooks/{webhook_id}/secret")).json()["secret"]
    row = await before.database.fetchrow("SELECT * FROM webhooks WHERE id = $1", UUID(webhook_id))
    assert row is not None
    assert secret.removeprefix("whsec_").encode() not in row["secret"]
    pepper = before.settings.key_pepper.get_secret_value()
    after = await house.open(
        dsn=dsn,
        bootstrap_key=before.admin_key,
        key_pepper="another pepper for the tests",
        previous_key_pepper=pepper,
    )
    assert (await after.api.get(f"/v1/webhooks/{webhook_id}/secret")).json()["secret"] == secret
    await after.gateway.resources.webhook_upkeep.reseal()
    sealed = await after.database.fetchval("SELECT sealed_with FROM webhooks WHERE id = $1", UUID(webhook_id))
    assert sealed != row["sealed_with"]
    assert (await after.api.get(f"/v1/webhooks/{webhook_id}/secret")).json()["secret"] == secret


async def test_two_gateways_share_the_deliveries_and_each_is_made_once(
    house: House, hooks: RunningGateway, hook: RequestReceiver
) -> None:
    dsn = await house.database()
    first = await house.open(dsn=dsn, webhook_internal_targets="127.0.0.1")
    second = await house.open(dsn=dsn, webhook_internal_targets="127.0.0.1", bootstrap_key=first.admin_key)
    webhook_id = await created(first.api, hook.url)
    owner = await admin_id(first)
    payloads = [
        delivery_repository.NewDelivery(new_id(), UUID(webhook_id), owner, "email.delivered", '{"type":"n"}')
        for _ in range(60)
    ]
    async with first.gateway.resources.runtime.postgres.transaction() as connection:
        await delivery_repository.insert(connection, payloads)
    for one in (first, second):
        one.gateway.resources.deliverer.wake()
    await hook.received(60)
    ids = [request.headers["webhook-id"] for request in hook.requests]
    assert sorted(ids) == sorted(str(one.id) for one in payloads)
