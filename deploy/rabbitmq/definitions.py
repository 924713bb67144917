"""Writes `definitions.json`: what a broker needs before the services come, made from `contracts.topology`.

Run `python -m rabbitmq.definitions` after a change of the topology; a test holds the two equal. Users are
not in it: each way of running adds the four of them with passwords of its own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from contracts.topology import EXCHANGES, LADDER, RETRY, SERVICES, TOPOLOGIES, Queue, parked_queue

VHOST = "tickwire"
FILE = Path(__file__).with_name("definitions.json")

_MOST_MESSAGES = 1_000_000
_MOST_BYTES = 2 * 1024**3
# How often a message is brought again to a consumer that dies with it.
DELIVERY_LIMIT = 20


def build() -> dict[str, Any]:
    """The definitions as RabbitMQ imports them."""
    return {
        "vhosts": [{"name": VHOST}],
        "permissions": [_permissions(service) for service in SERVICES],
        "exchanges": [_exchange(exchange.name, exchange.kind) for exchange in EXCHANGES],
        "queues": [_queue(queue.name, queue.arguments) for queue in _durable_queues()] + _rung_queues(),
        "bindings": _bindings(),
        "policies": _rung_policies() + _queue_policies(),
    }


def render() -> str:
    """The file's text."""
    return json.dumps(build(), indent=2) + "\n"


def _durable_queues() -> list[Queue]:
    return [q for service in SERVICES for q in TOPOLOGIES[service].queues if not q.auto_delete]


def _permissions(service: str) -> dict[str, str]:
    # A service declares the shared exchanges and ladder and its own queues; it reads its own queues and
    # writes to exchanges, never straight into another's queue. Replies go through the default exchange.
    own = rf"{re.escape(service)}\..+"
    names = "|".join(re.escape(exchange.name) for exchange in EXCHANGES)
    shared = rf"{names}|retry\..+"
    return {
        "user": service,
        "vhost": VHOST,
        "configure": rf"^({shared}|{own}|amq\.gen.*)$",
        "write": rf"^({shared}|{own}|amq\.gen.*|amq\.default)$",
        "read": rf"^({names}|{own}|amq\.gen.*)$",
    }


def _exchange(name: str, kind: str) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": VHOST,
        "type": kind,
        "durable": True,
        "auto_delete": False,
        "arguments": {},
    }


def _queue(name: str, arguments: dict[str, str | bool]) -> dict[str, Any]:
    return {"name": name, "vhost": VHOST, "durable": True, "auto_delete": False, "arguments": arguments}


def _rung_queues() -> list[dict[str, Any]]:
    return [_queue(rung.queue, {"x-queue-type": "quorum"}) for rung in LADDER]


def _bindings() -> list[dict[str, Any]]:
    pairs = [(q.exchange, q.name, key) for q in _durable_queues() for key in q.keys]
    pairs += [(RETRY, rung.queue, rung.key) for rung in LADDER]
    return [
        {
            "source": source,
            "vhost": VHOST,
            "destination": destination,
            "destination_type": "queue",
            "routing_key": key,
            "arguments": {},
        }
        for source, destination, key in pairs
    ]


def _policy(name: str, pattern: str, definition: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": VHOST,
        "pattern": pattern,
        "apply-to": "queues",
        "priority": 10,
        "definition": definition,
    }


def _rung_policies() -> list[dict[str, Any]]:
    # The empty dead-letter exchange is the default one: the CC header of each copy names its own queue.
    return [
        _policy(
            rung.queue,
            f"^{re.escape(rung.queue)}$",
            {
                "message-ttl": rung.delay_s * 1000,
                "dead-letter-exchange": "",
                "dead-letter-strategy": "at-least-once",
                "overflow": "reject-publish",
                "max-length": _MOST_MESSAGES,
            },
        )
        for rung in LADDER
    ]


def _queue_policies() -> list[dict[str, Any]]:
    policies = []
    for service in SERVICES:
        parked = parked_queue(service)
        limits = {"overflow": "reject-publish", "max-length": _MOST_MESSAGES, "max-length-bytes": _MOST_BYTES}
        policies.append(_policy(parked, f"^{re.escape(parked)}$", limits))
        names = [q.name for q in TOPOLOGIES[service].queues if not q.auto_delete and q.name != parked]
        if not names:
            continue
        # Only a message that kills its consumer again and again gets here: the consumer parks the rest.
        limited = {
            **limits,
            "delivery-limit": DELIVERY_LIMIT,
            "dead-letter-exchange": "parked",
            "dead-letter-routing-key": parked,
            "dead-letter-strategy": "at-least-once",
        }
        pattern = "|".join(re.escape(name) for name in names)
        policies.append(_policy(f"{service}.work", f"^({pattern})$", limited))
    return policies


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
