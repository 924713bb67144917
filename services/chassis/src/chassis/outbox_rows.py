"""The rows of the outbox: a message each, or several to one destination that were written together.

A row costs the database more than its content: its place in two indexes, a lock, and its removal. So messages
of one transaction that could travel in a bundle share a row. Each of them is published, logged and traced by
itself; when only a part of them was sent, each of the others gets a row of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from chassis.broker import bundles
from chassis.broker.bundles import BrokenBundle
from chassis.broker.envelope import Outgoing, stamp
from chassis.postgres import Row
from contracts import headers as names


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A row of the outbox with its messages; all go to one destination."""

    id: int
    attempts: int
    messages: Sequence[Outgoing]


def pack(messages: Sequence[Outgoing]) -> list[tuple[Outgoing, int]]:
    """Return the rows to write for `messages`, each with the number of messages in it."""
    packed = []
    for group in bundles.group(messages):
        row = bundles.wrap([messages[index] for index in group])
        packed.append((replace(row, headers=bundle_headers()) if len(group) > 1 else row, len(group)))
    return packed


def numbers(messages: Sequence[Outgoing]) -> list[int | None]:
    """Return for each message the number of the bundle that it can wait in, None where it waits alone."""
    found: list[int | None] = [None] * len(messages)
    for number, group in enumerate(bundles.group(messages)):
        for index in group if len(group) > 1 else ():
            found[index] = number
    return found


def bundle_headers() -> Mapping[str, Any]:
    """Return the headers of a bundle that waits.

    Their flag makes a relay of the previous release, which does not open bundles, publish it alone.
    """
    return {**stamp(), names.BUNDLE: True}


def read(record: Row, *, opened: bool) -> WaitingRow:
    """Return a row with its message, or with those of its bundle where it is to be `opened`."""
    message = Outgoing(
        exchange=record["exchange"],
        routing_key=record["routing_key"],
        message_type=record["message_type"],
        message_id=str(record["message_id"]),
        headers=orjson.loads(record["headers"]),
        body=record["body"],
    )
    messages = [message]
    if opened and message.message_type == bundles.MESSAGE_TYPE:
        try:
            parts = bundles.unwrap(message.body)
        except BrokenBundle:
            # Its consumer parks it.
            parts = []
        messages = [
            Outgoing(message.exchange, message.routing_key, p.body, p.message_type, p.message_id, p.headers)
            for p in parts
        ] or messages
    return WaitingRow(record["id"], record["attempts"], messages)
