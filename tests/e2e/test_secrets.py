"""No secret and no mail content is in logs, metrics, readiness, answers, spans or parked messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

import httpx
import pytest

from faults import rig as rigs
from faults.rig import Rig
from gateway.identity import keys
from native.services import NAMES
from support import secret_failures, secret_uses
from support.doubles import alpaca, prometheus
from support.doubles.collector import collecting
from support.heard import (
    IDEMPOTENCY_KEY,
    LETTER,
    PROMETHEUS_PASSWORD,
    SMTP_PASSWORD,
    WRONG_PASSWORD,
    HeardProduct,
)
from support.planted import Planted

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[HeardProduct]:
    async with AsyncExitStack() as opened:
        collector = await opened.enter_async_context(collecting())
        provider = await opened.enter_async_context(alpaca.running())
        monitoring = await opened.enter_async_context(prometheus.start())
        variables = {
            "LOG_LEVEL": "DEBUG",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "EMAIL_SMTP_TLS": "off",
            "EMAIL_SMTP_USERNAME": "tickwire",
            "EMAIL_SMTP_PASSWORD": SMTP_PASSWORD,
            "EMAIL_AUTHENTICATION_PAUSE_S": "0.5",
            "STOCK_DATA_PROVIDERS": "alpaca,embedded",
            "STOCK_DATA_ALPACA_URL": provider.url,
            "STOCK_DATA_ALPACA_KEY_ID": alpaca.KEY_ID,
            "STOCK_DATA_ALPACA_SECRET_KEY": alpaca.SECRET,
            "STOCK_DATA_QUOTE_TTL_S": "0",
            "GATEWAY_PROMETHEUS_URL": monitoring.url.replace("//", f"//watcher:{PROMETHEUS_PASSWORD}@"),
        }
        directory = tmp_path_factory.mktemp("secrets")
        rig = await opened.enter_async_context(rigs.running(directory, variables=variables))
        rig.relay.login = ("tickwire", SMTP_PASSWORD)
        world = HeardProduct(rig, collector, provider, monitoring, _planted(rig))
        await _make_user(world)
        for scene in (
            *(secret_uses.use, secret_uses.misuse),
            *(secret_failures.without_relay, secret_failures.without_provider),
            *(secret_failures.without_monitoring, secret_failures.park),
        ):
            await scene(world)
            await world.look()
        await secret_failures.without_servers(world)
        await secret_failures.start_wrongly(world)
        yield world


def _planted(rig: Rig) -> Planted:
    planted = Planted(
        {
            "letter": LETTER,
            "idempotency key": IDEMPOTENCY_KEY,
            "SMTP password": SMTP_PASSWORD,
            "SMTP login": f"\0tickwire\0{SMTP_PASSWORD}",
            "provider's secret": alpaca.SECRET,
            "Prometheus password": PROMETHEUS_PASSWORD,
            "Prometheus login": f"watcher:{PROMETHEUS_PASSWORD}",
            "wrong password": WRONG_PASSWORD,
        }
    )
    # Passwords of the broker and the databases, and the pepper; what is not in use is an empty file.
    for file in rig.stack.blueprint.run.secrets.iterdir():
        if secret := file.read_text().strip():
            planted.plant(file.name, urlsplit(secret).password or secret)
    administrator = keys.parse(rig.stack.api_key)
    assert administrator is not None
    planted.plant("administrator's key", administrator.secret)
    return planted


async def _make_user(world: HeardProduct) -> None:
    async with httpx.AsyncClient(
        base_url=world.rig.stack.url, headers=world.rig.headers, timeout=20
    ) as unheard:
        # The one answer that is meant to tell a key.
        scopes = ["quotes:read", "emails:send", "emails:read", "batches:write", "batches:read", "chat:write"]
        made = await unheard.post("/v1/api-keys", json={"name": "user", "scopes": scopes})
    world.user_key = made.json()["key"]
    key = keys.parse(world.user_key)
    assert key is not None
    world.planted.plant("user's key", key.secret)


@pytest.mark.parametrize("service", NAMES)
async def test_no_log_contains_a_secret_or_the_content_of_a_mail(world: HeardProduct, service: str) -> None:
    said = world.rig.stack.log(service)
    assert '"level":"debug"' in said or service == "stock-data"
    assert [(line, found) for line in said.splitlines() if (found := world.planted.found_in(line))] == []


async def test_no_server_logs_a_password(world: HeardProduct) -> None:
    letters = {"letter", "idempotency key"}
    for file in world.rig.stack.blueprint.run.logs.iterdir():
        assert set(world.planted.found_in(file.read_bytes())) <= letters, file.name


async def test_neither_readiness_nor_metrics_contain_a_secret(world: HeardProduct) -> None:
    assert any("not ready" in page for page in world.exposed)
    assert [found for page in world.exposed if (found := world.planted.found_in(page))] == []


async def test_no_answer_repeats_a_secret_or_the_content_of_a_mail(world: HeardProduct) -> None:
    assert {answer[:3] for answer in world.answers} >= {"200", "202", "400", "401", "404", "422", "503"}
    assert [(answer, found) for answer in world.answers if (found := world.planted.found_in(answer))] == []


async def test_no_span_contains_a_secret_or_the_content_of_a_mail(world: HeardProduct) -> None:
    assert {span.service for span in world.collector.spans if span.failed} >= {"email", "gateway"}
    assert [found for sent in world.collector.sent if (found := world.planted.found_in(sent))] == []


async def test_parked_messages_are_listed_without_their_content(world: HeardProduct) -> None:
    assert {row["reason"] for row in world.parked} == {"undecodable", "permanent"}
    assert world.planted.found_in(json.dumps(world.parked)) == []


async def test_a_failed_start_names_the_setting_without_its_value(world: HeardProduct) -> None:
    assert all("RABBITMQ_URL: is not an address like" in world.exits[service] for service in NAMES)
    assert {
        name: found for name, said in world.exits.items() if (found := world.planted.found_in(said))
    } == {}
