"""The command line for parked messages, for when the gateway is down."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import get_args

from pydantic import ValidationError

from chassis import logging, queries, settings, validation
from chassis.deadlines import Deadline
from chassis.errors import ServiceError
from chassis.parked.messages import Parked
from chassis.postgres import Postgres
from contracts.parked import (
    DiscardParked,
    InspectParked,
    ListParked,
    ParkedFilter,
    ParkedState,
    ReplayParked,
)

_EPILOG = "POSTGRES_DSN (or POSTGRES_DSN_FILE) is the database of the service that parked the messages."
_TIMEOUT_S = 30
# One attempt that gets no answer, and a few that are refused: somebody waits at a terminal.
_CONNECT_S = 6
_AWAY = "The database does not answer; check POSTGRES_DSN, and that PostgreSQL is running."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 when it was done, 1 when it was refused, 2 for wrong arguments."""
    options = _parser().parse_args(arguments)
    dsn = settings.read(os.environ, "POSTGRES_DSN")
    if dsn is None:
        sys.stderr.write(f"POSTGRES_DSN is not set. {_EPILOG}\n")
        raise SystemExit(2)
    queries.load("chassis")
    # To standard error: the result goes to standard output, which a program may read.
    logging.configure(service="parked", level="WARNING", style="auto")
    try:
        sys.stdout.write(asyncio.run(_run(options, dsn)) + "\n")
    except (ServiceError, TimeoutError) as error:
        sys.stderr.write(f"{str(error) or _AWAY}\n")
        raise SystemExit(1) from None
    except ValidationError as error:
        sys.stderr.write(f"{validation.first(error)}\n")
        raise SystemExit(2) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m chassis.parked", description="Parked messages of a service.", epilog=_EPILOG
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (
        ("list", "list messages, oldest first"),
        ("replay", "send messages to their queues again"),
        ("discard", "discard messages"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument(
            "--id", type=int, action="append", default=[], help="only this message; repeatable"
        )
        command.add_argument("--queue", help="only messages of this queue")
        command.add_argument("--type", dest="message_type", help="only messages of this type")
        command.add_argument("--reason", help="only messages parked for this reason")
    commands.choices["list"].add_argument("--limit", type=int, default=50, help="at most this many (50)")
    commands.choices["list"].add_argument("--state", default="parked", choices=get_args(ParkedState))
    commands.choices["replay"].add_argument("--rate", type=float, default=50, help="messages a second (50)")
    inspect = commands.add_parser("inspect", help="show one message with its headers and body")
    inspect.add_argument("id", type=int)
    return parser


async def _run(options: argparse.Namespace, dsn: str) -> str:
    postgres = Postgres(dsn, size=2)
    async with asyncio.timeout(_TIMEOUT_S), AsyncExitStack() as stack:
        async with asyncio.timeout(_CONNECT_S):
            await postgres.open()
        stack.push_async_callback(postgres.close)
        parked, deadline = Parked(postgres), Deadline.after(20)
        if options.command == "inspect":
            return (await parked.inspect(InspectParked(id=options.id), deadline)).model_dump_json(indent=2)
        wanted = ParkedFilter(
            ids=options.id, queue=options.queue, message_type=options.message_type, reason=options.reason
        )
        if options.command == "list":
            request = ListParked(wanted=wanted, limit=options.limit, state=options.state)
            return (await parked.page(request, deadline)).model_dump_json(indent=2)
        try:
            person = getpass.getuser()
        except (KeyError, OSError):
            # In a container the user has a number only.
            person = f"user {os.getuid()}"
        actor = f"{person} (command line)"
        if options.command == "replay":
            replay = ReplayParked(wanted=wanted, rate_per_s=options.rate, actor=actor)
            return (await parked.replay(replay, deadline)).model_dump_json()
        return (await parked.discard(DiscardParked(wanted=wanted, actor=actor), deadline)).model_dump_json()


if __name__ == "__main__":
    main()
