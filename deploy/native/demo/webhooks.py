"""Webhooks: what the stack sends to a server of the demo."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from email.parser import HeaderParser

from native.demo.tour import PATIENCE_S, Json, Tour, answer, until
from native.errors import DemoError
from native.ports import HOST

_UNPROCESSABLE = 422
_NO_CONTENT = 204


@dataclass(frozen=True)
class HookRequest:
    """A request of a webhook."""

    headers: Mapping[str, str]
    body: bytes


async def webhook(tour: Tour) -> None:
    """A mail is delivered, and a signed request tells a server of the demo; the signature is verified."""
    if tour.receiver_port is None:
        tour.say("left out: only `make run` lets its gateway send requests to a server of the demo")
        return
    async with _receiving(tour.receiver_port) as requests:
        url = f"http://{HOST}:{tour.receiver_port}/tickwire"
        response = await tour.api.post("/v1/webhooks", json={"url": url, "events": ["email.delivered"]})
        if response.status_code == _UNPROCESSABLE:
            target = f"{HOST}:{tour.receiver_port}"
            tour.say(f"off here: set GATEWAY_WEBHOOK_INTERNAL_TARGETS={target} to allow requests to the demo")
            return
        path = f"/v1/webhooks/{answer(response)['id']}"
        try:
            await _compare(tour, path, requests)
        finally:
            removed = await tour.api.delete(path)
        if removed.status_code != _NO_CONTENT:
            raise DemoError(f"the webhook was not deleted: HTTP {removed.status_code}")
        tour.say("deleted: nothing is sent to it any more")


async def _compare(tour: Tour, path: str, requests: asyncio.Queue[HookRequest]) -> None:
    """Send a mail, and wait until the request that tells of it has come and is known as delivered."""
    secret = (await tour.get(f"{path}/secret"))["secret"]
    wish = {"to": [f"hook+{tour.run}@example.org"], "subject": f"A webhook {tour.run}", "text": "Look there."}
    mail = await tour.post("/v1/emails", wish)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            request = await requests.get()
            event = json.loads(request.body)
            # Other mails may be delivered meanwhile.
            if event["data"]["id"] == mail["id"]:
                break
    if not is_genuine(request, secret):
        raise DemoError(f"the signature of {request.headers['webhook-id']} does not belong to its body")
    tour.say(f"came: {event['type']} of {event['data']['id']}, with a signature that is genuine")

    async def delivered() -> Json | None:
        found = await tour.get(f"{path}/deliveries/{request.headers['webhook-id']}")
        return found if found["status"] == "succeeded" else None

    (attempt,) = (await until(delivered))["history"]
    tour.say(f"delivered: answered {attempt['status']} after {attempt['duration_ms']} ms")


def is_genuine(request: HookRequest, secret: str) -> bool:
    """Return whether one of the signatures of a request was made with `secret`, as Standard Webhooks say.

    Receivers use a library of the standard, which compares the time of the request, too.
    """
    key = base64.b64decode(secret.removeprefix("whsec_"))
    prefix = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}."
    signed = prefix.encode() + request.body
    expected = f"v1,{base64.b64encode(hmac.digest(key, signed, 'sha256')).decode()}"
    given = request.headers["webhook-signature"].split()
    return any(hmac.compare_digest(expected, one) for one in given)


@asynccontextmanager
async def _receiving(port: int) -> AsyncIterator[asyncio.Queue[HookRequest]]:
    """Listen on a port of loopback for the length of the block; yield the requests that come."""
    requests: asyncio.Queue[HookRequest] = asyncio.Queue()

    async def receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Whoever else has found this port may leave at any time.
        with suppress(OSError, EOFError, KeyError, ValueError, asyncio.LimitOverrunError):
            await reader.readline()
            fields = HeaderParser().parsestr((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
            headers = {name.lower(): value for name, value in fields.items()}
            body = await reader.readexactly(int(headers["content-length"]))
            requests.put_nowait(HookRequest(headers, body))
            writer.write(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(receive, HOST, port):
        yield requests
