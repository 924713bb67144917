"""The audit: asks the API for the end of all work, and the relay for the mails that arrived."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import orjson

from faults.ledger import ENDS, Ledger
from faults.rig import Rig

_SIDE_BY_SIDE = 8
_FOLDERS = {"mail": "emails", "task": "tasks", "batch": "batches"}


async def settle(rig: Rig, ledger: Ledger, *, timeout_s: float = 120) -> float:
    """Ask until every promise has come to an end, then count its effects; gives the seconds it took.

    What has not ended after `timeout_s` seconds stays open in the ledger.
    """
    started = time.monotonic()
    async with rig.client() as client:
        while open_ids := ledger.open_ids():
            if time.monotonic() - started > timeout_s:
                break
            await _gather(open_ids, lambda id_: _ask(client, ledger, id_))
            await asyncio.sleep(0.2)
        settled_s = time.monotonic() - started
        await _count_results(client, ledger)
        await _gather(ledger.ended_ids(), lambda id_: _ask(client, ledger, id_))
    _count_mails(rig, ledger)
    return settled_s


async def _gather(ids: list[str], action: Any) -> None:
    room = asyncio.Semaphore(_SIDE_BY_SIDE)

    async def one(id_: str) -> None:
        async with room:
            await action(id_)

    await asyncio.gather(*(one(id_) for id_ in ids))


async def _ask(client: httpx.AsyncClient, ledger: Ledger, id_: str) -> None:
    kind = ledger.entry_of(id_).kind
    try:
        answer = await client.get(f"/v1/{_FOLDERS[kind]}/{id_}")
    except httpx.TransportError:
        return
    # The gateway's own summary comes before the owner's whole account: only that one is evidence, unless
    # the work never came to its owner.
    document = answer.json()
    is_summary = document.get("detail_available") is False and document.get("status") != "parked"
    if answer.status_code != 200 or is_summary:
        return
    if ledger.entry_of(id_).ends:
        ledger.look_again(id_, document["status"])
    if document["status"] in ENDS:
        ledger.end(id_, document["status"], doubts=_doubts(document))
        if kind == "task":
            ledger.arrive(ledger.entry_of(id_).key, [str(document["result"])])


def _doubts(document: dict[str, Any]) -> int:
    attempts = [a for r in document.get("recipients", []) for a in r["attempts"]]
    return sum(attempt["outcome"] == "ambiguous" for attempt in attempts)


async def _count_results(client: httpx.AsyncClient, ledger: Ledger) -> None:
    finished = [e.ids[-1] for e in ledger.entries.values() if e.kind == "batch" and e.ends]

    async def count(id_: str) -> None:
        answer = await client.get(f"/v1/batches/{id_}/results", params={"format": "ndjson"})
        rows = [orjson.loads(line) for line in answer.content.splitlines()]
        good = [row for row in rows if row["status"] == "succeeded" and row["result"] == row["position"]]
        ledger.arrive(ledger.entry_of(id_).key, [str(row["position"]) for row in good])

    await _gather(finished, count)


def _count_mails(rig: Rig, ledger: Ledger) -> None:
    arrived: dict[str, list[str]] = {}
    for mail in rig.relay.received:
        arrived.setdefault(mail.recipient, []).append(_message_id(mail.content))
    for key, entry in ledger.entries.items():
        if entry.kind == "mail":
            ledger.arrive(key, arrived.get(key, []))


def _message_id(content: bytes) -> str:
    for line in content.split(b"\r\n\r\n", 1)[0].split(b"\r\n"):
        if line.lower().startswith(b"message-id:"):
            return line.partition(b":")[2].strip().decode()
    raise AssertionError("a mail without a Message-ID")
