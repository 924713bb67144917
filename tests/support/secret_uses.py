"""Scenes of the search for secrets: the API is used as it should be, and not as it should."""

from __future__ import annotations

import asyncio
import base64
import json

import websockets

from support.heard import IDEMPOTENCY_KEY, LETTER, HeardProduct, mail
from support.waiting import until


async def use(world: HeardProduct) -> None:
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


async def misuse(world: HeardProduct) -> None:
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


async def _talk(world: HeardProduct, token: str, *further: str) -> None:
    address = world.rig.stack.url.replace("http", "ws") + "/v1/realtime"
    frames = [json.dumps({"id": 1, "connect": {"token": token}}), *further]
    async with websockets.connect(address) as socket:
        try:
            for frame in frames:
                await socket.send(frame)
                world.answers.append(str(await socket.recv()))
        except websockets.ConnectionClosed as closed:
            world.answers.append(repr(closed))


async def _say_nonsense(world: HeardProduct, request: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", world.rig.stack.ports.gateway)
    writer.write(request.encode())
    try:
        world.answers.append((await reader.read()).decode())
    except ConnectionError as error:
        world.answers.append(repr(error))
    finally:
        writer.close()
