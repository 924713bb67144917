"""The guests: one of each kind, the limit on it, and how it tries to get ten times as much."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import asyncpg
import orjson

from faults.street import SYMBOLS, Street
from support.doubles import alpaca
from support.doubles.smtp import SAY_NOTHING, Step
from support.doubles.upstream import UpstreamAnswer, answer_json

# How the relay answers to these recipients, however often they are tried.
REFUSED, ENDLESS = "refused@guest.example", "endless@guest.example"
SILENT, DEFERRED = "silent@guest.example", "deferred@guest.example"
# Of as many domains, so that no bound of a single one is met before those of all.
SILENT_EACH = tuple(f"silent@guest{number}.example" for number in range(4))
_TRIES = 20_000
_ROWS = 1000
_MIB = 1 << 20


async def _nothing(_: Street) -> None:
    """Prepare nothing: the flood alone is enough."""


@dataclass(frozen=True)
class Guest:
    """A kind of guest. `flood` is sent by another process, after `prepare` was done here.

    A guest without a flood has done everything then. `is_quick` guests come with the tests; `seconds` is how
    long each of them stays at least.
    """

    name: str
    kind: str
    flood: str | None
    sends: str
    prepare: Callable[[Street], Awaitable[None]] = _nothing
    is_quick: bool = False
    seconds: float = 8.0


async def _script_relay(street: Street) -> None:
    scripts = street.relay.scripts
    scripts[REFUSED] = [Step("rcpt", "530 5.7.0 Authentication required")] * _TRIES
    # Ten times the longest reply that is read.
    scripts[ENDLESS] = [Step("rcpt", "550-" + "x" * (640 * 1024))] * _TRIES
    for silent in (SILENT, *SILENT_EACH):
        scripts[silent] = [Step("rcpt", SAY_NOTHING)] * _TRIES
    scripts[DEFERRED] = [Step("rcpt", "451 4.2.0 Not now")] * _TRIES


async def _break_provider(street: Street) -> None:
    street.provider.snapshots[SYMBOLS[-1]] = {"latestTrade": {"t": "yesterday", "p": -1}}
    # Ten times what is read of an answer.
    huge = b'{"bars":[' + b" " * (80 * _MIB) + b"]}"
    street.provider.answers["/v2/stocks/HUGE/bars"] = UpstreamAnswer(
        huge, headers={"content-type": "application/json"}
    )
    street.provider.answers["/v1/corporate-actions"] = answer_json(
        {"corporate_actions": {"forward_splits": [{"symbol": 1}, alpaca.split("GOOD", "2024-01-03", "x")]}}
    )


async def _poison_outbox(street: Street) -> None:
    """Put two steps of rows into the gateway's outbox that AMQP cannot carry."""
    connection = await asyncpg.connect(street.stack.postgres.dsn("gateway"))
    try:
        await connection.execute(
            "INSERT INTO outbox (message_id, exchange, routing_key, message_type, headers, body, due_at)"
            " SELECT gen_random_uuid(), 'commands', 'email.send', 'email.send.v1', $1, 'x',"
            " now() - interval '1 s' FROM generate_series(1, $2)",
            orjson.dumps({"x-huge": 2**64 - 1}).decode(),
            _ROWS,
        )
    finally:
        await connection.close()


GUESTS = (
    Guest("nobody", "nobody", None, "nothing: what the machine itself costs"),
    Guest("heads", "anonymous connection", "heads", "heads of 16 MiB and of 1,000 fields", is_quick=True),
    Guest(
        "connections",
        "anonymous connection",
        "connections",
        "10,000 connections of one address",
        seconds=16,
    ),
    Guest("crowd", "anonymous connection", "crowd", "15,000 connections of 200 addresses", seconds=25),
    Guest("keys", "anonymous connection", "keys", "keys that do not exist"),
    Guest(
        "documents",
        "anonymous connection",
        "documents",
        "20 requests at once for public documents over each of 300 connections, of which half read nothing",
    ),
    Guest("bodies", "key holder", "bodies", "JSON of 10 MiB, and nested 100,000 deep"),
    Guest(
        "heavy-questions",
        "key holder",
        "heavy_questions",
        "150 questions at a time: long pages, all bars of a symbol, lists with filters",
    ),
    Guest(
        "slow-downloads",
        "key holder",
        "slow_downloads",
        "80 streamed results, 600 long pages and 300 event streams, read at a byte a second or not at all",
    ),
    Guest(
        "event-streams",
        "key holder",
        "event_streams",
        "25,000 event streams of quotes, of which nothing is read",
        seconds=24,
    ),
    Guest("frames", "socket", "frames", "empty fragments and pings", is_quick=True),
    Guest("commands", "socket", "commands", "4,000 subscriptions at once"),
    Guest("chatter", "socket", "chatter", "40 sockets that post to two rooms and hear each other"),
    Guest(
        "crowded-room",
        "socket",
        "crowded_room",
        "lines without a pause to the neighbour's room, in which 300 sockets listen",
        seconds=12,
    ),
    Guest("slow-readers", "socket", "slow_readers", "350 sockets that read nothing of histories and pushes"),
    Guest(
        "uploads",
        "uploader",
        "uploads",
        "100 uploads at a time, an id in every line, lines of 2.5 MiB",
        is_quick=True,
    ),
    Guest("html", "mail sender", "html", "HTML that parsers take quadratic time for"),
    Guest(
        "attachments",
        "mail sender",
        "attachments",
        "mails with 500 kB of attachments, 30 at a time",
        _script_relay,
    ),
    Guest(
        "copies-of-files",
        "mail sender",
        "copies_of_files",
        "mails with 700 kB of attachments, sent again 400 times to relays that are silent",
        _script_relay,
    ),
    Guest(
        "copies-of-html",
        "mail sender",
        "copies_of_html",
        "a mail with 480 kB of HTML, sent again 400 times",
    ),
    Guest("refusals", "relay", "refusals", "530, and replies of 640 KiB", _script_relay, is_quick=True),
    Guest("silence", "relay", "silence", "silence, for 5 s a mail", _script_relay),
    Guest(
        "receivers",
        "receiver of webhooks",
        "receivers",
        "10,000 deliveries to 20 webhooks that hang, trickle, redirect, and answer without end",
        is_quick=True,
    ),
    Guest(
        "items",
        "item of a batch",
        "items",
        "items that cancel, exit, hang and cannot be printed",
        is_quick=True,
    ),
    Guest("outbox", "item of the outbox", None, f"{_ROWS} rows that AMQP cannot carry", _poison_outbox),
    Guest(
        "provider",
        "data provider",
        "provider",
        "broken elements, and bodies of 80 MiB",
        _break_provider,
        is_quick=True,
    ),
    Guest("stored-mails", "stored mail", "mails", "every broken mail, and one of 350 MiB", is_quick=True),
)
BY_NAME = {guest.name: guest for guest in GUESTS}
