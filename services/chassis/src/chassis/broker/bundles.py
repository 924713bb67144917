"""Bundles: messages to one destination that wait together travel as one message of the broker.

A message costs the broker, and both sides that frame it, more than most handlers cost. Under load, the
messages in the outbox go to few destinations: the publisher puts them together and the consumer takes them
apart. Each part keeps its id, headers and body, and is handled, retried and parked by itself; the broker
confirms and forgets the bundle as a whole.

The body of a bundle is a line of JSON with type, id, headers and length of each part, and then the bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson
from uuid_utils.compat import uuid7

from chassis.broker.envelope import Outgoing, stamp
from chassis.errors import ServiceError

MESSAGE_TYPE = "bundle.v1"

# Fewer messages cost little, and are easier to inspect one by one.
_FEWEST = 4
_MOST = 64
# A later release may make larger bundles; bounded, because each malformed part is parked by itself.
_MOST_READ = 256
# So a consumer that prefetches bundles holds no more bytes than with as many large messages.
_MOST_BYTES = 64 * 1024
_LARGE_BYTES = 16 * 1024
_MOST_HEADERS = 20
_LONGEST_NAME = 200
_LARGEST_NUMBER = 1 << 53


class BrokenBundle(ServiceError):
    """The body of the bundle is malformed."""

    code = "undecodable"


@dataclass(frozen=True, slots=True)
class Part:
    """A message out of a bundle."""

    message_type: str
    message_id: str
    headers: Mapping[str, Any]
    body: bytes


class PartDescription(NamedTuple):
    """What a bundle says of one of its parts; a tuple, because many bundles are looked at only."""

    message_type: str
    message_id: str
    headers: Mapping[str, Any]
    size: int


class Travel:
    """The way in which the messages of this process travel: bundled, or each alone."""

    # False while replicas of a release run that cannot read bundles.
    together = True


def group(messages: Sequence[Outgoing]) -> list[list[int]]:
    """Return the indexes of the messages that may travel together; most groups have one.

    The messages of a destination keep their order.
    """
    if not Travel.together:
        return [[index] for index in range(len(messages))]
    groups: list[list[int]] = []
    # The group of each destination that still has room, and its bytes.
    rooms: dict[tuple[str, str, bool], tuple[list[int], int]] = {}
    for index, message in enumerate(messages):
        destination = (message.exchange, message.routing_key, message.persistent)
        room, size = rooms.get(destination, (None, 0))
        size += len(message.body)
        if not _is_plain(message):
            groups.append([index])
            rooms.pop(destination, None)
        elif room is None or len(room) == _MOST or size > _MOST_BYTES:
            rooms[destination] = [index], len(message.body)
            groups.append(rooms[destination][0])
        else:
            room.append(index)
            rooms[destination] = room, size
    return [one for found in groups for one in ([found] if len(found) >= _FEWEST else [[i] for i in found])]


def wrap(messages: Sequence[Outgoing], *, routing_key: str | None = None) -> Outgoing:
    """Return the bundle of messages to one destination, or the message itself when it is the only one."""
    first = messages[0]
    if len(messages) == 1:
        return first
    described = [[m.message_type, m.message_id, dict(m.headers), len(m.body)] for m in messages]
    return Outgoing(
        exchange=first.exchange,
        routing_key=routing_key or first.routing_key,
        body=b"\n".join((orjson.dumps(described), b"".join(m.body for m in messages))),
        message_type=MESSAGE_TYPE,
        message_id=str(uuid7()),
        headers=stamp(),
        persistent=first.persistent,
    )


def contents(body: bytes) -> list[PartDescription]:
    """Return the descriptions of a bundle's parts. Raise `BrokenBundle`, without quoting a malformed body."""
    line, _, bodies = body.partition(b"\n")
    found: list[PartDescription] = []
    for entry in _entries(line):
        match entry:
            case [str() as message_type, str() as message_id, dict() as headers, int() as size] if size >= 0:
                found.append(PartDescription(message_type, message_id, headers, size))
            case _:
                raise BrokenBundle("A part of the bundle is not described as type, id, headers and length.")
    taken = sum(one.size for one in found)
    if not found or taken != len(bodies):
        raise BrokenBundle(f"The bundle has {len(bodies)} bytes of bodies; its parts take {taken}.")
    return found


def unwrap(body: bytes) -> list[Part]:
    """Return the parts of a bundle. Raise `BrokenBundle`, without quoting a malformed body."""
    found = contents(body)
    parts: list[Part] = []
    start = len(body) - sum(one.size for one in found)
    for message_type, message_id, headers, size in found:
        parts.append(Part(message_type, message_id, headers, body[start : start + size]))
        start += size
    return parts


def parts_of_parked(message: Part) -> list[Part]:
    """Return the parts of a bundle that was parked, with its headers as well; else the message."""
    if message.message_type != MESSAGE_TYPE:
        return [message]
    try:
        parts = unwrap(message.body)
    except BrokenBundle:
        return [message]
    return [replace(part, headers={**message.headers, **part.headers}) for part in parts]


def _is_plain(message: Outgoing) -> bool:
    """Return whether the message cannot harm the others in a bundle: unusual messages travel alone."""
    return (
        (message.correlation_id, message.reply_to, message.expiration_ms) == (None, None, None)
        and len(message.body) <= _LARGE_BYTES
        and len(message.message_type) <= _LONGEST_NAME
        and len(message.message_id) <= _LONGEST_NAME
        and len(message.headers) <= _MOST_HEADERS
        and all(
            (type(value) is str and len(value) <= _LONGEST_NAME and value.isascii())
            or (type(value) is int and abs(value) < _LARGEST_NUMBER)
            for value in message.headers.values()
        )
    )


def _entries(line: bytes) -> Iterable[Any]:
    try:
        entries = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BrokenBundle("The first line of the bundle is not JSON.") from error
    if not isinstance(entries, list):
        raise BrokenBundle("The first line of the bundle is not a list.")
    if len(entries) > _MOST_READ:
        raise BrokenBundle(f"The bundle has {len(entries)} messages; it may have at most {_MOST_READ}.")
    return entries
