"""The retry ladder: the rung on which a failed message waits, and the copy that is put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from chassis.broker.envelope import Outgoing
from contracts import headers as names
from contracts.topology import Rung

# The second wait is longer than a roll-out takes.
_ON_UNKNOWN = (1, 3)


def rung_of_unknown(waits: int, rungs: Sequence[Rung]) -> Rung | None:
    """Return the next rung of a message of an unknown type after `waits` waits; None after the last.

    While releases run side by side, a replica of the newer one may take it the next time.
    """
    return rungs[_ON_UNKNOWN[waits]] if waits < len(_ON_UNKNOWN) else None


def rung_after(attempt: int, rungs: Sequence[Rung]) -> Rung | None:
    """Return the rung for a message whose `attempt`-th try failed; None when it has used all rungs."""
    return rungs[attempt - 1] if attempt <= len(rungs) else None


def copy_for(
    rung: Rung,
    *,
    queue: str,
    body: bytes,
    message_type: str,
    message_id: UUID | str,
    headers: Mapping[str, Any],
    attempt: int,
    error: str,
) -> Outgoing:
    """Return the message as it is put on `rung`.

    The CC header carries the name of `queue`: when the rung's time is over, the broker dead-letters with
    the original routing keys through the service's own exchange, where only that name leads to a queue.
    """
    return Outgoing(
        exchange=rung.exchange,
        routing_key=rung.key,
        body=body,
        message_type=message_type,
        message_id=str(message_id),
        headers={
            **without_broker_headers(headers),
            "CC": [queue],
            names.ATTEMPT: attempt + 1,
            names.FIRST_ERROR: headers.get(names.FIRST_ERROR, error),
            names.ERROR: error,
        },
    )


def without_broker_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the service's own headers: the broker adds its history again on each hop."""
    theirs = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "CC")
    return {name: value for name, value in headers.items() if not name.startswith(theirs)}
