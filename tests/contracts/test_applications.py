"""Each service builds its application from settings alone, and opens nothing on the way."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from pydantic import BaseModel

import batch_processor.app
import batch_processor.resources
import batch_processor.settings
import emailer.app
import emailer.resources
import emailer.settings
import gateway.app
import gateway.resources
import gateway.settings
import stock_data.app
import stock_data.resources
import stock_data.settings
from chassis.asgi import Application
from chassis.runtime import ServiceRuntime
from contracts.message import LiveMessage, Message
from contracts.topology import SERVICES, TOPOLOGIES, parked_queue
from gateway.reference import asyncapi, broker

VALUES = {"rabbitmq_url": "amqp://u:p@127.0.0.1:1/tickwire", "postgres_dsn": "postgresql://u:p@127.0.0.1:1/d"}
CREATE: Mapping[str, Callable[..., Application]] = {
    "gateway": gateway.app.create_app,
    "stock-data": stock_data.app.create_app,
    "email": emailer.app.create_app,
    "batch-processor": batch_processor.app.create_app,
}
SETTINGS: Mapping[str, BaseModel] = {
    "gateway": gateway.settings.GatewaySettings.model_validate({**VALUES, "key_pepper": "a pepper of tests"}),
    "stock-data": stock_data.settings.StockDataSettings.model_validate(VALUES),
    "email": emailer.settings.EmailSettings.model_validate(VALUES),
    "batch-processor": batch_processor.settings.BatchProcessorSettings.model_validate(VALUES),
}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_is_wired_to_an_application_without_opening_anything(service: str) -> None:
    assert list(inspect.signature(CREATE[service]).parameters) == ["settings"]
    application: Any = CREATE[service](SETTINGS[service])
    assert type(application) is Application
    assert callable(application.asgi)
    assert application.health.failures() == {}


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_takes_the_messages_that_the_document_says_it_takes_and_no_others(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: set[type[Message]] = set()

    def consume(_: ServiceRuntime, queue: str, handlers: Iterable[type[Message]], **__: Any) -> None:
        taken.update(handlers)

    def answer(runtime: ServiceRuntime, handlers: Iterable[type[Message]]) -> None:
        taken.update(handlers, runtime.parked.answers())

    monkeypatch.setattr(ServiceRuntime, "consume", consume)
    monkeypatch.setattr(ServiceRuntime, "answer", answer)
    CREATE[service](SETTINGS[service])
    live = {kind.message_type for kind in broker.messages() if issubclass(kind, LiveMessage)}
    documented = {
        message["$ref"].rpartition("/messages/")[2]
        for name, operation in asyncapi.build((), ())["operations"].items()
        for message in operation["messages"]
        if name.startswith(f"{service}.")
        and operation["action"] == "receive"
        # Parked messages are of any type, and stored by the runtime itself.
        and not name.endswith(".receive.parked")
    }
    assert {kind.message_type for kind in taken} == documented - live


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_consumes_each_of_its_queues(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    consumed: list[str] = []

    def consume(_: ServiceRuntime, queue: str, *__: Any, **___: Any) -> None:
        consumed.append(queue)

    monkeypatch.setattr(ServiceRuntime, "consume", consume)
    CREATE[service](SETTINGS[service])
    queues = {queue.name for queue in TOPOLOGIES[service].durable_queues}
    # Parked messages are stored by the runtime itself.
    assert sorted(consumed) == sorted(queues - {parked_queue(service)})


@pytest.mark.parametrize(
    "resources",
    [
        gateway.resources.Resources,
        stock_data.resources.Resources,
        emailer.resources.Resources,
        batch_processor.resources.Resources,
    ],
    ids=SERVICES,
)
def test_everything_that_a_service_opens_is_on_one_exit_stack(resources: Any) -> None:
    opening = inspect.unwrap(resources.open)
    assert inspect.isasyncgenfunction(opening), "decorated with asynccontextmanager"
    assert list(inspect.signature(opening).parameters) == ["self"]
    assert "AsyncExitStack" in opening.__code__.co_names
