"""One trace from the HTTP request to the SMTP reply, and one through the chunks of a batch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest

from native import stack as native_stack
from native.stack import Stack
from support.doubles import smtp
from support.doubles.collector import Collector, SeenSpan, collecting
from support.doubles.smtp import SmtpServer, Step
from support.waiting import until


@pytest.fixture(scope="module")
async def collector() -> AsyncIterator[Collector]:
    async with collecting() as running:
        yield running


@pytest.fixture(scope="module")
async def relay() -> AsyncIterator[SmtpServer]:
    async with smtp.running() as running:
        yield running


@pytest.fixture(scope="module")
async def traced(
    collector: Collector, relay: SmtpServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "EMAIL_RETRY_SCALE": "0.01",
        "EMAIL_SMTP_PORT": str(relay.port),
    }
    directory = tmp_path_factory.mktemp("traced")
    without = ("prometheus", "mailbox")
    async with native_stack.start(directory, without=without, variables=variables) as running:
        yield running


@pytest.fixture(scope="module")
async def client(traced: Stack) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {traced.api_key}"}
    async with httpx.AsyncClient(base_url=traced.url, headers=headers, timeout=20) as opened:
        yield opened


def trace_of(answer: httpx.Response) -> str:
    return answer.headers["traceparent"].split("-")[1]


def by_name(spans: list[SeenSpan], name: str) -> list[SeenSpan]:
    return [span for span in spans if span.name == name]


def orphans(spans: list[SeenSpan]) -> list[SeenSpan]:
    """Return spans with a parent that is not there to see."""
    known = {span.span_id for span in spans} | {""}
    return [span for span in spans if span.parent_id not in known]


def depth(span: SeenSpan, spans: list[SeenSpan]) -> int:
    parents = {s.span_id: s for s in spans}
    steps = 0
    while span.parent_id in parents:
        span, steps = parents[span.parent_id], steps + 1
    return steps


async def test_one_trace_leads_from_the_request_to_the_smtp_reply(
    client: httpx.AsyncClient, collector: Collector
) -> None:
    mail = {"to": ["trace@example.com"], "subject": "s", "text": "t"}
    trace_id = trace_of(await client.post("/v1/emails", json=mail))

    def delivered() -> list[SeenSpan]:
        return by_name(collector.of(trace_id), "deliver by SMTP")

    (delivery,) = await until(delivered, timeout_s=30)
    await until(lambda: by_name(collector.of(trace_id), "process email.send.v1"))
    await until(lambda: by_name(collector.of(trace_id), "publish email.send.v1"))
    await until(lambda: by_name(collector.of(trace_id), "POST /v1/emails"))
    spans = collector.of(trace_id)
    (root,) = by_name(spans, "POST /v1/emails")
    (consumed,) = by_name(spans, "process email.send.v1")
    (published,) = by_name(spans, "publish email.send.v1")
    assert root.parent_id == ""
    assert {s.service for s in (root, published)} == {"gateway"}
    assert {s.service for s in (consumed, delivery)} == {"email"}
    assert {s.parent_id for s in (published, consumed, delivery)} == {root.span_id}
    assert consumed.links == delivery.links == (root.span_id,)
    assert delivery.attributes["smtp.reply_code"] == 250


async def test_one_trace_leads_through_a_retry_to_the_reply_that_accepts(
    client: httpx.AsyncClient, collector: Collector, relay: SmtpServer
) -> None:
    relay.script("once@example.com", Step("content", "451 4.7.1 come back later"))
    mail = {"to": ["once@example.com"], "subject": "s", "text": "t"}
    trace_id = trace_of(await client.post("/v1/emails", json=mail))

    def delivered() -> bool:
        found = by_name(collector.of(trace_id), "deliver by SMTP")
        return any(span.attributes["smtp.reply_code"] == 250 for span in found)

    await until(delivered, timeout_s=40)
    await until(lambda: by_name(collector.of(trace_id), "process email.status-changed.v1"), timeout_s=20)
    await until(lambda: orphans(collector.of(trace_id)) == [], what=lambda: str(collector.of(trace_id)))
    spans = collector.of(trace_id)
    (root,) = by_name(spans, "POST /v1/emails")
    (published,) = by_name(spans, "publish email.send.v1")
    (consumed,) = by_name(spans, "process email.send.v1")
    first, second = by_name(spans, "deliver by SMTP")
    assert [span.service for span in (root, published, consumed, first, second)] == [
        *("gateway", "gateway", "email", "email", "email")
    ]
    assert root.parent_id == ""
    assert {span.parent_id for span in (published, consumed, first, second)} == {root.span_id}
    assert consumed.links == first.links == second.links == (root.span_id,)
    assert [
        (span.attributes["tickwire.attempt"], span.attributes["smtp.reply_code"], span.failed)
        for span in (first, second)
    ] == [(1, 451, True), (2, 250, False)]
    assert len(relay.received_by("once@example.com")) == 1


async def test_the_link_to_where_a_message_was_made_survives_parking_and_replay(
    traced: Stack, client: httpx.AsyncClient, collector: Collector, relay: SmtpServer
) -> None:
    mail = {"to": ["parked@example.com"], "subject": "s", "text": "t"}
    async with refusing_database(traced):
        accepted = await client.post("/v1/emails", json=mail)

        async def parked() -> Any:
            page = (await client.get("/v1/admin/parked", params={"service": "email"})).json()["data"]
            return [row["id"] for row in page if row["message_id"] == accepted.json()["id"]]

        ids = await until(parked, timeout_s=30)
    wanted = {"service": "email", "ids": ",".join(map(str, ids))}
    replay = await client.post("/v1/admin/parked/replay", params=wanted)
    assert (replay.status_code, replay.json()["changed"]) == (200, 1)
    trace_id = trace_of(accepted)
    (delivery,) = await until(lambda: by_name(collector.of(trace_id), "deliver by SMTP"), timeout_s=30)
    for step in ("process email.send.v1", "publish email.send.v1"):
        await until(lambda name=step: len(by_name(collector.of(trace_id), name)) == 2)
    await until(lambda: orphans(collector.of(trace_id)) == [])
    spans = collector.of(trace_id)
    (root,) = by_name(spans, "POST /v1/emails")
    refused, handled = by_name(spans, "process email.send.v1")
    sent, sent_again = by_name(spans, "publish email.send.v1")
    assert (refused.failed, handled.failed, delivery.failed) == (True, False, False)
    assert (sent.service, sent_again.service) == ("gateway", "email")
    assert {span.parent_id for span in (sent, refused, sent_again, handled, delivery)} == {root.span_id}
    assert refused.links == handled.links == delivery.links == (root.span_id,)
    assert len(relay.received_by("parked@example.com")) == 1


@asynccontextmanager
async def refusing_database(stack: Stack) -> AsyncIterator[None]:
    """Let the email service's database refuse mails as invalid data, for which no retry helps."""
    connection = await asyncpg.connect(stack.postgres.dsn("emailer"))
    try:
        await connection.execute(
            """
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'refused: %', NEW USING ERRCODE = 'data_exception'; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON emails FOR EACH ROW EXECUTE FUNCTION refuse()
            """
        )
        yield
        await connection.execute("DROP TRIGGER refuse ON emails; DROP FUNCTION refuse")
    finally:
        await connection.close()


