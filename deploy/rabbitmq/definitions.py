"""Writes `definitions.json`, what the broker needs before services connect: `python -m rabbitmq.definitions`.

It is made from `contracts.topology`. Run it after a change of the topology; a test compares the two. Users
are not included: each way of running adds them with its own passwords.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from contracts.topology import (
    EVENTS,
    LIVE,
    SERVICES,
    SHARED_EXCHANGES,
    TOPOLOGIES,
    Rung,
    Topology,
    own_exchange,
    parked_queue,
    retry_exchange,
)

VHOST = "tickwire"
FILE = Path(__file__).with_name("definitions.json")

_MOST_MESSAGES = 1_000_000
_MOST_BYTES = 2 * 1024**3
# How often a message is redelivered when its consumer dies.
DELIVERY_LIMIT = 20


def build() -> dict[str, Any]:
    """Return the definitions as RabbitMQ imports them."""
    topologies = [TOPOLOGIES[service] for service in SERVICES]
    exchanges = [*SHARED_EXCHANGES, *(exchange for t in topologies for exchange in t.exchanges)]
    queues = [_queue(q.name, q.arguments) for t in topologies for q in t.durable_queues]
    rungs = [_queue(rung.queue, {"x-queue-type": "quorum"}) for t in topologies for rung in t.rungs]
    return {
        "vhosts": [{"name": VHOST}],
        "permissions": [_permissions(topology) for topology in topologies],
        "topic_permissions": [
            _topic_permissions(topology, exchange, words)
            for topology in topologies
            for exchange, words in ((EVENTS, topology.events), (LIVE, topology.live))
        ],
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": VHOST,
                "type": exchange.kind,
                "durable": True,
                "auto_delete": False,
                "arguments": {},
            }
            for exchange in exchanges
        ],
        "queues": queues + rungs,
        "bindings": _bindings(topologies),
        "policies": [_rung_policy(t, rung) for t in topologies for rung in t.rungs] + _queue_policies(),
    }


def render() -> str:
    """Return the text of the file."""
    return json.dumps(build(), indent=2) + "\n"


def _permissions(topology: Topology) -> dict[str, str]:
    # A service configures, reads and writes its own objects, and server-named queues, which are exclusive.
    # It never writes to the default exchange, which routes to every queue: replies have their own exchange.
    # It binds no queue to the exchanges of commands and requests, where it could hear those of others.
    names = f"{re.escape(topology.service)}|{re.escape(retry_exchange(topology.service))}"
    own = rf"({names})(\..+)?|amq\.gen.*"
    write = "|".join([own, *map(re.escape, topology.writes)])
    read = "|".join([own, *map(re.escape, topology.binds)])
    return {
        "user": topology.service,
        "vhost": VHOST,
        "configure": f"^({own})$",
        "write": f"^({write})$",
        "read": f"^({read})$",
    }


def _topic_permissions(topology: Topology, exchange: str, words: tuple[str, ...]) -> dict[str, str]:
    # A service publishes nothing in the name of another one, and a binding has to be one of its own, letter
    # by letter: with a pattern in its place it could hear everything.
    own = "|".join(map(re.escape, words))
    keys = "|".join(map(re.escape, topology.binds.get(exchange, ())))
    return {
        "user": topology.service,
        "vhost": VHOST,
        "exchange": exchange,
        "write": rf"^({own})(\..+)?$",
        "read": f"^({keys})$",
    }


def _queue(name: str, arguments: dict[str, str | bool]) -> dict[str, Any]:
    return {"name": name, "vhost": VHOST, "durable": True, "auto_delete": False, "arguments": arguments}


def _bindings(topologies: list[Topology]) -> list[dict[str, Any]]:
    bindings = [b for topology in topologies for b in topology.bindings]
    routes = [route for topology in topologies for route in topology.routes]
    return [
        *(_binding(route.source, route.destination, "exchange", route.key) for route in routes),
        *(_binding(binding.exchange, binding.queue, "queue", binding.key) for binding in bindings),
    ]


def _binding(source: str, destination: str, kind: str, key: str) -> dict[str, Any]:
    return {
        "source": source,
        "vhost": VHOST,
        "destination": destination,
        "destination_type": kind,
        "routing_key": key,
        "arguments": {},
    }


def _policy(name: str, pattern: str, definition: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "vhost": VHOST,
        "pattern": pattern,
        "apply-to": "queues",
        "priority": 10,
        "definition": definition,
    }


def _rung_policy(topology: Topology, rung: Rung) -> dict[str, Any]:
    # The CC header of each copy names its queue, to which the service's own exchange routes it by that name.
    return _policy(
        rung.queue,
        f"^{re.escape(rung.queue)}$",
        {
            "message-ttl": rung.delay_s * 1000,
            "dead-letter-exchange": own_exchange(topology.service),
            "dead-letter-strategy": "at-least-once",
            "overflow": "reject-publish",
            "max-length": _MOST_MESSAGES,
        },
    )


def _queue_policies() -> list[dict[str, Any]]:
    policies = []
    for service in SERVICES:
        parked = parked_queue(service)
        limits = {"overflow": "reject-publish", "max-length": _MOST_MESSAGES, "max-length-bytes": _MOST_BYTES}
        policies.append(_policy(parked, f"^{re.escape(parked)}$", limits))
        names = [q.name for q in TOPOLOGIES[service].durable_queues if q.name != parked]
        if not names:
            continue
        # Only a message that repeatedly kills its consumer gets here: the consumer parks all others.
        limited = {
            **limits,
            "delivery-limit": DELIVERY_LIMIT,
            "dead-letter-exchange": own_exchange(service),
            "dead-letter-routing-key": parked,
            "dead-letter-strategy": "at-least-once",
        }
        pattern = "|".join(re.escape(name) for name in names)
        policies.append(_policy(f"{service}.work", f"^({pattern})$", limited))
    return policies


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
