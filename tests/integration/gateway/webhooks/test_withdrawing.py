"""Thousands of deliveries that wait for a webhook which is disabled, on real servers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Literal
from uuid import UUID

import pytest

from gateway.webhooks import withdrawing
from support.doubles.receiver import RequestReceiver, Told
from support.gateway_stack import RunningGateway
from support.waiting import until
from support.webhook_calls import admin_id, created

WAITING = 2500


@pytest.fixture
async def noted(hooks: RunningGateway) -> AsyncIterator[None]:
    """Note in `withdrawn` how many deliveries each transaction withdraws."""
    await hooks.database.execute("CREATE TABLE withdrawn (transaction bigint, deliveries bigint)")
    await hooks.database.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO withdrawn SELECT txid_current(), count(*) FROM changed"
        "   WHERE status = ''withdrawn''; RETURN null; END'"
    )
    await hooks.database.execute(
        "CREATE TRIGGER note AFTER UPDATE ON webhook_deliveries REFERENCING NEW TABLE AS changed"
        " FOR EACH STATEMENT EXECUTE FUNCTION note()"
    )
    yield
    await hooks.database.execute("DROP TABLE withdrawn; DROP FUNCTION note CASCADE")


async def wait_for(hooks: RunningGateway, webhook_id: str, *, due_in: str) -> None:
    """Store deliveries that wait for a webhook."""
    await hooks.database.execute(
        "INSERT INTO webhook_deliveries (id, webhook_id, owner_id, type, payload, next_at)"
        " SELECT gen_random_uuid(), $1, $2, 'email.delivered', '{}', now() + $3::text::interval"
        " FROM generate_series(1, $4::int)",
        UUID(webhook_id), await admin_id(hooks), due_in, WAITING,
    )  # fmt: skip


async def statuses(hooks: RunningGateway, webhook_id: str) -> Counter[str]:
    rows = await hooks.database.fetch(
        "SELECT status FROM webhook_deliveries WHERE webhook_id = $1", UUID(webhook_id)
    )
    return Counter(row["status"] for row in rows)


@pytest.mark.parametrize("by", ["its receiver", "its owner"])
async def test_what_waits_for_a_webhook_that_is_disabled_is_withdrawn_in_steps(
    hooks: RunningGateway,
    hook: RequestReceiver,
    noted: None,
    by: Literal["its receiver", "its owner"],
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    await wait_for(hooks, webhook_id, due_in="1 hour")
    wanted = {"withdrawn": WAITING}
    if by == "its owner":
        changed = await hooks.api.patch(f"/v1/webhooks/{webhook_id}", json={"status": "disabled"})
        assert changed.json()["status"] == "disabled"
    else:
        hook.usual = Told(410)
        await hooks.api.post(f"/v1/webhooks/{webhook_id}/test")
        wanted["failed"] = 1

    async def is_done() -> bool:
        return await statuses(hooks, webhook_id) == wanted

    await until(is_done)
    rows = await hooks.database.fetch(
        "SELECT sum(deliveries)::int AS deliveries FROM withdrawn GROUP BY transaction"
    )
    found = [row["deliveries"] for row in rows]
    assert (sum(found), max(found)) == (WAITING, withdrawing.STEP)


async def test_what_a_stop_left_waiting_for_a_disabled_webhook_is_withdrawn_later(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    disabled, active = [await created(hooks.api, hook.url) for _ in range(2)]
    await hooks.api.patch(f"/v1/webhooks/{disabled}", json={"status": "disabled"})
    for webhook_id in (disabled, active):
        await wait_for(hooks, webhook_id, due_in="1 hour")
    await hooks.gateway.resources.webhook_upkeep.remove_old()
    assert await statuses(hooks, disabled) == {"withdrawn": WAITING}
    assert await statuses(hooks, active) == {"pending": WAITING}


async def test_deliveries_that_waited_for_a_disabled_webhook_are_not_sent_when_it_is_enabled(
    hooks: RunningGateway, hook: RequestReceiver
) -> None:
    webhook_id = await created(hooks.api, hook.url)
    await hooks.api.patch(f"/v1/webhooks/{webhook_id}", json={"status": "disabled"})
    await wait_for(hooks, webhook_id, due_in="-1 hour")
    enabled = await hooks.api.patch(f"/v1/webhooks/{webhook_id}", json={"status": "active"})
    assert enabled.json()["status"] == "active"
    assert await statuses(hooks, webhook_id) == {"withdrawn": WAITING}
    assert hook.requests == []
