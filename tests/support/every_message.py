"""The uses of the product that send what the examples of its documents do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import aiormq
import asyncpg
import httpx
from pamqp.commands import Basic

from contracts import headers
from contracts.batches import CancelBatch
from contracts.emails import ResendEmail
from contracts.message import Message
from contracts.parked import ParkedChanged
from contracts.topology import STOCK_DATA, parked_queue
from native.stack import Stack
from support.waiting import until

NDJSON = {"content-type": "application/x-ndjson"}
AS_READ = {"if-match": "*"}
# Of each service that handles messages the queue, and a message that means nothing to it.
HANDLED: Mapping[str, tuple[str, Message]] = {
    "email": (
        "email.send",
        ResendEmail(email_id=uuid4(), source_id=uuid4(), owner_id="1", accepted_at=datetime.now(UTC)),
    ),
    "batch-processor": ("batch-processor.intake", CancelBatch(batch_id=uuid4(), owner_id="1")),
    "gateway": (
        "gateway.events",
        ParkedChanged(state="discarded", message_ids=[uuid4()], at=datetime.now(UTC)),
    ),
}
# The reason of a message that was handled well, and is replayed.
BY_MISTAKE = "parked by mistake"
MAIL = {"to": ["every@example.com"], "subject": "x", "text": "x"}
FILE = {"filename": "x.txt", "content_type": "text/plain", "content": "eA=="}


def later() -> str:
    """Return a time that is not reached."""
    return (datetime.now(UTC) + timedelta(days=1)).isoformat()


class RequestCaller:
    """Sends requests that must succeed."""

    def __init__(self, api: httpx.AsyncClient) -> None:
        self.api = api

    async def ask(self, method: str, path: str, **given: Any) -> Any:
        """Return the document of the answer; None without one."""
        answer = await self.api.request(method, path, **given)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def make(self, path: str, body: Any = None, **given: Any) -> str:
        """Return the id of what a POST creates."""
        return str((await self.ask("POST", path, json=body, **given))["id"])

    async def when(self, path: str, *statuses: str) -> None:
        """Wait until what is at `path` has one of the statuses, and its service has it."""

        async def has_come() -> bool:
            found = await self.ask("GET", path)
            return found["status"] in statuses and found.get("counts", True) is not None

        await until(has_come, timeout_s=30, what=lambda: f"{path} {statuses}")


async def steer_batches(caller: RequestCaller) -> None:
    """Move, pause, resume, retry, abandon and limit work; run operations that ask other services."""
    task = "/v1/tasks/" + await caller.make("/v1/tasks", {"operation": "echo", "payload": 1, "delay_s": 3600})
    await caller.when(task, "queued")
    await caller.ask("PATCH", task, json={"run_at": later()}, headers=AS_READ)
    await caller.ask("POST", f"{task}/pause")
    await caller.when(task, "paused")
    await caller.ask("POST", f"{task}/resume")
    # No agent makes it: the task asks for it every two seconds, for a minute.
    await caller.make("/v1/tasks", {"operation": "database.backup", "payload": {}})
    follow_up = {"operation": "echo", "payload": 1}
    failing = {"operation": "stock.quote", "items": [{"symbol": "NOPE"}], "on_finished": follow_up}
    batch = "/v1/batches/" + await caller.make("/v1/batches", failing)
    for stream in ("transactional", "bulk"):
        mail = {"operation": "email.send", "payload": {**MAIL, "stream": stream}}
        await caller.ask("POST", "/v1/tasks", json=mail, headers={"prefer": "wait=10"})
    backfill = {"operation": "stock.backfill", "payload": {"symbol": "AAPL", "start": "2013-02-25"}}
    await caller.make("/v1/tasks", backfill)
    broken = await caller.api.post(
        "/v1/batches", params={"operation": "echo"}, content=b'{"payload":1}\n{', headers=NDJSON
    )
    assert broken.status_code == 422, broken.text
    await caller.when(batch, "completed", "failed")
    await caller.ask("POST", f"{batch}/retry")


async def lose_rights(caller: RequestCaller) -> None:
    """Change the role of a user, and run a schedule whose maker's key was revoked."""
    user = await caller.make("/v1/users", {"name": "X", "email": f"{uuid4().hex}@example.com"})
    await caller.ask("PATCH", f"/v1/users/{user}", json={"role": "admin"}, headers=AS_READ)
    wanted = {"name": "short-lived", "scopes": ["schedules:write", "batches:write"]}
    key = await caller.ask("POST", "/v1/api-keys", json=wanted)
    schedule = {"name": uuid4().hex, "cron": "0 0 1 1 *", "template": {"operation": "echo", "payload": 1}}
    as_maker = {"authorization": f"Bearer {key['key']}"}
    path = "/v1/schedules/" + await caller.make("/v1/schedules", schedule, headers=as_maker)
    await caller.ask("DELETE", f"/v1/api-keys/{key['id']}")
    await caller.ask("POST", f"{path}/run")

    async def is_refused() -> bool:
        return bool((await caller.ask("GET", path))["last_run"]["status"] == "refused")

    await until(is_refused)
    await caller.ask("DELETE", path, headers=AS_READ)


async def _verify(stack: Stack, domain: str) -> None:
    """Take a domain as verified, for which no records are published: the end of another is told to nobody."""
    connection = await asyncpg.connect(stack.postgres.dsn("emailer"))
    try:
        await connection.execute("UPDATE domains SET verified_at = now() WHERE id = $1", UUID(domain))
    finally:
        await connection.close()


