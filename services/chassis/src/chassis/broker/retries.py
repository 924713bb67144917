"""The retry ladder: the rung on which a failed message waits, and the copy that is put there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chassis.broker.envelope import Outgoing
from chassis.broker.incoming import Incoming
from contracts import headers as names
from contracts.topology import Rung

# The second wait is longer than a roll-out takes.
ON_UNKNOWN = (1, 3)


def rung_of_unknown(waits: int, rungs: Sequence[Rung]) -> Rung | None:
    """Return the next rung of a message of an unknown type after `waits` waits; None after the last.

    During a rolling upgrade, a replica of the newer release may receive it the next time.
    """
    return rungs[ON_UNKNOWN[waits]] if waits < len(ON_UNKNOWN) else None


def rung_after(attempt: int, rungs: Sequence[Rung]) -> Rung | None:
    """Return the rung for a message whose attempt number `attempt` failed; None after the last rung."""
    return rungs[attempt - 1] if attempt <= len(rungs) else None


def copy_for(incoming: Incoming, rung: Rung, *, queue: str, error: str, is_unknown: bool) -> Outgoing:
    """Return the message as it is put on `rung`.

    An attempt of a replica that does not know its type does not count: the ladder is for those that do.

    The CC header carries the name of `queue`: when the rung's time is over, the broker dead-letters with
    the original routing keys through the service's own exchange, where only that name leads to a queue.
    """
    waits = {names.UNKNOWN_WAITS: incoming.unknown_waits + 1}
    return Outgoing(
        exchange=rung.exchange,
        routing_key=rung.key,
        body=incoming.body,
        message_type=incoming.message_type,
        message_id=incoming.message_id,
        headers={
            **without_broker_headers(incoming.headers),
            **(waits if is_unknown else {}),
            "CC": [queue],
            names.ATTEMPT: incoming.attempt if is_unknown else incoming.attempt + 1,
            names.FIRST_ERROR: incoming.headers.get(names.FIRST_ERROR, error),
            names.ERROR: error,
        },
    )


def without_broker_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return `headers` without those of the broker, which adds its history again on each hop."""
    theirs = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "CC")
    return {name: value for name, value in headers.items() if not name.startswith(theirs)}
