"""`echo`: returns its payload. For tests, demonstrations and measurements."""

from __future__ import annotations

from collections.abc import Sequence

from batch_processor.operation import Context, Operation
from contracts.message import Json


async def run(payload: Json, _: Context) -> Json:
    """Return the payload."""
    return payload


def run_texts(payloads: Sequence[str]) -> Sequence[str]:
    """Return the payloads of a chunk."""
    return payloads


OPERATION = Operation(
    name="echo",
    description="Returns the payload as the result.",
    payload=None,
    run=run,
    run_texts=run_texts,
    chunk_size=500,
)
