"""The scenarios, in the order of the table."""

from __future__ import annotations

import random
from functools import partial

from faults import harm
from faults.load import LoadRequest, WorkCounts
from faults.rig import Rig
from faults.scenario import Scenario
from support.doubles.smtp import HANG_UP, HANG_UP_BEFORE_DOT, Step

_POISON = 12
_NO_DATABASE = ("503 database-unavailable",)
# Silence is known after two questions without an answer, which is up to a second later than the deadline of
# those who came first.
_SILENT_DATABASE = (*_NO_DATABASE, "504 deadline-exceeded")
# A gateway that is gone refuses connections, and cuts those that it had; one that is asked before it is
# ready, which no load balancer does, has no database yet.
_NO_GATEWAY = ("ConnectError", "ReadError", "RemoteProtocolError", "WriteError", *_NO_DATABASE)
# Nor has it a broker: it connects when the database is ready. Items of uploads go straight to the broker.
_NO_GATEWAY_FOR_UPLOADS = (*_NO_GATEWAY, "503 broker-unavailable")


def _dropping(rig: Rig, work: list[LoadRequest], rng: random.Random, *, answer: str) -> None:
    for one in work:
        if one.kind == "mail" and rng.random() < 1 / 3:
            rig.relay.script(one.key, Step("content", answer))


def _dropping_before(rig: Rig, work: list[LoadRequest], rng: random.Random) -> None:
    _dropping(rig, work, rng, answer=HANG_UP_BEFORE_DOT)


def _dropping_after(rig: Rig, work: list[LoadRequest], rng: random.Random) -> None:
    _dropping(rig, work, rng, answer=HANG_UP)


def _slow_relay(rig: Rig, _work: list[LoadRequest], _rng: random.Random) -> None:
    rig.relay.delay_s = 0.2


async def _nothing(rig: Rig, _: random.Random) -> None:
    """Do nothing: the scripted relay and the load are the fault."""


SCENARIOS = (
    Scenario("calm", "nothing happens", _nothing, 4),
    Scenario(
        "broker-restart",
        "broker stopped and started",
        harm.stopped_broker(2),
        10,
        is_quick=True,
    ),
    Scenario("broker-black-hole", "broker black-holed for 35 s", harm.black_hole("rabbitmq", 35), 30),
    Scenario("broker-half-open", "all connections to the broker half-open", harm.half_open("rabbitmq"), 30),
    Scenario("broker-slow", "broker 300 ms away each way", harm.slow("rabbitmq", 8, latency_s=0.3), 9),
    Scenario("broker-flapping", "broker there and away each second", harm.flapping("rabbitmq", 8), 9),
    Scenario("broker-alarm", "memory alarm of the broker for 8 s", harm.alarmed_broker(8), 10),
    Scenario(
        "connections-closed",
        "all connections closed by the operator",
        harm.close_all_connections,
        5,
        is_quick=True,
    ),
    Scenario(
        "database-restart",
        "PostgreSQL restarted",
        harm.restart_postgres,
        6,
        is_quick=True,
        answers=_NO_DATABASE,
    ),
    Scenario(
        "database-black-hole",
        "PostgreSQL black-holed for 20 s",
        harm.black_hole("postgres", 20),
        20,
        answers=_SILENT_DATABASE,
    ),
    Scenario(
        "database-half-open",
        "all connections to PostgreSQL half-open",
        harm.half_open("postgres"),
        20,
        answers=_SILENT_DATABASE,
    ),
    Scenario("database-slow", "PostgreSQL 50 ms away each way", harm.slow("postgres", 8, latency_s=0.05), 9),
    Scenario(
        "database-flapping",
        "PostgreSQL there and away each second",
        harm.flapping("postgres", 8),
        9,
        answers=_NO_DATABASE,
    ),
    Scenario("cache-gone", "memcached gone for 5 s", harm.stopped("memcached", 5), 6),
    Scenario("relay-down", "SMTP relay down for 5 s", harm.refused("mailbox_smtp", 5), 6),
    Scenario("relay-slow", "SMTP relay takes 0.2 s for each answer", _nothing, 6, prepare=_slow_relay),
    Scenario("relay-black-hole", "SMTP relay black-holed for 8 s", harm.black_hole("mailbox_smtp", 8), 9),
    Scenario(
        "relay-drops-before",
        "SMTP relay hangs up before the dot of every third mail",
        _nothing,
        5,
        prepare=_dropping_before,
    ),
    Scenario(
        "relay-drops-after",
        "SMTP relay hangs up after the dot of every third mail",
        _nothing,
        5,
        prepare=_dropping_after,
        is_quick=True,
    ),
    Scenario(
        "kills",
        "kill -9 of services at random, eight times",
        harm.killed_at_random(8),
        25,
        answers=_NO_GATEWAY,
    ),
    Scenario(
        "gateway-killed",
        "gateway killed three times",
        harm.killed_times("gateway", 3),
        10,
        answers=_NO_GATEWAY,
    ),
    Scenario(
        "upload-killed",
        "gateway killed three times during uploads of 1,500 lines",
        harm.killed_times("gateway", 3),
        10,
        counts=WorkCounts(mails=0, tasks=0, batches=0, uploads=30, items=1500),
        answers=_NO_GATEWAY_FOR_UPLOADS,
    ),
    Scenario(
        "intake-killed",
        "batch-processor killed three times during uploads of 1,500 lines",
        harm.killed_times("batch-processor", 3),
        10,
        counts=WorkCounts(mails=0, tasks=0, batches=0, uploads=30, items=1500),
    ),
    Scenario(
        "rolling-restart",
        "rolling restart of everything, two gateways",
        harm.rolling_restart,
        25,
        answers=_NO_GATEWAY,
    ),
    Scenario(
        "poison",
        f"{_POISON} unreadable messages among good ones",
        harm.poison(_POISON),
        4,
        parks=_POISON,
        is_quick=True,
    ),
    Scenario(
        "full-queue",
        "queue of mails full, its owner away",
        harm.full_queue("email", 4),
        12,
        around=harm.limited("email.send", most=10),
    ),
    Scenario("hanging-consumer", "email service hangs for 8 s", harm.frozen("email", 8), 9),
    Scenario(
        "ladder",
        "every mail fails for 2 s and climbs the ladder",
        harm.climb_the_ladder,
        5,
        around=partial(harm.short_ladder, delay_ms=700),
        counts=WorkCounts(mails=250, tasks=50, batches=5),
    ),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
