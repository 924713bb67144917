"""Floods of accepted work: costly mails, mails that a relay refuses, items that fail, quotes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import Any
from uuid import uuid4

import httpx
import orjson

from faults.faulty_operation import FAULTY, WAYS
from faults.floods.address import Address, side_by_side
from faults.guests import DEFERRED, ENDLESS, REFUSED, SILENT, SILENT_EACH
from faults.street import SYMBOLS
from gateway.http.bodies import MOST_BYTES_OF_OWNER

# 20 mails of each kind are ten times what one of them could take of the loop without being seen.
_DOCUMENTS = (
    "<!--" * 14_000,
    "<div>" * 100_000,
    "<a " + "b='c' " * 100_000,
    "&#" + "9" * 500_000,
    "<a href='" * 60_000,
)
# Nearly all that fits into the body of a request, in base64.
_FILE_BYTES = 700_000
# Half a megabyte of tokens, all of which are read.
_LONGEST = "<p>x" * 120_000
# Of the largest mails, over fifteen times what all mails in hand may have.
_COPIES = 400


async def html(at: Address) -> str:
    """Send HTML that parsers take quadratic time for, to twenty recipients each, however slow this is."""
    sent, most = 0, 20 * len(_DOCUMENTS)
    async with at.client() as client:
        for number in range(most):
            to = [f"{uuid4().hex}@guest.example" for _ in range(20)]
            sent += await _send(client, {"to": to, "subject": "s", "html": _DOCUMENTS[number % 5]})
            if at.is_late:
                break
    return f"{sent} of {most} mails accepted"


async def attachments(at: Address) -> str:
    """Send ten times the bytes that an owner may have in progress, until the time is over."""
    content = base64.b64encode(b"x" * 500_000).decode()
    files = [{"filename": "f.bin", "content_type": "application/octet-stream", "content": content}]
    # Made once: to write it anew for each would take this process longer than the gateway to read it.
    body = orjson.dumps({"to": [DEFERRED], "subject": "s", "text": "t", "attachments": files})
    in_flight = MOST_BYTES_OF_OWNER // len(body)
    sent = offered = 0

    async def lane() -> None:
        nonlocal sent, offered
        while not at.is_late and (offered < 10 * in_flight or not at.is_over):
            offered += 1
            accepted = await _send(client, body)
            sent += accepted

    async with at.client() as client:
        await asyncio.gather(*(lane() for _ in range(10 * in_flight)))
    return f"{sent} of {offered} mails accepted"


async def copies_of_files(at: Address) -> str:
    """Have the largest mails sent again and again, to several domains whose relay says nothing."""
    content = base64.b64encode(b"x" * _FILE_BYTES).decode()
    files = [{"filename": "f.bin", "content_type": "application/octet-stream", "content": content}]
    return await _copies(
        at, [{"to": [one], "subject": "s", "text": "t", "attachments": files} for one in SILENT_EACH]
    )


async def copies_of_html(at: Address) -> str:
    """Have a mail sent again and again whose HTML takes as long to read as any may."""
    return await _copies(at, [{"to": ["friend@guest.example"], "subject": "s", "html": _LONGEST}])


async def _copies(at: Address, mails: Sequence[dict[str, Any]]) -> str:
    """Have each of `mails` sent again, hundreds of times in all, however slow this is; cancel the rest."""
    sent = 0
    later = {"send_at": (datetime.now(UTC) + timedelta(days=1)).isoformat()}

    async def lane(paths: Iterator[str]) -> None:
        nonlocal sent
        for path in paths:
            if at.is_late:
                break
            with contextlib.suppress(httpx.TransportError):
                sent += (await client.post(f"{path}/resend")).status_code == 202

    async with at.client() as client:
        try:
            # They wait themselves, so that nothing is ready of what their copies need.
            paths = [await _stored(client, at, mail | later) for mail in mails]
            at = at.anew()
            copies = islice(cycle(paths), _COPIES)
            await asyncio.gather(*(lane(copies) for _ in range(10)))
            await asyncio.sleep(at.left_s)
        finally:
            with contextlib.suppress(httpx.TransportError):
                await _cancel_all(client)
    return f"{sent} of {_COPIES} copies accepted"


async def _stored(client: httpx.AsyncClient, at: Address, mail: dict[str, Any]) -> str:
    """Send a mail, and return its path once it can be sent again."""
    accepted = await client.post("/v1/emails", json=mail)
    path = str(accepted.raise_for_status().headers["location"])
    while (await client.post(f"{path}/resend")).status_code != 202 and not at.is_late:
        await asyncio.sleep(0.1)
    return path


async def _cancel_all(client: httpx.AsyncClient) -> None:
    """Leave no mails behind that the next guest would have beside it; without a guard this may fail."""
    query = {"status": "queued,deferred,held"}
    answer = await client.post("/v1/emails/cancel", params=query, timeout=60)
    while answer.status_code == 200 and (cursor := answer.json()["next_cursor"]):
        answer = await client.post("/v1/emails/cancel", params=query | {"cursor": cursor}, timeout=60)


async def refusals(at: Address) -> str:
    """Send mails whose recipients the relay answers with 530, or without an end."""
    return await _mails(at, REFUSED, ENDLESS)


async def silence(at: Address) -> str:
    """Send ten times as many mails as there are connections to the relay, which answers none of them."""
    return await _mails(at, SILENT)


async def _mails(at: Address, *recipients: str) -> str:
    sent = 0

    async def once(number: int) -> None:
        nonlocal sent
        to = [recipients[number % len(recipients)]]
        accepted = await _send(client, {"to": to, "subject": "s", "text": "t"})
        sent += accepted
        await asyncio.sleep(0.05)

    async with at.client() as client:
        await side_by_side(at, 4, once)
    return f"{sent} mails"


async def items(at: Address) -> str:
    """Send batches of a hundred items that cancel, exit, hang, or have results that cannot be stored."""
    sent = 0

    async def once(_: int) -> None:
        nonlocal sent
        body = {
            "operation": FAULTY,
            "items": [{"payload": WAYS[each % len(WAYS)]} for each in range(100)],
        }
        answer = await client.post("/v1/batches", json=body)
        sent += answer.status_code == 202
        await asyncio.sleep(0.5)

    async with at.client() as client:
        await side_by_side(at, 2, once)
    return f"{sent} batches of 100 such items"


async def provider(at: Address) -> str:
    """Ask for quotes that the provider answers with broken elements, and with ten times what is read."""

    async def once(number: int) -> None:
        if number == 0:
            await client.get("/v1/stocks/HUGE/bars", params={"start": "2024-01-01"})
        else:
            await client.get("/v1/stocks", params={"symbols": ",".join((*SYMBOLS[1:], f"X{number}"))})
            await asyncio.sleep(0.1)

    async with at.client() as client:
        return f"{await side_by_side(at, 4, once)} questions"


async def _send(client: httpx.AsyncClient, body: dict[str, Any] | bytes) -> bool:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    with contextlib.suppress(httpx.TransportError):
        answer = await client.post(
            "/v1/emails", content=content, headers={"Content-Type": "application/json"}
        )
        return answer.status_code == 202
    return False
