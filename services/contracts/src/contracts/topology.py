"""The broker's exchanges and queues as data: who owns which queue, and the ladder of retries."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

GATEWAY = "gateway"
STOCK_DATA = "stock-data"
EMAIL = "email"
BATCH_PROCESSOR = "batch-processor"
SERVICES = (GATEWAY, STOCK_DATA, EMAIL, BATCH_PROCESSOR)

RPC = "rpc"
COMMANDS = "commands"
EVENTS = "events"
LIVE = "live"
RETRY = "retry"
PARKED = "parked"


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: Literal["direct", "topic"]


@dataclass(frozen=True)
class Queue:
    """A durable queue, the exchange that feeds it and the routing keys it is bound with.

    `auto_delete` queues are classic and vanish with their last consumer: a request to a service that is
    away comes back at once instead of waiting for a deadline.
    """

    name: str
    exchange: str
    keys: tuple[str, ...]
    auto_delete: bool = False
    single_active_consumer: bool = False

    @property
    def arguments(self) -> dict[str, str | bool]:
        """The arguments given in code; limits and dead-lettering come as policies."""
        if self.auto_delete:
            return {"x-queue-type": "classic"}
        arguments: dict[str, str | bool] = {"x-queue-type": "quorum"}
        if self.single_active_consumer:
            arguments["x-single-active-consumer"] = True
        return arguments


@dataclass(frozen=True)
class Rung:
    """A step of the retry ladder: messages wait `delay_s` in `queue`, then return to their own queue."""

    queue: str
    key: str
    delay_s: int


@dataclass(frozen=True)
class Topology:
    """What one service declares: all exchanges and the ladder, and the queues it owns."""

    service: str
    queues: tuple[Queue, ...] = field(default=())


EXCHANGES = (
    Exchange(RPC, "direct"),
    Exchange(COMMANDS, "direct"),
    Exchange(EVENTS, "topic"),
    Exchange(LIVE, "topic"),
    Exchange(RETRY, "direct"),
    Exchange(PARKED, "direct"),
)

LADDER = (
    Rung("retry.2s", "2s", 2),
    Rung("retry.15s", "15s", 15),
    Rung("retry.60s", "60s", 60),
    Rung("retry.5m", "5m", 300),
    Rung("retry.30m", "30m", 1800),
)


def _command(service: str, command: str) -> Queue:
    name = f"{service}.{command}"
    return Queue(name, COMMANDS, (name,))


def _events(service: str, *keys: str) -> Queue:
    return Queue(f"{service}.events", EVENTS, keys)


def rpc_queue(service: str) -> str:
    """The queue on which `service` answers requests."""
    return f"{service}.rpc"


def parked_queue(service: str) -> str:
    """The queue that keeps what `service` could not handle."""
    return f"{service}.parked"


def _service(service: str, *queues: Queue, answers: bool = True) -> Topology:
    parked = Queue(parked_queue(service), PARKED, (parked_queue(service),))
    rpc = Queue(rpc_queue(service), RPC, (rpc_queue(service),), auto_delete=True)
    return Topology(service, (*queues, parked, *((rpc,) if answers else ())))


TOPOLOGIES = {
    GATEWAY: _service(
        GATEWAY, _events(GATEWAY, "email.*", "batch.*", "operations.*", "parked.*"), answers=False
    ),
    STOCK_DATA: _service(STOCK_DATA),
    EMAIL: _service(EMAIL, _command(EMAIL, "send")),
    BATCH_PROCESSOR: _service(
        BATCH_PROCESSOR,
        _command(BATCH_PROCESSOR, "intake"),
        _command(BATCH_PROCESSOR, "chunk"),
    ),
}