async def end_things(caller: RequestCaller, stack: Stack) -> None:
    """Delete what the mails and alerts of an owner need, send a file, and report a bounce."""
    domain = await caller.make("/v1/domains", {"name": f"{uuid4().hex}.example"})
    await _verify(stack, domain)
    await caller.ask("DELETE", f"/v1/domains/{domain}", headers=AS_READ)
    suppression = await caller.make("/v1/suppressions", {"address": f"{uuid4().hex}@example.com"})
    await caller.ask("DELETE", f"/v1/suppressions/{suppression}")
    template = {"name": uuid4().hex, "subject": "x", "text": "x"}
    await caller.ask("POST", "/v1/templates", json=template)
    await caller.ask("DELETE", f"/v1/templates/{template['name']}", headers=AS_READ)
    alert = await caller.make("/v1/alerts", {"symbol": "IBM", "condition": {"above": 9999}})
    await caller.ask("DELETE", f"/v1/alerts/{alert}")
    to = f"{uuid4().hex}@example.com"
    await caller.make("/v1/emails", {**MAIL, "to": [to, f"second-{to}"], "attachments": [FILE]})
    for files in ([], [FILE]):
        await caller.make("/v1/emails", {**MAIL, "stream": "bulk", "attachments": files})
    for path in ("/v1/stocks/NOPE/bars", "/v1/stocks/NOPE", f"/v1/schedules/{uuid4()}"):
        assert (await caller.api.get(path)).status_code == 404
    async with httpx.AsyncClient(base_url=stack.mailbox.url) as mailbox:

        async def arrived() -> Any:
            return (await mailbox.get("/api/v1/search", params={"query": f"to:{to}"})).json()["messages"]

        (mail, *_) = await until(arrived)
        back = (await mailbox.get(f"/api/v1/message/{mail['ID']}")).json()["ReturnPath"]
    await caller.ask(
        "POST",
        "/v1/inbound/bounces",
        params={"recipient": back},
        content=b"Subject: gone\r\n\r\ngone",
        headers={"content-type": "message/rfc822"},
    )


async def park_messages(caller: RequestCaller, rabbitmq_url: str) -> None:
    """Let messages wait and be parked that no service can handle, and decide about them."""
    connection = await aiormq.connect(rabbitmq_url)
    try:
        channel = await connection.channel()

        async def put(queue: str, kind: str, body: bytes, about: Mapping[str, Any]) -> None:
            properties = Basic.Properties(message_id=str(uuid4()), message_type=kind, headers=dict(about))
            await channel.basic_publish(body, routing_key=queue, properties=properties)

        for service, (queue, known) in HANDLED.items():
            await put(queue, "of.the.future.v1", b"{}", {headers.ATTEMPT: 1})
            await put(queue, known.message_type, b"{}", {headers.ATTEMPT: 1})
            about = {headers.QUEUE: queue, headers.REASON: BY_MISTAKE, headers.ATTEMPT: 1}
            await put(parked_queue(service), known.message_type, known.model_dump_json().encode(), about)
        # It handles no messages that it could park.
        await put(parked_queue(STOCK_DATA), "unknown.v1", b"{}", {headers.REASON: "nobody handles it"})
    finally:
        await connection.close()
    await asyncio.gather(*(_decide(caller, service) for service in (STOCK_DATA, *HANDLED)))


async def _decide(caller: RequestCaller, service: str) -> None:
    """Inspect and discard what cannot be handled, and replay what was parked by mistake."""

    async def all_parked() -> Any:
        found = (await caller.ask("GET", "/v1/admin/parked", params={"service": service}))["data"]
        by_mistake = [row["id"] for row in found if row["reason"] == BY_MISTAKE]
        others = [row["id"] for row in found if row["reason"] != BY_MISTAKE]
        return (by_mistake, others) if others and (by_mistake or service == STOCK_DATA) else None

    _, others = await until(all_parked)
    await caller.ask("GET", f"/v1/admin/parked/{service}/{others[0]}")
    chosen = {"service": service, "reason": BY_MISTAKE}
    for dry_run in ("true", "false"):
        await caller.ask("POST", "/v1/admin/parked/replay", params={**chosen, "dry_run": dry_run})
    await caller.ask("POST", "/v1/admin/parked/discard", params={"service": service, "ids": str(others[0])})


async def restart_services(caller: RequestCaller, stack: Stack) -> None:
    """Restart a service that announces itself, and cancel a mail while its service is down."""

    async def without_email() -> None:
        await stack.stop("email")
        try:
            mail = await caller.make("/v1/emails", {**MAIL, "attachments": [FILE]})
            await caller.ask("DELETE", f"/v1/emails/{mail}")
        finally:
            await stack.start("email")

    await asyncio.gather(without_email(), stack.restart("batch-processor"))


@asynccontextmanager
async def waiting_work(caller: RequestCaller) -> AsyncIterator[dict[str, str]]:
    """Yield the ids of a batch, a task and a mail that wait, and cancel them at the end of the block."""
    made = {
        "batch": await caller.make("/v1/batches", {"operation": "echo"}, params={"open": "true"}),
        "task": await caller.make("/v1/tasks", {"operation": "echo", "payload": 1, "delay_s": 3600}),
        "email": await caller.make("/v1/emails", {**MAIL, "send_at": later()}),
    }
    for kind, plural in (("batch", "batches"), ("task", "tasks")):
        await caller.when(f"/v1/{plural}/{made[kind]}", "queued", "open")
    yield made
    await caller.ask("POST", f"/v1/batches/{made['batch']}/cancel")
    await caller.ask("POST", f"/v1/tasks/{made['task']}/cancel")
    await caller.ask("DELETE", f"/v1/emails/{made['email']}")
