"""The frames between the service and the processes of items: a length, then a JSON list whose head is a word.

JSON, and not pickle: whatever a process sends, reading it runs nothing.
"""

from __future__ import annotations

import base64
from asyncio import IncompleteReadError, StreamReader
from collections.abc import Sequence
from typing import Any

import orjson

from batch_processor.errors import ProcessDied
from batch_processor.execution.running_chunk import Failure, Outcomes
from batch_processor.item_values import MOST_RESULT_BYTES
from chassis.broker.envelope import Outgoing

# A chunk in memory is at most 4 MiB, each byte of which may be written as six.
_MOST_FRAME = 32 * 1024 * 1024


def write(*parts: object) -> bytes:
    """Return a frame of `parts`, the first of which is its word."""
    data = orjson.dumps(parts)
    return len(data).to_bytes(4) + data


async def read(reader: StreamReader) -> list[Any]:
    """Return the parts of the next frame. Raise `ProcessDied` when none comes any more, or something else."""
    try:
        size = int.from_bytes(await reader.readexactly(4))
        if size > _MOST_FRAME:
            raise ProcessDied(f"The process sent {size} bytes at a time.")
        parts: list[Any] = orjson.loads(await reader.readexactly(size))
    except (IncompleteReadError, OSError) as error:
        raise ProcessDied("The process ended.") from error
    except ValueError as error:
        raise ProcessDied("The process sent what is no frame.") from error
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
    """Return one frame of `outcomes`: no item is done whose commands were lost with their process."""
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
    """Return outcomes as they were reported, of items at `allowed` positions alone.

    Raise `ProcessDied` for anything that cannot be stored.
    """
    try:
        _, positions, results, failures, commands, setbacks = parts
        outcomes = Outcomes(
            positions,
            results,
            [Failure(*failure) for failure in failures],
            [
                Outgoing(exchange, routing_key, body.encode(), message_type, message_id, headers)
                for exchange, routing_key, body, message_type, message_id, headers in commands
            ],
            [Failure(*setback) for setback in setbacks],
        )
        troubles = [*outcomes.failures, *outcomes.setbacks]
        named = [*positions, *(trouble.position for trouble in troubles)]
        is_sound = (
            len(positions) == len(results)
            and all(isinstance(result, str) and len(result) <= MOST_RESULT_BYTES for result in results)
            and all(isinstance(t.code, str) and isinstance(t.detail, str) for t in troubles)
            and len(set(named)) == len(named)
            and allowed.issuperset(named)
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise ProcessDied("The process reported outcomes that cannot be read.") from error
    if not is_sound:
        raise ProcessDied("The process reported outcomes that cannot be its own.")
    return outcomes
