"""The messages between the services over the broker: commands, requests, and what waits or is parked."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache

import contracts
from contracts import message as kinds
from contracts import topology
from contracts.message import Command, Contract, Event, Failure, LiveMessage, Reply, Request
from contracts.topology import Queue, Topology
from gateway.reference.channels import DocumentedChannel, DocumentedMessage, DocumentedOperation

SERVER = "rabbitmq"
BINDING_VERSION = "0.3.0"
_PARKED = "Messages that could not be handled, unchanged, with the reason in their headers."
_EXCESS = "Accepted work of an owner who has much of it waiting: the service itself has moved it here."
_WAITING = (
    "Messages of {service} that wait for their next attempt, unchanged: the routing key is the time that "
    "they wait. The broker then returns them to their queue."
)
# Of each way to travel, the trait with its headers.
_TRAITS = ((Request, "request"), (Reply, "reply"), (LiveMessage, "live"))


def operations() -> Iterator[DocumentedOperation]:
    """Yield the operations by which each service receives from its queues, and others send to them."""
    for service, owned in topology.TOPOLOGIES.items():
        for queue in owned.queues:
            if queue.exchange == topology.COMMANDS:
                yield from _commands(service, queue)
            elif queue.exchange == topology.RPC:
                yield from _requests(service, queue)
            elif queue.exchange == topology.EVENTS:
                yield _returns(
                    service, _queue_channel(queue, _events(queue), "Events, as the queue has them.")
                )
            elif queue.name == topology.parked_queue(service):
                yield from _parked(service, queue)
            else:
                yield from _excess(service, queue)
        if owned.rungs:
            yield _waits(service, owned)


@cache
def messages() -> tuple[type[kinds.Message], ...]:
    """Return every message of the contracts: the concrete classes, each where it is defined."""
    found = pkgutil.iter_modules(contracts.__path__, "contracts.")
    modules = [importlib.import_module(module.name) for module in found]
    return tuple(
        kind
        for module in modules
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
        # A base class of several messages has no message type.
        if issubclass(kind, kinds.Message) and hasattr(kind, "message_type")
    )


def message(kind: type[Contract]) -> DocumentedMessage:
    """Return the message of `kind`, with the first sentence of its description."""
    text = " ".join((inspect.getdoc(kind) or "").split())
    summary = text.partition(". ")[0].rstrip(".:") + "."
    name = getattr(kind, "message_type", kind.__name__)
    trait = next((trait for base, trait in _TRAITS if issubclass(kind, base)), "durable")
    return DocumentedMessage(name=name, summary=summary, kind=kind, traits=(trait,))


def binds(pattern: str, key: str) -> bool:
    """Return whether a binding with `pattern`, in which `*` stands for one word, matches `key`."""
    words, wanted = key.split("."), pattern.split(".")
    return len(words) == len(wanted) and all(
        want in ("*", word) for word, want in zip(words, wanted, strict=True)
    )


def _queue_channel(queue: Queue, found: Sequence[DocumentedMessage], description: str) -> DocumentedChannel:
    return DocumentedChannel(
        name=queue.name,
        address=queue.name,
        server=SERVER,
        description=description,
        messages=tuple(found),
        bindings={
            "amqp": {
                "is": "queue",
                "queue": {
                    "name": queue.name,
                    "durable": not queue.auto_delete,
                    "exclusive": False,
                    "autoDelete": queue.auto_delete,
                },
                "bindingVersion": BINDING_VERSION,
            }
        },
    )


def _commands(service: str, queue: Queue) -> Iterator[DocumentedOperation]:
    found = [
        kind
        for kind in messages()
        if issubclass(kind, Command) and queue.name in (kind.queue, kind.bulk_queue)
    ]
    channel = _queue_channel(
        queue,
        [message(kind) for kind in found],
        "Accepted work: durable, delivered at least once, and retried by the retry ladder.",
    )
    yield _receives(service, channel)
    for sender in sorted({sender for kind in found for sender in kind.senders}):
        yield DocumentedOperation(
            name=f"{sender}.send.{queue.name}",
            action="send",
            channel=channel,
            summary=f"{sender} sends accepted work to {queue.name}.",
            messages=tuple(message(kind) for kind in found if sender in kind.senders),
        )
    yield _returns(service, channel)


def _excess(service: str, queue: Queue) -> Iterator[DocumentedOperation]:
    found = [kind for kind in messages() if issubclass(kind, Command) and queue.name == kind.excess_queue]
    channel = _queue_channel(queue, [message(kind) for kind in found], _EXCESS)
    yield _receives(service, channel)
    yield _returns(service, channel)


def _receives(service: str, channel: DocumentedChannel) -> DocumentedOperation:
    return DocumentedOperation(
        name=f"{service}.receive.{channel.name}",
        action="receive",
        channel=channel,
        summary=f"{service} does the work of {channel.name}.",
        messages=channel.messages,
    )


def _events(queue: Queue) -> list[DocumentedMessage]:
    bound = [
        kind
        for kind in messages()
        if issubclass(kind, Event) and any(binds(pattern, kind.routing_key) for pattern in queue.keys)
    ]
    return [message(kind) for kind in bound]


def _returns(service: str, channel: DocumentedChannel) -> DocumentedOperation:
    return DocumentedOperation(
        name=f"{service}.return.{channel.name}",
        action="send",
        channel=channel,
        summary=f"{service} returns messages to its queue, over the exchange of its name: those that an "
        "administrator replays, those of a bundle that it must handle one by one, and what an owner has too "
        "much of.",
        messages=channel.messages,
    )


def _parked(service: str, queue: Queue) -> Iterator[DocumentedOperation]:
    parked = DocumentedMessage(name="parked", summary="A message of any type.", kind=None, traits=("parked",))
    channel = _queue_channel(queue, [parked], _PARKED)
    yield DocumentedOperation(
        name=f"{service}.receive.parked",
        action="receive",
        channel=channel,
        summary=f"{service} stores parked messages until an administrator decides.",
        messages=channel.messages,
    )
    if any(
        queue.exchange in (topology.COMMANDS, topology.EVENTS)
        for queue in topology.TOPOLOGIES[service].queues
    ):
        yield DocumentedOperation(
            name=f"{service}.send.parked",
            action="send",
            channel=channel,
            summary=f"{service} parks messages that it cannot handle.",
            messages=channel.messages,
        )


def _waits(service: str, owned: Topology) -> DocumentedOperation:
    exchange = topology.retry_exchange(service)
    waiting = DocumentedMessage(
        name="waiting", summary="A message of any type.", kind=None, traits=("waiting",)
    )
    channel = DocumentedChannel(
        name=exchange,
        address="{wait}",
        server=SERVER,
        description=_WAITING.format(service=service),
        messages=(waiting,),
        parameters={"wait": "The time: " + ", ".join(rung.key for rung in owned.rungs) + "."},
        bindings={
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": "direct", "durable": True, "autoDelete": False},
                "bindingVersion": BINDING_VERSION,
            }
        },
    )
    return DocumentedOperation(
        name=f"{service}.send.{exchange}",
        action="send",
        channel=channel,
        summary=f"{service} lets messages wait whose handling failed for a reason that may pass.",
        messages=channel.messages,
    )


def _requests(service: str, queue: Queue) -> Iterator[DocumentedOperation]:
    # A request without a service goes to any of them: each is asked about its own parked messages.
    found = [
        kind
        for kind in messages()
        if issubclass(kind, Request) and getattr(kind, "service", service) == service
    ]
    channel = _queue_channel(
        queue, [message(kind) for kind in found], "Requests with a deadline, delivered at most once."
    )
    replies: list[type[Contract]] = [*dict.fromkeys(kind.reply for kind in found), Failure]
    answers = DocumentedChannel(
        name=f"{service}.replies",
        address=None,
        server=SERVER,
        description="The address is the property `reply_to` of the request, a routing key of the exchange "
        f"`{topology.REPLIES}` that the sender made up for this service; the property `type` is `reply`.",
        messages=tuple(message(kind) for kind in replies),
    )
    for kind in found:
        yield DocumentedOperation(
            name=f"{service}.answer.{kind.message_type}",
            action="receive",
            channel=channel,
            summary=f"{service} answers {kind.message_type}.",
            messages=(message(kind),),
            reply=(answers, (message(kind.reply), message(Failure))),
        )
