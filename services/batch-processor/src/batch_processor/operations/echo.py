"""`echo`: gives its payload back. For tests, demonstrations and measurements."""

from __future__ import annotations

from collections.abc import Sequence

from batch_processor.operation import Context, Operation
from contracts.message import Json


async def _echo(payload: Json, _: Context) -> Json:
    return payload


def _echo_texts(payloads: Sequence[str]) -> Sequence[str]:
    return payloads


OPERATION = Operation(
    name="echo",
    description="Returns the payload as the result.",
    payload=None,
    run=_echo,
    run_texts=_echo_texts,
    chunk_size=500,
)
