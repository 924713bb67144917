"""The commands of `/v1/realtime`: one declaration each, for the gateway and for its documents."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.realtime import commands, reading_commands
from gateway.realtime.session import ClientSession, Right, SocketCommand

COMMANDS: Mapping[str, SocketCommand] = {
    command.name: command
    for command in (
        SocketCommand(
            "connect",
            "Authenticate with a key or a token; the first command, and only once.",
            commands.ConnectArguments,
            commands.ConnectAnswer,
            Right.NONE,
            ClientSession.connect,
        ),
        SocketCommand(
            "subscribe",
            "Subscribe to a channel, from a known position or from now on.",
            commands.SubscribeArguments,
            commands.SubscribeAnswer,
            Right.READ,
            ClientSession.subscribe,
        ),
        SocketCommand(
            "unsubscribe",
            "Unsubscribe from a channel.",
            commands.ChannelArguments,
            commands.EmptyAnswer,
            Right.NONE,
            ClientSession.unsubscribe,
        ),
        SocketCommand(
            "publish",
            "Post a message to a chat room.",
            commands.PublishArguments,
            commands.EmptyAnswer,
            Right.WRITE,
            ClientSession.publish,
        ),
        SocketCommand(
            "presence",
            "List the subscribed connections of a channel, on all gateways.",
            commands.ChannelArguments,
            commands.PresenceAnswer,
            Right.READ,
            reading_commands.presence,
        ),
        SocketCommand(
            "presence_stats",
            "Count the subscribed connections and users of a channel, on all gateways.",
            commands.ChannelArguments,
            commands.PresenceStatsAnswer,
            Right.READ,
            reading_commands.presence_stats,
        ),
        SocketCommand(
            "history",
            "Read the messages of a chat room, forwards or backwards from a position.",
            commands.HistoryArguments,
            commands.HistoryAnswer,
            Right.READ,
            reading_commands.history,
        ),
        SocketCommand(
            "refresh",
            "Present a new token before the old one expires.",
            commands.RefreshArguments,
            commands.RefreshAnswer,
            Right.NONE,
            ClientSession.refresh,
        ),
        SocketCommand(
            "rpc",
            "Call a read-only operation of the HTTP API.",
            commands.RpcArguments,
            commands.RpcAnswer,
            Right.OPERATION,
            reading_commands.rpc,
        ),
    )
}
