"""The commands that only read: presence, history, and operations of the HTTP API."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.publishing.positions import ChannelPosition
from gateway.realtime import commands
from gateway.realtime.channels import channel_of
from gateway.realtime.codes import CommandError, ErrorCode
from gateway.realtime.presence import Present
from gateway.realtime.session import ClientSession, CommandOutcome


async def presence(session: ClientSession, arguments: commands.ChannelArguments) -> CommandOutcome:
    """List the subscribers of a channel."""
    present = await _present(session, arguments.channel)
    listed = {client: {"user": user, "client": client} for client, user in present.users.items()}
    return CommandOutcome({"presence": listed, **_partial(present)})


async def presence_stats(session: ClientSession, arguments: commands.ChannelArguments) -> CommandOutcome:
    """Count the subscribers of a channel."""
    present = await _present(session, arguments.channel)
    counts = {"num_clients": present.num_clients, "num_users": present.num_users}
    return CommandOutcome({**counts, **_partial(present)})


async def history(session: ClientSession, arguments: commands.HistoryArguments) -> CommandOutcome:
    """Return earlier publications of a channel."""
    since = arguments.since
    found = await session.realtime.channels.history(
        session.caller,
        channel_of(arguments.channel),
        limit=arguments.limit,
        since=None if since is None else ChannelPosition(since.epoch, since.offset),
        reverse=arguments.reverse,
    )
    documents_found = [one.document() for one in found.publications]
    answer = {
        # Long publications may be fewer than requested: `since` requests the rest.
        "publications": _fitting(documents_found, session.realtime.buffer_bytes // 2),
        "epoch": found.position.epoch,
        "offset": found.position.offset,
    }
    return CommandOutcome(answer)


async def rpc(session: ClientSession, arguments: commands.RpcArguments) -> CommandOutcome:
    """Call a read-only operation of the HTTP API."""
    if session.caller.scopes is not None or session.caller.channels is not None:
        raise CommandError(
            ErrorCode.PERMISSION_DENIED,
            "A token that is limited to scopes or channels cannot call operations.",
        )
    call = session.realtime.call_operation
    return CommandOutcome({"data": await call(session.caller.principal, arguments.method, arguments.data)})


async def _present(session: ClientSession, name: str) -> Present:
    channel = channel_of(name)
    # Presence needs the right to the channel, so it is not shown for another owner's work.
    await session.realtime.channels.join(session.caller, channel, None)
    return await session.realtime.presence.of(channel.topic(session.caller.principal.owner_id))


def _partial(present: Present) -> dict[str, bool]:
    return {"partial": True} if present.is_partial else {}


def _fitting(found: list[dict[str, Any]], most_bytes: int) -> list[dict[str, Any]]:
    """Return the first elements of `found`, as many as fit into one reply."""
    size = 0
    for count, document in enumerate(found):
        size += len(orjson.dumps(document, option=orjson.OPT_UTC_Z)) + 1
        if size > most_bytes:
            return found[:count]
    return found
