"""The messages between the services, from the contracts and the topology of the broker."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator, Sequence
from functools import cache
from types import ModuleType

import contracts
from contracts import message as kinds
from contracts import topology
from contracts.message import Command, Contract, Event, Failure, Request
from contracts.topology import Queue, Topology
from gateway.reference.channels import Channel, Message, Operation

SERVER = "rabbitmq"
_VERSION = "0.3.0"
_EVENT = "Something that happened; durable, through the outbox."


def operations() -> Iterator[Operation]:
    """Yield what each service receives and sends over the broker."""
    for service, owned in topology.TOPOLOGIES.items():
        for queue in owned.queues:
            if queue.exchange == topology.COMMANDS:
                yield from _commands(service, queue)
            elif queue.exchange == topology.RPC:
                yield from _requests(service, queue)
            elif queue.name == topology.parked_queue(service):
                yield _parked(service, queue)
            elif queue.exchange == topology.EVENTS:
                yield from _events(service, queue)
        yield from _announcements(owned)
    yield from _live()


@cache
def _modules() -> tuple[ModuleType, ...]:
    found = pkgutil.iter_modules(contracts.__path__, "contracts.")
    return tuple(importlib.import_module(module.name) for module in found)


def messages() -> list[type[kinds.Message]]:
    """Return every message of the contracts."""
    return [kind for module in _modules() for kind in _defined(module, kinds.Message)]


def _defined(module: ModuleType, parent: type[Contract]) -> list[type]:
    """Return the concrete classes that `module` itself defines below `parent`."""
    return [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, parent) and kind.__module__ == module.__name__ and module is not kinds
    ]


def _message(kind: type[Contract]) -> Message:
    name = getattr(kind, "message_type", kind.__name__)
    return Message(name=name, summary=_first_sentence(kind), kind=kind, traits=("broker",))


def _first_sentence(kind: type) -> str:
    text = " ".join((inspect.getdoc(kind) or "").split())
    return text.partition(". ")[0].rstrip(".:") + "."


def _queue_channel(queue: Queue, found: Sequence[type[Contract]], description: str) -> Channel:
    return Channel(
        name=queue.name,
        address=queue.name,
        server=SERVER,
        description=description,
        messages=tuple(_message(kind) for kind in found),
        bindings={
            "amqp": {
                "is": "queue",
                "queue": {
                    "name": queue.name,
                    "durable": not queue.auto_delete,
                    "exclusive": False,
                    "autoDelete": queue.auto_delete,
                },
                "bindingVersion": _VERSION,
            }
        },
    )


def _key_channel(exchange: str, key: str, kind: type[kinds.Message], description: str) -> Channel:
    return Channel(
        name=key,
        address=key,
        server=SERVER,
        description=description,
        messages=(_message(kind),),
        bindings={
            "amqp": {
                "is": "routingKey",
                "exchange": {"name": exchange, "type": "topic", "durable": True, "autoDelete": False},
                "bindingVersion": _VERSION,
            }
        },
    )


def _commands(service: str, queue: Queue) -> Iterator[Operation]:
    found = [kind for kind in messages() if issubclass(kind, Command) and kind.queue == queue.name]
    channel = _queue_channel(
        queue, found, "Work that was promised: durable, at least once, tried again by the retry ladder."
    )
    yield Operation(
        name=f"{service}.receive.{queue.name}",
        action="receive",
        channel=channel,
        summary=f"{service} does the work of {queue.name}.",
        messages=channel.messages,
    )
    for sender in sorted({sender for kind in found for sender in kind.senders}):
        yield Operation(
            name=f"{sender}.send.{queue.name}",
            action="send",
            channel=channel,
            summary=f"{sender} promises work to {queue.name}.",
            messages=tuple(_message(kind) for kind in found if sender in kind.senders),
        )


def _requests(service: str, queue: Queue) -> Iterator[Operation]:
    # A request that names no service is for any of them: each is asked about its own parked messages.
    found = [
        kind
        for kind in messages()
        if issubclass(kind, Request) and getattr(kind, "service", service) == service
    ]
    channel = _queue_channel(queue, found, "Questions whose sender waits: at most once, with a deadline.")
    replies: list[type[Contract]] = [*dict.fromkeys(kind.reply for kind in found), Failure]
    answers = Channel(
        name=f"{service}.replies",
        address=None,
        server=SERVER,
        description="The address is the property `reply_to` of the request.",
        messages=tuple(_message(kind) for kind in replies),
    )
    for kind in found:
        yield Operation(
            name=f"{service}.answer.{kind.message_type}",
            action="receive",
            channel=channel,
            summary=f"{service} answers {kind.message_type}.",
            messages=(_message(kind),),
            reply=(answers, (_message(kind.reply), _message(Failure))),
        )


def _parked(service: str, queue: Queue) -> Operation:
    channel = _queue_channel(
        queue, (), "Messages that could not be handled, as they came, with the reason in their headers."
    )
    return Operation(
        name=f"{service}.receive.parked",
        action="receive",
        channel=channel,
        summary=f"{service} stores what was parked, for an administrator to decide.",
        messages=(),
    )


def _events(service: str, queue: Queue) -> Iterator[Operation]:
    for kind in messages():
        if issubclass(kind, Event) and any(_binds(key, kind.routing_key) for key in queue.keys):
            channel = _key_channel(topology.EVENTS, kind.routing_key, kind, _EVENT)
            yield Operation(
                name=f"{service}.receive.{kind.routing_key}",
                action="receive",
                channel=channel,
                summary=f"{service} takes {kind.routing_key} from its queue {queue.name}.",
                messages=channel.messages,
            )


def _announcements(owned: Topology) -> Iterator[Operation]:
    for kind in messages():
        if issubclass(kind, Event) and kind.routing_key.partition(".")[0] in owned.events:
            channel = _key_channel(topology.EVENTS, kind.routing_key, kind, _EVENT)
            yield Operation(
                name=f"{owned.service}.send.{kind.routing_key}",
                action="send",
                channel=channel,
                summary=f"{owned.service} announces {kind.routing_key}.",
                messages=channel.messages,
            )


def _live() -> Iterator[Operation]:
    for kind in messages():
        if issubclass(kind, Command | Event | Request):
            continue
        key = getattr(kind, "routing_key", kind.message_type)
        channel = _key_channel(
            topology.LIVE, key, kind, "News for screens; transient, and lost when nobody listens."
        )
        yield Operation(
            name=f"{topology.GATEWAY}.receive.{key}",
            action="receive",
            channel=channel,
            summary="Each gateway shows it to its sockets.",
            messages=channel.messages,
        )


def _binds(pattern: str, key: str) -> bool:
    """Return whether a binding with `pattern`, whose `*` stands for one word, gets messages of `key`."""
    words, wanted = key.split("."), pattern.split(".")
    return len(words) == len(wanted) and all(
        want in ("*", word) for word, want in zip(words, wanted, strict=True)
    )