async def test_a_batch_is_one_trace_through_its_chunks(
    client: httpx.AsyncClient, collector: Collector
) -> None:
    answer = await client.post("/v1/batches", json={"operation": "echo", "items": list(range(1200))})
    trace_id = trace_of(answer)

    def chunks() -> Any:
        found = by_name(collector.of(trace_id), "run echo")
        return found if len(found) >= 2 else None

    found = await until(chunks, timeout_s=30)
    await until(lambda: by_name(collector.of(trace_id), "POST /v1/batches"))
    await until(lambda: by_name(collector.of(trace_id), "process batch.seal.v1"))
    spans = collector.of(trace_id)
    (root,) = by_name(spans, "POST /v1/batches")
    assert {span.service for span in found} == {"batch-processor"}
    assert all(span.trace_id == root.trace_id for span in found)
    assert by_name(spans, "process batch.seal.v1")[0].parent_id == root.span_id


async def test_a_request_between_services_has_a_span_on_both_sides(
    client: httpx.AsyncClient, collector: Collector
) -> None:
    trace_id = trace_of(await client.get("/v1/stocks/AAPL/bars", params={"limit": 1}))
    await until(lambda: by_name(collector.of(trace_id), "answer stocks.get-bars.v1"), timeout_s=30)
    await until(lambda: by_name(collector.of(trace_id), "GET /v1/stocks/{symbol}/bars"))
    spans = collector.of(trace_id)
    (asked,) = by_name(spans, "ask stocks.get-bars.v1")
    (answered,) = by_name(spans, "answer stocks.get-bars.v1")
    assert (asked.service, answered.service) == ("gateway", "stock-data")
    assert answered.parent_id == asked.span_id
    assert depth(answered, spans) == 2


async def test_the_callers_trace_is_continued(client: httpx.AsyncClient, collector: Collector) -> None:
    trace_id, caller = "2af7651916cd43dd8448eb211c80319e", "b7ad6b7169203331"
    await client.get("/v1/me", headers={"traceparent": f"00-{trace_id}-{caller}-01"})
    (span,) = await until(lambda: by_name(collector.of(trace_id), "GET /v1/me"), timeout_s=30)
    assert span.parent_id == caller


async def test_a_caller_who_does_not_sample_is_not_recorded(
    client: httpx.AsyncClient, collector: Collector
) -> None:
    trace_id = "3af7651916cd43dd8448eb211c80319e"
    await client.get("/v1/me", headers={"traceparent": f"00-{trace_id}-b7ad6b7169203331-00"})
    later = trace_of(await client.get("/v1/me"))
    await until(lambda: collector.of(later), timeout_s=30)
    assert collector.of(trace_id) == []
