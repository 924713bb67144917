"""Scenes of the search for secrets: servers fail, messages are parked, and services start wrongly."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from uuid import uuid4

import aiormq
import asyncpg
from pamqp.commands import Basic

from native.ports import Ports
from native.services import NAMES, SERVICES
from support import heard
from support.doubles import alpaca, upstream
from support.doubles.smtp import Step
from support.heard import (
    IDEMPOTENCY_KEY,
    LETTER,
    PROMETHEUS_PASSWORD,
    SMTP_PASSWORD,
    WRONG_PASSWORD,
    HeardProduct,
    mail,
)
from support.waiting import until


async def without_relay(world: HeardProduct) -> None:
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


async def without_provider(world: HeardProduct) -> None:
    """Let the provider fail, and then refuse and echo the key."""
    refusal = upstream.answer_json({"message": f"{alpaca.KEY_ID}: {alpaca.SECRET} is not known"}, 401)
    async with world.client() as client:
        for answer in (upstream.BROKEN, refusal):
            world.provider.always = answer
            await client.get("/v1/stocks/IBM")
            await client.get("/v1/stocks/IBM/bars")
    await world.logged("stock-data", "provider failed", "is not known")


async def without_monitoring(world: HeardProduct) -> None:
    """Let Prometheus refuse and echo the login."""
    login = base64.b64encode(f"watcher:{PROMETHEUS_PASSWORD}".encode()).decode()
    async with world.client(world.rig.stack.api_key) as admin:
        for number, window in enumerate(("1h", "6h", "24h")):
            world.monitoring.status = (401, 500, 200)[number]
            said = {"status": "error", "error": f"Basic {login}, {PROMETHEUS_PASSWORD}: no"}
            world.monitoring.body = b"no json" if number == 2 else json.dumps(said).encode()
            await admin.get("/v1/admin/status", params={"window": window})
    assert any("[redacted]: no" in answer for answer in world.answers)


async def park(world: HeardProduct) -> None:
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


async def _publish(world: HeardProduct, *bodies: str) -> None:
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


async def without_servers(world: HeardProduct) -> None:
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


async def _all_unready(world: HeardProduct) -> bool:
    return len(await world.rig.unready()) == len(NAMES)


async def start_wrongly(world: HeardProduct) -> None:
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


async def _start(
    world: HeardProduct, name: str, changes: dict[str, str], *, until_said: tuple[str, ...]
) -> str:
    """Return the output of a further process of a service until it ends, or has all of `until_said`."""
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
