"""The messages that services send each other over the broker: commands, requests, and parked messages."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache

import contracts
from contracts import message as kinds
from contracts import topology
from contracts.message import Command, Contract, Failure, Request
from contracts.topology import Queue
from gateway.reference.channels import DocumentedChannel, DocumentedMessage, DocumentedOperation

SERVER = "rabbitmq"
BINDING_VERSION = "0.3.0"
_PARKED = "Messages that could not be handled, unchanged, with the reason in their headers."


def operations() -> Iterator[DocumentedOperation]:
    """Yield the operations by which each service receives from its queues, and others send to them."""
    for service, owned in topology.TOPOLOGIES.items():
        for queue in owned.queues:
            if queue.exchange == topology.COMMANDS:
                yield from _commands(service, queue)
            elif queue.exchange == topology.RPC:
                yield from _requests(service, queue)
            elif queue.name == topology.parked_queue(service):
                yield DocumentedOperation(
                    name=f"{service}.receive.parked",
                    action="receive",
                    channel=_queue_channel(queue, (), _PARKED),
                    summary=f"{service} stores parked messages until an administrator decides.",
                    messages=(),
                )


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
    return DocumentedMessage(name=name, summary=summary, kind=kind, traits=("broker",))


def _queue_channel(queue: Queue, found: Sequence[type[Contract]], description: str) -> DocumentedChannel:
    return DocumentedChannel(
        name=queue.name,
        address=queue.name,
        server=SERVER,
        description=description,
        messages=tuple(message(kind) for kind in found),
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
    found = [kind for kind in messages() if issubclass(kind, Command) and kind.queue == queue.name]
    channel = _queue_channel(
        queue, found, "Accepted work: durable, delivered at least once, and retried by the retry ladder."
    )
    yield DocumentedOperation(
        name=f"{service}.receive.{queue.name}",
        action="receive",
        channel=channel,
        summary=f"{service} does the work of {queue.name}.",
        messages=channel.messages,
    )
    for sender in sorted({sender for kind in found for sender in kind.senders}):
        yield DocumentedOperation(
            name=f"{sender}.send.{queue.name}",
            action="send",
            channel=channel,
            summary=f"{sender} sends accepted work to {queue.name}.",
            messages=tuple(message(kind) for kind in found if sender in kind.senders),
        )


def _requests(service: str, queue: Queue) -> Iterator[DocumentedOperation]:
    # A request without a service goes to any of them: each is asked about its own parked messages.
    found = [
        kind
        for kind in messages()
        if issubclass(kind, Request) and getattr(kind, "service", service) == service
    ]
    channel = _queue_channel(queue, found, "Requests with a deadline, delivered at most once.")
    replies: list[type[Contract]] = [*dict.fromkeys(kind.reply for kind in found), Failure]
    answers = DocumentedChannel(
        name=f"{service}.replies",
        address=None,
        server=SERVER,
        description="The address is the property `reply_to` of the request.",
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
