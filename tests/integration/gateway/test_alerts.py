"""Price alerts from HTTP to the socket and the mail, with the real stock-data and its replay behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4, uuid5

import orjson
import pytest

from chassis.broker import envelope
from chassis.deadlines import Deadline
from contracts.alerts import Alert, AlertFired, CreateAlert, DeleteAlert, EmailTarget, Firing
from contracts.scopes import Scope
from contracts.topology import STOCK_DATA
from native.memcached import Memcached
from native.postgres import PostgresServer
from support.doubles.receiver import receiver
from support.gateway_stack import House, RunningGateway
from support.own_broker import house_with_own_broker
from support.problems import assert_problem
from support.pushes import NOW
from support.realtime_clients import PythonClient, is_event, wait_for
from support.stock_stack import DAYS_OF_A_SECOND, StockStack
from support.waiting import until
from support.webhook_calls import created as webhook
from support.webhook_calls import deliveries

ABOVE_ALL = {"symbol": "aapl", "condition": {"above": 1_000_000}}
# The replay passes it again and again in its first days, which last a second each: so the test that needs it
# is the first one.
PASSED = {"symbol": "AAPL", "condition": {"crosses": 561.5}}
NOBODYS = "01a2272e-bc02-7694-aa9b-1f5d3c7e0a11"
MAIL = {"email": "ann@example.com"}
NAMES_HOOKS = ("alerts:read", "alerts:write", "emails:read", "webhooks:write")


@pytest.fixture(scope="module")
async def alerts_house(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, memcached_server: Memcached
) -> AsyncIterator[House]:
    """Yield a house with a broker of its own: its events and ticks reach this gateway only."""
    folder = tmp_path_factory.mktemp("rabbitmq")
    async with house_with_own_broker(folder, postgres_server, memcached_server) as own:
        yield own


@pytest.fixture(scope="module")
async def alerts(alerts_house: House) -> AsyncIterator[RunningGateway]:
    """Yield a gateway in front of the real stock-data."""
    async with AsyncExitStack() as stack:
        dsn = await alerts_house.database("stock_data")
        stocks = StockStack(alerts_house.rabbitmq_url, dsn, stack)
        await stocks.run(replay_enabled=True, alerts_per_owner=20, **DAYS_OF_A_SECOND)
        listener = await alerts_house.open(webhook_internal_targets="127.0.0.1")

        async def knows_symbols() -> bool:
            return (await listener.api.get("/v1/stocks/AAPL")).status_code == 200

        await until(knows_symbols)
        yield listener


async def created(listener: RunningGateway, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await listener.api.post("/v1/alerts", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/alerts/{answer.json()['id']}"
    found: dict[str, Any] = answer.json()
    return found


async def test_an_alert_that_fires_is_pushed_to_its_owner_and_mailed_once(
    alerts: RunningGateway, alerts_house: House
) -> None:
    await alerts_house.purge("email.send")
    owner, stranger = PythonClient(), PythonClient()
    try:
        await owner.open(f"{alerts.socket_url}/v1/realtime", alerts.admin_key)
        await stranger.open(f"{alerts.socket_url}/v1/realtime", await alerts.new_key("alerts:read"))
        for client in (owner, stranger):
            await client.subscribe("alerts")
            await wait_for(client, is_event("subscribed", channel="alerts"))
        made = await created(alerts, {**PASSED, "notify": [MAIL]})
        [heard] = await wait_for(owner, is_event("publication", channel="alerts"))
        firing = heard["data"]
        assert (firing["alert_id"], firing["symbol"], firing["simulated"]) == (made["id"], "AAPL", True)
        assert firing["condition"] == PASSED["condition"]
        [mail] = await alerts_house.take("email.send")
        email_id = str(uuid5(UUID(firing["id"]), "0"))
        assert (mail["email_id"], mail["owner_id"], mail["to"]) == (email_id, "1", [MAIL["email"]])
        assert mail["subject"] == "AAPL has crossed 561.5"
        assert "simulated" in mail["text"]
        assert (await alerts.api.get(f"/v1/emails/{email_id}")).json()["status"] == "queued"
        found = (await alerts.api.get(f"/v1/alerts/{made['id']}")).json()
        assert (found["status"], found["fired_count"], found["last_price"]) == ("fired", 1, firing["price"])
        history = await owner.call("history", channel="alerts", limit=1, reverse=True)
        assert history["publications"] == [{"offset": heard["offset"], "data": firing, "info": None}]
        assert not [event for event in stranger.events if event["event"] == "publication"]
        assert await alerts_house.depth("email.send") == 0
    finally:
        for client in (owner, stranger):
            await client.close()


async def test_an_alert_is_made_read_listed_and_ended_by_its_owner_only(alerts: RunningGateway) -> None:
    made = await created(alerts, {**ABOVE_ALL, "notify": [MAIL], "expires_at": "2026-12-31T00:00:00Z"})
    assert (made["symbol"], made["condition"], made["notify"]) == ("AAPL", ABOVE_ALL["condition"], [MAIL])
    assert (made["status"], made["once"], made["expires_at"]) == ("armed", True, "2026-12-31T00:00:00Z")
    path = f"/v1/alerts/{made['id']}"
    assert (await alerts.api.get(path)).json() == made
    listed = (await alerts.api.get("/v1/alerts", params={"limit": 1, "status": "armed,fired"})).json()
    assert listed["data"] == [made]
    async with alerts.client(await alerts.new_key("alerts:read", "alerts:write")) as other:
        assert (await other.get("/v1/alerts")).json() == {"data": [], "next_cursor": None}
        for answer in (await other.get(path), await other.delete(path)):
            assert_problem(answer, 404, "not-found")
    assert (await alerts.api.delete(path)).status_code == 204
    assert_problem(await alerts.api.get(path), 404, "not-found")
    assert_problem(await alerts.api.delete(path), 404, "not-found")
    trail = await alerts.api.get("/v1/admin/audit", params={"target": f"alert:{made['id']}"})
    deleted, first = trail.json()["data"]
    assert (first["action"], deleted["action"]) == ("alert.created", "alert.deleted")
    assert first["after"] == deleted["before"]
    assert (first["after"]["symbol"], first["after"]["notify"]) == ("AAPL", [MAIL])


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"condition": {"above": 1, "below": 2}}, 422, "invalid-input", "/condition"),
        ({"condition": {"above": "1"}}, 422, "invalid-input", "/condition/above"),
        ({"notify": [{"webhook": "https://example.com"}]}, 422, "invalid-input", "/notify/0/webhook"),
        ({"notify": [MAIL, {"webhook": NOBODYS}]}, 422, "invalid-input", "/notify/1/webhook"),
        ({"notify": [{**MAIL, "webhook": NOBODYS}]}, 422, "invalid-input", "/notify/0"),
        ({"notify": [{}]}, 422, "invalid-input", "/notify/0"),
        ({"notify": [MAIL] * 6}, 422, "invalid-input", "/notify"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "invalid-input", "/expires_at"),
        ({"symbol": "AAPLE"}, 404, "unknown-symbol", None),
    ],
    ids=str,
)
async def test_an_alert_that_could_not_fire_is_refused(
    alerts: RunningGateway, change: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = await alerts.api.post("/v1/alerts", json={**ABOVE_ALL, **change})
    assert_problem(answer, status, code)
    assert pointer is None or pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_the_same_key_makes_one_alert_even_where_the_gateway_lost_its_answer(
    alerts: RunningGateway,
) -> None:
    key = {"idempotency-key": uuid4().hex}
    first = await created(alerts, ABOVE_ALL, **key)
    again = await alerts.api.post("/v1/alerts", json=ABOVE_ALL, headers=key)
    assert (again.json(), again.headers["idempotent-replayed"]) == (first, "true")
    await alerts.database.execute("DELETE FROM idempotency")
    assert (await created(alerts, ABOVE_ALL, **key))["id"] == first["id"]
    other = await alerts.api.post("/v1/alerts", json={**ABOVE_ALL, "once": False}, headers=key)
    assert_problem(other, 422, "idempotency-mismatch")


async def test_an_alert_is_answered_again_when_a_webhook_that_it_names_is_gone(
    alerts: RunningGateway,
) -> None:
    webhook_id = await webhook(alerts.api, "https://example.com/", "email.failed")
    key, body = {"idempotency-key": uuid4().hex}, {**ABOVE_ALL, "notify": [{"webhook": webhook_id}]}
    first = await created(alerts, body, **key)
    assert (await alerts.api.delete(f"/v1/webhooks/{webhook_id}")).status_code == 204
    again = await alerts.api.post("/v1/alerts", json=body, headers=key)
    assert (again.status_code, again.json()) == (201, first)
    assert_problem(await alerts.api.post("/v1/alerts", json=body), 422, "invalid-input")


async def test_an_alert_that_an_older_stock_data_stores_without_its_webhooks_is_refused(
    listener: RunningGateway, house: House
) -> None:
    stored: dict[UUID, CreateAlert] = {}

    def without_webhooks(request: CreateAlert) -> Alert:
        known = request.model_dump(include={"symbol", "condition", "notify", "once"})
        return Alert.model_validate({**known, "id": request.alert_id, "status": "armed", "created_at": NOW})

    async def create(request: CreateAlert, _: Deadline) -> Alert:
        stored[request.alert_id] = request
        return without_webhooks(request)

    async def delete(request: DeleteAlert, _: Deadline) -> Alert:
        return without_webhooks(stored.pop(request.alert_id))

    await house.double(STOCK_DATA, {CreateAlert: create, DeleteAlert: delete})
    webhook_id = await webhook(listener.api, "https://example.com/", "email.failed")
    refused = await listener.api.post(
        "/v1/alerts", json={**ABOVE_ALL, "notify": [MAIL, {"webhook": webhook_id}]}
    )
    assert_problem(refused, 503, "service-unavailable")
    assert int(refused.headers["retry-after"]) >= 1
    assert not stored
    with_mail = await listener.api.post("/v1/alerts", json={**ABOVE_ALL, "notify": [MAIL]})
    assert (with_mail.status_code, with_mail.json()["notify"]) == (201, [MAIL])


async def test_a_mail_needs_the_right_to_send_it_when_the_alert_is_made(alerts: RunningGateway) -> None:
    async with alerts.client(await alerts.new_key("alerts:write")) as client:
        refused = await client.post("/v1/alerts", json={**ABOVE_ALL, "notify": [MAIL]})
        assert_problem(refused, 403, "forbidden")
        assert "emails:send" in refused.json()["detail"]
        assert (await client.post("/v1/alerts", json=ABOVE_ALL)).status_code == 201


async def test_targets_of_an_alert_are_shown_as_they_were_sent(alerts: RunningGateway) -> None:
    first, second = [await webhook(alerts.api, "https://example.com/", "email.failed") for _ in range(2)]
    other = {"email": "bob@example.com"}
    for notify in (
        [{"webhook": first}, MAIL, {"webhook": second}, other, {"webhook": first}],
        [MAIL, other, {"webhook": second}],
    ):
        made = await created(alerts, {**ABOVE_ALL, "notify": notify})
        assert made["notify"] == notify
        assert (await alerts.api.get(f"/v1/alerts/{made['id']}")).json() == made
        assert (await alerts.api.get("/v1/alerts")).json()["data"][0] == made
        assert (await alerts.api.delete(f"/v1/alerts/{made['id']}")).status_code == 204


async def test_an_alert_names_only_webhooks_of_its_owner_and_needs_the_scopes_of_webhooks(
    alerts: RunningGateway,
) -> None:
    foreign = await webhook(alerts.api, "https://example.com/", "email.failed")
    body = {**ABOVE_ALL, "notify": [{"webhook": foreign}]}
    async with alerts.client(await alerts.new_key(*NAMES_HOOKS)) as other:
        refused = await other.post("/v1/alerts", json=body)
        assert_problem(refused, 422, "invalid-input")
        assert [error["pointer"] for error in refused.json()["errors"]] == ["/notify/0/webhook"]
    async with alerts.client(await alerts.new_key("alerts:write")) as narrow:
        refused = await narrow.post("/v1/alerts", json=body)
        assert_problem(refused, 403, "forbidden")
        assert "webhooks:write alerts:read" in refused.json()["detail"]


def fired(owner_id: str, made_by: str, *, webhooks: Sequence[str] = ()) -> AlertFired:
    firing = Firing.model_validate(
        {
            "id": uuid4(),
            "offset": 1,
            "alert_id": uuid4(),
            "symbol": "A",
            "condition": {"change_percent": -5},
            "price": 9.4,
            "change_percent": -6.1,
            "as_of": NOW,
            "source": "double",
            "simulated": False,
        }
    )
    notify = [EmailTarget(email="ann@example.com"), EmailTarget(email="bob@example.com")]
    named = [None, None, *map(UUID, webhooks)] if webhooks else []
    return AlertFired(
        owner_id=owner_id, made_by=made_by, epoch="e", firing=firing, notify=notify, webhooks=named
    )


async def without_right(listener: RunningGateway, key_id: str, user: int) -> None:
    await listener.database.execute("UPDATE api_keys SET scopes = '{alerts:write}' WHERE id = $1", key_id)


async def revoked(listener: RunningGateway, key_id: str, user: int) -> None:
    await listener.database.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key_id)


async def disabled(listener: RunningGateway, key_id: str, user: int) -> None:
    await listener.change_user(user, status="disabled")


@pytest.mark.parametrize("lose", [without_right, revoked, disabled])
@pytest.mark.parametrize("is_token", [False, True])
async def test_an_owner_who_may_not_send_mail_any_more_gets_none_when_an_alert_fires(
    alerts: RunningGateway, alerts_house: House, lose: Callable[..., Any], is_token: bool
) -> None:
    await alerts_house.purge("email.send")
    user, other = await alerts.new_user(), await alerts.new_user()
    lost = (await alerts.new_key("alerts:write", Scope.EMAILS_SEND, user_id=user)).split("_")[2]
    kept = (await alerts.new_key(Scope.EMAILS_SEND, user_id=other)).split("_")[2]
    await lose(alerts, lost, user)
    made_by = f"jwt:{uuid4()}" if is_token else lost
    still_may = is_token and lose is not disabled
    events = [fired(str(user), made_by), fired(str(other), kept), fired(str(user), kept)]
    messages = [envelope.event(event, message_id=event.firing.id) for event in events]
    # Twice, as a broker may bring them.
    await alerts_house.publish([*messages, *messages])
    mails = await alerts_house.take("email.send", 4 if still_may else 2)
    assert sorted(mail["to"] for mail in mails if mail["owner_id"] == str(other)) == [
        ["ann@example.com"], ["bob@example.com"],
    ]  # fmt: skip
    assert len([mail for mail in mails if mail["owner_id"] == str(user)]) == (2 if still_may else 0)
    assert mails[0]["subject"] == "A has changed by more than -5 % since the previous close"
    assert await alerts_house.depth("email.send") == 0


@pytest.mark.parametrize("lose", [without_right, revoked])
async def test_a_firing_goes_to_a_named_webhook_while_the_maker_of_its_alert_may_use_webhooks(
    alerts: RunningGateway, alerts_house: House, lose: Callable[..., Any]
) -> None:
    user = await alerts.new_user()
    lost, kept = [await alerts.new_key(*NAMES_HOOKS, user_id=user) for _ in range(2)]
    async with receiver() as hook, alerts.client(kept) as owner:
        webhook_id = await webhook(owner, hook.url, "email.failed")
        await lose(alerts, lost.split("_")[2], user)
        makers = [key.split("_")[2] for key in (lost, kept, kept)]
        events = [fired(str(user), made_by, webhooks=[webhook_id]) for made_by in makers]
        first, second, third = [envelope.event(event, message_id=event.firing.id) for event in events]
        # Twice, as a broker may bring them.
        await alerts_house.publish([first, second, first, second])
        await hook.received(1)
        await alerts_house.publish([third])
        await hook.received(2)
        told = [orjson.loads(request.body)["data"]["id"] for request in hook.requests]
        assert told == [str(event.firing.id) for event in events[1:]]
        assert len(await deliveries(owner, webhook_id)) == 2


async def test_a_webhook_gets_a_firing_once_by_whichever_way_it_has_come_to_it(
    alerts: RunningGateway, alerts_house: House
) -> None:
    user = await alerts.new_user()
    key = await alerts.new_key(*NAMES_HOOKS, user_id=user)
    async with receiver() as hook, alerts.client(key) as owner:
        listening = await webhook(owner, hook.url, "alert.fired")
        quiet = await webhook(owner, hook.url, "email.failed")
        events = [
            fired(str(user), key.split("_")[2], webhooks=named)
            for named in ([listening, quiet, quiet], [], [listening])
        ]
        for event in events:
            await alerts_house.publish([envelope.event(event, message_id=event.firing.id)])
        await hook.received(4)
        for webhook_id, count in ((listening, 3), (quiet, 1)):
            assert [one["type"] for one in await deliveries(owner, webhook_id)] == ["alert.fired"] * count
