"""The frames between the service and item processes: a length, then a JSON list that begins with its kind.

JSON rather than pickle: whatever a process sends, reading it runs no code.
"""

from __future__ import annotations

import base64
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Sequence
from typing import Any

import orjson

from batch_processor.errors import ProcessDied
from batch_processor.execution.running_chunk import ItemFailure, Outcomes
from batch_processor.items.item_values import MOST_RESULT_BYTES
from chassis.broker.envelope import Outgoing
from contracts.topology import COMMANDS

# A chunk in memory has at most 4 MiB, each byte of which may be written as six.
_MOST_FRAME = 32 * 1024 * 1024


def write(*parts: object) -> bytes:
    """Return a frame of `parts`, the first of which is its kind."""
    data = orjson.dumps(parts)
    return len(data).to_bytes(4) + data


async def read(reader: StreamReader) -> list[Any]:
    """Return the parts of the next frame. Raise `ProcessDied` at the end, or for anything but a frame."""
    try:
        size = int.from_bytes(await reader.readexactly(4))
        if size > _MOST_FRAME:
            raise ProcessDied(f"The process sent a frame of {size} bytes; at most {_MOST_FRAME} are allowed.")
        parts: list[Any] = orjson.loads(await reader.readexactly(size))
    except (IncompleteReadError, OSError) as error:
        raise ProcessDied("The process ended.") from error
    except ValueError as error:
        raise ProcessDied("The process sent data that is not a frame.") from error
    if not isinstance(parts, list) or not parts:
        raise ProcessDied("The process sent an empty frame.")
    return parts


def write_binary(data: bytes) -> str:
    """Return `data` as text that a frame can hold."""
    return base64.b64encode(data).decode()


def read_binary(text: str) -> bytes:
    """Return the data that `write_binary` was called with."""
    return base64.b64decode(text)


def write_outcomes(outcomes: Outcomes) -> bytes:
    """Return `outcomes` in a single frame, so that no item is done without its commands."""
    failures, setbacks = (
        [(failure.position, failure.code, failure.detail) for failure in troubles]
        for troubles in (outcomes.failures, outcomes.setbacks)
    )
    commands = [
        (
            command.exchange,
            command.routing_key,
            command.body.decode(),
            command.message_type,
            command.message_id,
            dict(command.headers),
        )
        for command in outcomes.commands
    ]
    return write("outcomes", outcomes.positions, outcomes.results, failures, commands, setbacks)


def read_outcomes(parts: Sequence[Any], allowed: set[int]) -> Outcomes:
    """Return the reported outcomes, which must be of items at `allowed` positions.

    Raise `ProcessDied` for anything that cannot be stored.
    """
    try:
        _, positions, results, failures, commands, setbacks = parts
        outcomes = Outcomes(
            positions,
            results,
            [ItemFailure(*failure) for failure in failures],
            [
                Outgoing(exchange, routing_key, body.encode(), message_type, message_id, headers)
                for exchange, routing_key, body, message_type, message_id, headers in commands
            ],
            [ItemFailure(*setback) for setback in setbacks],
        )
        troubles = [*outcomes.failures, *outcomes.setbacks]
        named = [*positions, *(trouble.position for trouble in troubles)]
        is_sound = (
            len(positions) == len(results)
            and all(isinstance(result, str) and len(result) <= MOST_RESULT_BYTES for result in results)
            and all(isinstance(t.code, str) and isinstance(t.detail, str) for t in troubles)
            # The broker lets this service publish more.
            and all(one.exchange == COMMANDS for one in outcomes.commands)
            and len(set(named)) == len(named)
            and allowed.issuperset(named)
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ProcessDied("The process reported outcomes that cannot be read.") from error
    if not is_sound:
        raise ProcessDied("The process reported invalid outcomes, or outcomes of items that it did not run.")
    return outcomes
