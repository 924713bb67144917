"""A slow bucket leads to a trace: the measurement of a sampled request carries its trace id."""

from __future__ import annotations

import re
from collections.abc import Iterator
from uuid import uuid4

import pytest

from chassis import exemplars, exposition, tracing
from chassis.broker.envelope import Delivery, command
from chassis.broker.handlers import Direct
from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts.batches import CancelBatch
from contracts.stocks import Instruments, SearchSymbols
from contracts.topology import BATCH_PROCESSOR, STOCK_DATA
from grafana import reference
from support.bench import Bench
from support.waiting import until

QUEUE = "batch-processor.intake"
REQUESTS = ("tickwire_rpc_client_seconds", "tickwire_rpc_server_seconds")
MESSAGES = ("tickwire_message_age_seconds", "tickwire_message_handle_seconds")


@pytest.fixture
def trace_id() -> Iterator[str]:
    before = tracing.current()
    yield uuid4().hex
    tracing.current_trace.set(before)


def traced(trace_id: str) -> set[str]:
    """Return the histograms that have an exemplar of this trace."""
    text = exposition.expose("application/openmetrics-text")[0].decode()
    found = re.findall(rf'^(\w+)_bucket{{.*}} \S+ # {{trace_id="{trace_id}"}}', text, re.MULTILINE)
    return set(found)


async def answer(request: SearchSymbols, _: Deadline) -> Instruments:
    if request.q == "missing":
        raise NotFound("no such thing")
    return Instruments(data=[])


async def ask(bench: Bench, q: str, traceparent: str) -> None:
    answering = await bench.build(STOCK_DATA)
    answering.answer({SearchSymbols: answer})
    await bench.run(answering)
    asking = await bench.run(await bench.build(BATCH_PROCESSOR))
    tracing.begin(traceparent)
    await asking.messaging.rpc.ask(SearchSymbols(q=q), Deadline.after(5))


async def test_a_sampled_request_is_found_at_both_of_its_ends(bench: Bench, trace_id: str) -> None:
    await ask(bench, "found", f"00-{trace_id}-00f067aa0ba902b7-01")
    assert traced(trace_id) == set(REQUESTS)


async def test_a_sampled_request_that_fails_is_found_too(bench: Bench, trace_id: str) -> None:
    with pytest.raises(Exception, match="no such thing"):
        await ask(bench, "missing", f"00-{trace_id}-00f067aa0ba902b7-01")
    assert traced(trace_id) == set(REQUESTS)


async def test_a_request_that_is_not_sampled_leaves_nothing_behind(bench: Bench, trace_id: str) -> None:
    await ask(bench, "found", f"00-{trace_id}-00f067aa0ba902b7-00")
    assert traced(trace_id) == set()


@pytest.mark.parametrize(("flags", "expected"), [("01", set(MESSAGES)), ("00", set())])
async def test_a_message_of_a_sampled_trace_is_found(
    bench: Bench, trace_id: str, flags: str, expected: set[str]
) -> None:
    handled: list[Delivery[CancelBatch]] = []

    async def handle(delivery: Delivery[CancelBatch]) -> None:
        handled.append(delivery)

    worker = await bench.build(BATCH_PROCESSOR)
    worker.consume(QUEUE, {CancelBatch: Direct(handle)})
    await bench.run(worker)
    tracing.begin(f"00-{trace_id}-00f067aa0ba902b7-{flags}")
    await worker.messaging.publisher.publish(command(CancelBatch(batch_id=uuid4(), owner_id="ann")))
    await until(lambda: handled and traced(trace_id) == expected, what=lambda: str(traced(trace_id)))


def test_the_metrics_with_exemplars_are_those_that_the_dashboards_expect() -> None:
    ours = {"tickwire_http_request_seconds", *REQUESTS, *MESSAGES}
    assert reference.traced() == {f"{name}_bucket" for name in ours}


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", f"00-{'0' * 32}-00f067aa0ba902b7-01"])
def test_a_measurement_without_a_trace_has_no_exemplar(traceparent: str | None) -> None:
    assert exemplars.of_messages(traceparent) is None


def test_the_first_sampled_of_several_messages_is_the_exemplar() -> None:
    unsampled, sampled = "00-" + "a" * 32 + "-" + "1" * 16 + "-00", "00-" + "b" * 32 + "-" + "1" * 16 + "-01"
    assert exemplars.of_messages(None, unsampled, sampled) == {"trace_id": "b" * 32}
