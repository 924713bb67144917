"""Guards, the guest that each of them is for, and the complaints that come while the guard is off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults import neighbours
from faults import street as streets
from faults.guests import BY_NAME
from faults.neighbours import GuestRow

# Most of the gateway's container is for thousands of sockets, which none of these guests has.
_SMALLER = {"gateway": 256}
_UNGUARDED = Path(__file__).with_name("unguarded")


@dataclass(frozen=True)
class Mutation:
    """A guard that is off: by `settings`, or by the patch of the same name in `faults.unguarding`.

    `notices` are the kinds of complaints of which at least one must come. Some guards are hidden by the usual
    settings, because another guard is met first: `conditions` are settings under which they are needed, and
    `limits_mib` the memory of smaller containers, by service. With the guard on, nothing is noticed under
    them either.
    """

    guard: str
    guest: str
    notices: Sequence[str]
    settings: Mapping[str, str] = field(default_factory=dict)
    conditions: Mapping[str, str] = field(default_factory=dict)
    limits_mib: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 8.0

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment variables that the processes get in addition."""
        switch = self.settings or {"FAULTS_UNGUARDED": self.guard}
        return {**self.conditions, **switch}


MUTATIONS = (
    Mutation("head bytes", "heads", ["memory"], limits_mib=_SMALLER),
    Mutation("connections per address", "connections", ["refused", "arrival"]),
    # So few places that a flood takes those without a key even where it gets little of a processor.
    Mutation("giving way", "crowd", ["refused", "arrival"], conditions={"GATEWAY_MOST_CONNECTIONS": "800"}),
    Mutation(
        "body limit",
        "bodies",
        ["memory"],
        {"GATEWAY_BODY_LIMIT_BYTES": str(1 << 30)},
        # The gateway has room for one such body of an owner at a time; email gets them all.
        limits_mib={"email": 192},
        seconds=12,
    ),
    Mutation("frame budget", "frames", ["stall"]),
    Mutation("bytes that wait for sockets", "slow-readers", ["memory"], limits_mib=_SMALLER, seconds=30),
    Mutation("room for answers", "slow-downloads", ["memory"], limits_mib=_SMALLER, seconds=50),
    Mutation("flat uploads", "uploads", ["memory", "stall"], limits_mib=_SMALLER, seconds=60),
    Mutation("html scanner", "html", ["mail", "stall"]),
    Mutation(
        "bytes of mails in hand",
        "copies-of-files",
        ["memory"],
        {"EMAIL_WINDOW_BYTES": str(1 << 40)},
        # As many as there may be: the usual number of recipients in hand bounds their bytes, too.
        conditions={"EMAIL_WINDOW": "5000"},
        # So that fewer mails are enough than a slow machine can store meanwhile.
        limits_mib={"email": 256},
        seconds=15,
    ),
    Mutation(
        "turns of writers",
        "copies-of-html",
        ["mail"],
        # The mails that wait for a writer have a connection each, and their bytes in hand.
        conditions={"EMAIL_SMTP_CONNECTIONS": "128", "EMAIL_WINDOW_BYTES": str(1 << 30)},
        seconds=20,
    ),
    Mutation("relay rules", "refusals", ["mail"]),
    Mutation("poison items", "items", ["unready", "batch"]),
    Mutation("outbox rows", "outbox", ["mail", "batch"]),
    Mutation("provider elements", "provider", ["provider's quote"]),
    Mutation("questions of an owner", "heavy-questions", ["p99"]),
    Mutation("mailbox messages", "stored-mails", ["stored mail"]),
)


async def unguarded(folder: Path, mutation: Mutation) -> GuestRow:
    """Run a guest whose guard is switched off, and return the result."""
    return await _visited(folder, mutation, {"PYTHONPATH": str(_UNGUARDED), **mutation.variables})


async def guarded(folder: Path, mutation: Mutation) -> GuestRow:
    """Run the same guest under the same conditions with the guard on, and return the result."""
    return await _visited(folder, mutation, mutation.conditions)


async def _visited(folder: Path, mutation: Mutation, variables: Mapping[str, str]) -> GuestRow:
    limits = streets.memory_limits() | {name: mib << 20 for name, mib in mutation.limits_mib.items()}
    guest = replace(BY_NAME[mutation.guest], seconds=mutation.seconds)
    async with streets.running(folder, variables=variables) as street:
        return await neighbours.visit(street, guest, limits=limits)


def noticed(mutation: Mutation, row: GuestRow) -> list[str]:
    """Return those complaints that the mutation must bring about."""
    return [one.text for one in row.complaints if one.what in mutation.notices]
