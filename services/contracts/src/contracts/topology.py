"""The broker's exchanges and queues as data: their owners, the rights to publish, and the retry ladder.

Every service has an exchange of the same name, which routes to its durable queues by their names: retries
and replayed messages come back through it. No other service publishes to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

ServiceName = Literal["gateway", "stock-data", "email", "batch-processor"]
SERVICES: tuple[ServiceName, ...] = get_args(ServiceName)
GATEWAY, STOCK_DATA, EMAIL, BATCH_PROCESSOR = SERVICES

RPC = "rpc"
COMMANDS = "commands"
EVENTS = "events"
LIVE = "live"
REPLIES = "replies"


@dataclass(frozen=True)
class Exchange:
    """A durable exchange."""

    name: str
    kind: Literal["direct", "topic"]


@dataclass(frozen=True)
class Queue:
    """A durable queue, the exchange that feeds it, and the routing keys of its bindings.

    `auto_delete` queues are classic and vanish with their last consumer: a request to a service that is
    down fails at once instead of waiting for its deadline.
    """

    name: str
    exchange: str
    keys: tuple[str, ...]
    auto_delete: bool = False
    single_active_consumer: bool = False

    @property
    def service(self) -> str:
        """The service that it belongs to, whose exchange leads to it by its name."""
        return self.name.partition(".")[0]

    @property
    def shared_bindings(self) -> tuple[Binding, ...]:
        """Its bindings to a shared direct exchange, where the broker has no right for each key."""
        if self.exchange not in _LED:
            return ()
        return tuple(Binding(self.exchange, self.name, key) for key in self.keys)

    @property
    def arguments(self) -> dict[str, str | bool]:
        """The arguments that the code sets; limits and dead-lettering are set by policies."""
        if self.auto_delete:
            return {"x-queue-type": "classic"}
        arguments: dict[str, str | bool] = {"x-queue-type": "quorum"}
        if self.single_active_consumer:
            arguments["x-single-active-consumer"] = True
        return arguments


@dataclass(frozen=True)
class Rung:
    """A step of a retry ladder: messages wait `delay_s` in `queue`, then return to their own queue."""

    exchange: str
    queue: str
    key: str
    delay_s: int


@dataclass(frozen=True)
class Binding:
    """A binding of a queue to an exchange."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True)
class ExchangeBinding:
    """The key by which a shared exchange leads to the exchange of a service, as the definitions say."""

    source: str
    destination: str
    key: str


