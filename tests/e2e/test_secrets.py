"""No secret and no mail content is in logs, metrics, readiness, answers, spans or parked messages."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from urllib.parse import urlsplit
from uuid import uuid4

import aiormq
import asyncpg
import httpx
import pytest
import websockets
from pamqp.commands import Basic

from faults import rig as rigs
from faults.rig import Rig
from gateway.identity import keys
from native.ports import Ports
from native.services import NAMES, SERVICES
from support import heard
from support.doubles import alpaca, prometheus, upstream
from support.doubles.collector import collecting
from support.doubles.smtp import Step
from support.heard import (
    IDEMPOTENCY_KEY,
    LETTER,
    PROMETHEUS_PASSWORD,
    SMTP_PASSWORD,
    WRONG_PASSWORD,
    World,
    mail,
)
from support.planted import Planted
from support.waiting import until

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
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
        world = World(rig, collector, provider, monitoring, _planted(rig))
        await _make_user(world)
        for scene in (use, misuse, without_relay, without_provider, without_monitoring, park):
            await scene(world)
            await world.look()
        await without_servers(world)
        await start_wrongly(world)
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


async def _make_user(world: World) -> None:
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


async def use(world: World) -> None:
    """Use the API correctly."""
    async with world.client() as client, world.client(world.rig.stack.api_key) as admin:

        async def are_announced() -> bool:
            return bool((await admin.get("/v1/operations")).json()["data"])

        # Until then a batch is taken with any items.
        await until(are_announced)
        again = {"Idempotency-Key": IDEMPOTENCY_KEY}
        answers = [await client.post("/v1/emails", json=mail(), headers=again) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [202, 202]
        await client.post("/v1/emails", json=mail("bob@example.com"), headers=again)
        batch = {"operation": "email.send", "items": [mail()]}
        accepted = await client.post("/v1/batches", json=batch)
        misfits = {**batch, "items": [mail(to=LETTER, odd=LETTER), LETTER]}
        assert (await client.post("/v1/batches", json=misfits)).status_code == 422
        await client.post("/send-email", json={"to": "ann@example.com", "subject": "s", "body": LETTER})
        await until(lambda: len(world.rig.relay.received_by("ann@example.com")) >= 3, timeout_s=40)

        async def finished() -> bool:
            status = (await client.get(accepted.headers["location"])).json()["status"]
            return status not in ("queued", "running")

        await until(finished, timeout_s=30)
        for path in ("/results", ""):
            await client.get(accepted.headers["location"] + path)
        for path in ("/v1/stocks/AAPL", "/v1/stocks/AAPL/bars", "/v1/overview?symbols=AAPL", "/v1/me"):
            await client.get(path)
        for path in ("/v1/api-keys", "/v1/users", "/v1/admin/status", "/v1/admin/parked"):
            await admin.get(path)
    assert all(LETTER.encode() in received.content for received in world.rig.relay.received)
    await _talk(world, world.user_key)


async def _talk(world: World, token: str, *further: str) -> None:
    address = world.rig.stack.url.replace("http", "ws") + "/v1/realtime"
    frames = [json.dumps({"id": 1, "connect": {"token": token}}), *further]
    async with websockets.connect(address) as socket:
        try:
            for frame in frames:
                await socket.send(frame)
                world.answers.append(str(await socket.recv()))
        except websockets.ConnectionClosed as closed:
            world.answers.append(repr(closed))


async def misuse(world: World) -> None:
    """Put keys and mails where they do not belong."""
    key, encoded = world.user_key, base64.b64encode(world.user_key.encode()).decode()
    wrong_key = key[:-1] + ("A" if key[-1] != "A" else "B")
    async with world.client() as client:
        for name, value in [
            *(("Authorization", f"{kind} {key}") for kind in ("Token", "Basic", "Bearer Bearer")),
            ("Authorization", key),
            ("Authorization", f"Basic {encoded}"),
            ("Authorization", f"Bearer {wrong_key}"),
            ("X-Api-Key", wrong_key),
        ]:
            assert (await client.get("/v1/me", headers={name: value})).status_code in (200, 401)
        for path in ("/v1/emails", "/v1/stocks", "/v1/batches", "/v1/overview", "/v1/me", "/nowhere"):
            await client.get(path, params={"api_key": key, "text": LETTER})
        await client.delete(f"/v1/api-keys/{key}")
        await client.get(f"/v1/emails/{key}")
        for wrong in (b'{"text": "' + LETTER.encode(), json.dumps({"to": LETTER, "text": [LETTER]}).encode()):
            json_type = {"Content-Type": "application/json", "Idempotency-Key": f"{IDEMPOTENCY_KEY}\u00e9"}
            await client.post("/v1/emails", content=wrong, headers={"Content-Type": "application/json"})
            raw = {name.encode(): value.encode("latin-1") for name, value in json_type.items()}
            await client.post("/v1/emails", content=wrong, headers=raw)
            await client.post("/v1/batches?operation=email.send", content=wrong)
    await _talk(world, wrong_key)
    await _talk(world, key, f'{{"id":2,"say":"{LETTER}"}}', f"no json {LETTER}")
    await _say_nonsense(world, f"GET /v1/me HTTP/1.1\r\nAuthorization Bearer {key}\r\n\r\n")
    await _say_nonsense(world, f"GET /{'x' * 70_000}{key} HTTP/1.1\r\n\r\n")


async def _say_nonsense(world: World, request: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.rig.stack.ports.gateway)
    writer.write(request.encode())
    try:
        world.answers.append((await reader.read()).decode())
    except ConnectionError as error:
        world.answers.append(repr(error))
    finally:
        writer.close()


async def without_relay(world: World) -> None:
    """Let the relay refuse and echo the login, then accept the login and refuse mails."""
    relay = world.rig.relay
    relay.login, relay.repeats_login = ("tickwire", "another"), True
    await relay.stop()
    await relay.start()
    async with world.client() as client:
        await client.post("/v1/emails", json=mail("late@example.com"))
        for mechanism in ("PLAIN", "LOGIN"):
            relay.mechanisms = mechanism
            relay.commands.clear()
            await until(lambda: any(command.startswith("AUTH") for command in relay.commands))
        await world.logged("email", "route paused", "the relay refused the login")
        await world.look()
        relay.login = ("tickwire", SMTP_PASSWORD)
        relay.script("no@example.com", Step("content", "554 5.7.1 not this"))
        answer = await client.post("/v1/emails", json=mail("no@example.com"))
        await until(lambda: relay.received_by("late@example.com"), timeout_s=40)
        await world.logged("email", "mail failed")
        await client.get(answer.headers["location"])


async def without_provider(world: World) -> None:
    """Let the provider fail, and then refuse and echo the key."""
    refusal = upstream.answer_json({"message": f"{alpaca.KEY_ID}: {alpaca.SECRET} is not known"}, 401)
    async with world.client() as client:
        for answer in (upstream.BROKEN, refusal):
            world.provider.always = answer
            await client.get("/v1/stocks/IBM")
            await client.get("/v1/stocks/IBM/bars")
    await world.logged("stock-data", "provider failed", "is not known")


async def without_monitoring(world: World) -> None:
    """Let Prometheus refuse and echo the login."""
    login = base64.b64encode(f"watcher:{PROMETHEUS_PASSWORD}".encode()).decode()
    async with world.client(world.rig.stack.api_key) as admin:
        for number, window in enumerate(("1h", "6h", "24h")):
            world.monitoring.status = (401, 500, 200)[number]
            said = {"status": "error", "error": f"Basic {login}, {PROMETHEUS_PASSWORD}: no"}
            world.monitoring.body = b"no json" if number == 2 else json.dumps(said).encode()
            await admin.get("/v1/admin/status", params={"window": window})
    assert any("[redacted]: no" in answer for answer in world.answers)


async def park(world: World) -> None:
    """Send messages that are parked, for their content or for the error of the database."""
    await _publish(world, f'{{"text":"{LETTER}"}}', f"no json {LETTER}")
    emailer = await asyncpg.connect(world.rig.stack.postgres.dsn("emailer"))
    async with world.client() as client:
        for code, name in (("22000", "DataError"), ("23000", "IntegrityConstraintViolationError")):
            await _refuse_rows(emailer, code)
            await client.post("/v1/emails", json=mail())
            await world.logged("email", name)
            await emailer.execute("DROP TRIGGER refuse ON emails")
    await emailer.close()

    async def listed() -> bool:
        async with world.client(world.rig.stack.api_key) as admin:
            world.parked = (await admin.get("/v1/admin/parked")).json()["data"]
        return len(world.parked) >= 3

    await until(listed, timeout_s=30)


async def _publish(world: World, *bodies: str) -> None:
    connection = await aiormq.connect(world.rig.stack.rabbitmq.url)
    try:
        channel = await connection.channel()
        for body in bodies:
            properties = Basic.Properties(
                message_id=str(uuid4()),
                message_type="email.send.v1",
                delivery_mode=2,
                headers={"x-attempt": 1, "traceparent": f"00-{uuid4().hex}-b7ad6b7169203331-01"},
            )
            await channel.basic_publish(body.encode(), routing_key="email.send", properties=properties)
    finally:
        await connection.close()


async def _refuse_rows(emailer: asyncpg.Connection[asyncpg.Record], code: str) -> None:
    raising = f"RAISE EXCEPTION 'no %', NEW USING ERRCODE = '{code}', DETAIL = NEW::text"
    await emailer.execute(
        f"""
        CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raising}; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON emails FOR EACH ROW EXECUTE FUNCTION refuse()
        """
    )


async def without_servers(world: World) -> None:
    """Stop the broker, then the databases, and wait until every service reports it."""
    for server, sign in (("rabbitmq", "waiting for the broker"), ("postgres", "database")):
        await world.rig.proxies[server].refuse()
        await until(lambda: _all_unready(world), timeout_s=40)
        async with world.client() as client:
            for path in ("/v1/me", "/v1/stocks/MSFT/bars", "/v1/overview?symbols=AAPL"):
                await client.get(path)
            await client.post("/v1/emails", json=mail(), headers={"Idempotency-Key": IDEMPOTENCY_KEY})
            await client.post("/v1/emails", json=mail())
        await world.look()
        for service in NAMES:
            await until(lambda name=service, text=sign: text in world.rig.stack.log(name), timeout_s=40)
        await world.rig.proxies[server].recover()
        await world.rig.recovered()


async def _all_unready(world: World) -> bool:
    return len(await world.rig.unready()) == len(NAMES)


async def start_wrongly(world: World) -> None:
    """Start each service with invalid settings, and with wrong credentials."""
    cut = {
        "RABBITMQ_URL": f"amqp://u:x#{WRONG_PASSWORD}@127.0.0.1/tickwire",
        "POSTGRES_DSN": f"postgresql://u:x/{WRONG_PASSWORD}@127.0.0.1/db",
        "POSTGRES_POOL_SIZE": WRONG_PASSWORD,
        "LOG_LEVEL": WRONG_PASSWORD,
        "MEMCACHED_ADDRESS": WRONG_PASSWORD,
        "GATEWAY_BOOTSTRAP_KEY_FILE": "",
        "GATEWAY_BOOTSTRAP_KEY": f"tw_live_{WRONG_PASSWORD}",
        "GATEWAY_PROMETHEUS_URL": f"http://u:x/{WRONG_PASSWORD}@127.0.0.1",
        "EMAIL_SMTP_PORT": WRONG_PASSWORD,
        "STOCK_DATA_ALPACA_FEED": WRONG_PASSWORD,
        "BATCH_PROCESSOR_ROLES": WRONG_PASSWORD,
    }
    starts = [_start(world, service, cut, until_said=()) for service in NAMES]
    world.exits.update(zip(NAMES, await asyncio.gather(*starts), strict=True))
    assert all("Settings are wrong" in said for said in world.exits.values())
    ports = world.rig.stack.ports
    login = f"//gateway:{WRONG_PASSWORD}@127.0.0.1"
    refused = {
        "RABBITMQ_URL": f"amqp:{login}:{ports.rabbitmq}/tickwire",
        "POSTGRES_DSN": f"postgresql:{login}:{ports.postgres}/gateway",
    }
    said = await _start(world, "gateway", {"POSTGRES_DSN": refused["POSTGRES_DSN"]}, until_said=("password",))
    world.exits["gateway without its database"] = said
    said = await _start(
        world, "gateway", {"RABBITMQ_URL": refused["RABBITMQ_URL"]}, until_said=("waiting for the broker",)
    )
    world.exits["gateway without its broker"] = said


async def _start(world: World, name: str, changes: dict[str, str], *, until_said: tuple[str, ...]) -> str:
    """Return what a further process of a service says until it ends, or has said all of `until_said`."""
    service = next(service for service in SERVICES if service.name == name)
    backing = world.rig.stack.blueprint.backing
    # A variable that names a file goes before the one that holds the value itself.
    files = {f"{name}_FILE" for name in changes}
    environment = {
        name: value for name, value in backing.environment(service, Ports.free()).items() if name not in files
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", service.package),
        env={**environment, **changes},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said: list[str] = []
    try:
        await asyncio.wait_for(heard.listen(process, said, until_said=until_said), 60)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"{name} did not say {until_said} and end within a minute: {said}") from None
    return "".join(said)


@pytest.mark.parametrize("service", NAMES)
async def test_no_log_contains_a_secret_or_the_content_of_a_mail(world: World, service: str) -> None:
    said = world.rig.stack.log(service)
    assert '"level":"debug"' in said or service == "stock-data"
    assert [(line, found) for line in said.splitlines() if (found := world.planted.found_in(line))] == []


async def test_no_server_logs_a_password(world: World) -> None:
    letters = {"letter", "idempotency key"}
    for file in world.rig.stack.blueprint.run.logs.iterdir():
        assert set(world.planted.found_in(file.read_bytes())) <= letters, file.name


async def test_neither_readiness_nor_metrics_contain_a_secret(world: World) -> None:
    assert any("not ready" in page for page in world.exposed)
    assert [found for page in world.exposed if (found := world.planted.found_in(page))] == []


async def test_no_answer_repeats_a_secret_or_the_content_of_a_mail(world: World) -> None:
    assert {answer[:3] for answer in world.answers} >= {"200", "202", "400", "401", "404", "422", "503"}
    assert [(answer, found) for answer in world.answers if (found := world.planted.found_in(answer))] == []


async def test_no_span_contains_a_secret_or_the_content_of_a_mail(world: World) -> None:
    assert {span.service for span in world.collector.spans if span.failed} >= {"email", "gateway"}
    assert [found for sent in world.collector.sent if (found := world.planted.found_in(sent))] == []


async def test_parked_messages_are_listed_without_their_content(world: World) -> None:
    assert {row["reason"] for row in world.parked} == {"undecodable", "permanent"}
    assert world.planted.found_in(json.dumps(world.parked)) == []


async def test_a_failed_start_names_the_setting_without_its_value(world: World) -> None:
    assert all("RABBITMQ_URL: is not an address like" in world.exits[service] for service in NAMES)
    assert {
        name: found for name, said in world.exits.items() if (found := world.planted.found_in(said))
    } == {}