@dataclass(frozen=True)
class Topology:
    """The queues and exchanges of one service, and the shared exchanges that it may publish to.

    `events` and `live` are the first words of the routing keys under which it may publish events and live
    messages. `listens` are the exchanges and keys that each of its processes binds a queue of its own to.
    """

    service: str
    queues: tuple[Queue, ...] = field(default=())
    rungs: tuple[Rung, ...] = field(default=())
    writes: tuple[str, ...] = field(default=())
    events: tuple[str, ...] = field(default=())
    live: tuple[str, ...] = field(default=())
    listens: tuple[tuple[str, str], ...] = field(default=())

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The exchanges that no other service may publish to."""
        own = Exchange(own_exchange(self.service), "direct")
        return (own, Exchange(retry_exchange(self.service), "direct")) if self.rungs else (own,)

    @property
    def durable_queues(self) -> tuple[Queue, ...]:
        """The queues that exist while the service is down."""
        return tuple(queue for queue in self.queues if not queue.auto_delete)

    @property
    def bindings(self) -> tuple[Binding, ...]:
        """The bindings of the durable queues and of the rungs of the ladder, without `shared_bindings`."""
        own = own_exchange(self.service)
        return (
            *(
                Binding(queue.exchange, queue.name, key)
                for queue in self.durable_queues
                if queue.exchange not in _LED
                for key in queue.keys
            ),
            *(Binding(own, queue.name, queue.name) for queue in self.durable_queues if queue.exchange != own),
            *(Binding(rung.exchange, rung.queue, rung.key) for rung in self.rungs),
        )

    @property
    def routes(self) -> tuple[ExchangeBinding, ...]:
        """The ways of its commands and of requests to it, from the shared exchanges to its own."""
        own = own_exchange(self.service)
        return tuple(
            ExchangeBinding(binding.exchange, own, binding.key)
            for queue in self.queues
            for binding in queue.shared_bindings
        )

    @property
    def asks(self) -> bool:
        """Whether it sends requests, and so binds a queue for replies, by addresses that it makes up."""
        return RPC in self.writes

    @property
    def binds(self) -> dict[str, tuple[str, ...]]:
        """The shared exchanges that it binds queues to, each with the keys that it binds."""
        bound = [(queue.exchange, key) for queue in self.queues for key in queue.keys]
        wanted = [(exchange, key) for exchange, key in (*bound, *self.listens) if exchange in _BOUND]
        keys = {exchange: [key for other, key in wanted if other == exchange] for exchange, _ in wanted}
        found = {exchange: tuple(dict.fromkeys(these)) for exchange, these in keys.items()}
        return found | ({REPLIES: ()} if self.asks else {})


# Shared: created by the broker's definitions, because no service may configure what others depend on.
SHARED_EXCHANGES = (
    Exchange(RPC, "direct"),
    Exchange(COMMANDS, "direct"),
    Exchange(EVENTS, "topic"),
    Exchange(LIVE, "topic"),
    Exchange(REPLIES, "direct"),
)
# The definitions lead these to the exchanges of the services; the topic exchanges have rights for each key.
_LED = frozenset((COMMANDS, RPC))
_BOUND = frozenset((EVENTS, LIVE))

_STEPS = (("2s", 2), ("15s", 15), ("60s", 60), ("5m", 300), ("30m", 1800))


def own_exchange(service: str) -> str:
    """Return the exchange that routes to the queues of `service` by their names."""
    return service


def retry_exchange(service: str) -> str:
    """Return the exchange that routes to the retry ladder of `service`."""
    return f"retry.{service}"


def ladder(service: str) -> tuple[Rung, ...]:
    """Return the rungs on which failed messages of `service` wait, the shortest first."""
    exchange = retry_exchange(service)
    return tuple(Rung(exchange, f"{exchange}.{key}", key, delay_s) for key, delay_s in _STEPS)


def _command(service: str, command: str) -> Queue:
    name = f"{service}.{command}"
    return Queue(name, COMMANDS, (name,))


def _excess(service: str) -> Queue:
    name = f"{service}.excess"
    return Queue(name, own_exchange(service), (name,))


def rpc_queue(service: str) -> str:
    """Return the queue on which `service` answers requests."""
    return f"{service}.rpc"


def parked_queue(service: str) -> str:
    """Return the queue of the messages that `service` could not handle."""
    return f"{service}.parked"


def _service(
    service: str,
    *queues: Queue,
    writes: tuple[str, ...],
    events: tuple[str, ...],
    live: tuple[str, ...] = (),
    listens: tuple[tuple[str, str], ...] = (),
    answers: bool = True,
) -> Topology:
    parked = Queue(parked_queue(service), own_exchange(service), (parked_queue(service),))
    rpc = Queue(rpc_queue(service), RPC, (rpc_queue(service),), auto_delete=True)
    return Topology(
        service,
        (*queues, parked, *((rpc,) if answers else ())),
        ladder(service) if queues else (),
        (*writes, EVENTS, *((REPLIES,) if answers else ())),
        (*events, "parked"),
        live,
        listens,
    )


TOPOLOGIES: Mapping[str, Topology] = {
    GATEWAY: _service(
        GATEWAY,
        Queue(
            f"{GATEWAY}.events",
            EVENTS,
            ("email.*", "batch.*", "operations.*", "parked.*", "alert.*", "schedule.*"),
        ),
        writes=(RPC, COMMANDS, LIVE),
        events=(),
        live=("chat", "mail", "presence"),
        listens=(
            *((LIVE, key) for key in ("quotes", "bars", "chat", "presence", "batch.*", "mail")),
            *((EVENTS, key) for key in ("email.*", "alert.*")),
        ),
        answers=False,
    ),
    STOCK_DATA: _service(
        STOCK_DATA,
        writes=(LIVE,),
        events=("stocks", "alert"),
        live=("quotes", "bars"),
        listens=((LIVE, "quotes"),),
    ),
    EMAIL: _service(
        EMAIL,
        _command(EMAIL, "send"),
        _command(EMAIL, "bulk"),
        _excess(EMAIL),
        writes=(),
        events=("email",),
    ),
    BATCH_PROCESSOR: _service(
        BATCH_PROCESSOR,
        _command(BATCH_PROCESSOR, "intake"),
        writes=(RPC, COMMANDS, LIVE),
        events=("batch", "operations", "schedule"),
        live=("batch",),
    ),
}
# The services that answer requests.
ANSWERING: tuple[str, ...] = tuple(service for service in SERVICES if REPLIES in TOPOLOGIES[service].writes)
