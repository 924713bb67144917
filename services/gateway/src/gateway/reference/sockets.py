"""The WebSockets and event streams of the gateway, from the declared commands and endpoints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from pydantic import BaseModel

from contracts.alerts import Firing
from gateway.batches.inputs import BatchView
from gateway.http.endpoints import Endpoint
from gateway.http.replies import EVENT_STREAM
from gateway.realtime.channels import KINDS, ChannelKind
from gateway.realtime.codes import (
    CLOSE_REASONS,
    ERROR_MESSAGES,
    UNSUBSCRIBE_REASONS,
    ErrorCode,
    UnsubscribeCode,
)
from gateway.realtime.news import BarNews, EmailNews, MessageNews, QuoteNews
from gateway.reference.channels import DocumentedChannel, DocumentedMessage, DocumentedOperation
from gateway.reference.schemas import Json, Mode

SERVER = "gateway"

# The models of the `data` of publications, by kind of channel.
_PUBLISHED: Mapping[str, Any] = {
    "quotes": QuoteNews,
    "bars": BarNews,
    "chat": MessageNews,
    "batch": BatchView,
    "task": BatchView,
    "email": EmailNews,
    "alerts": Firing,
}

_REALTIME = """\
Centrifugo's client protocol, version 2, in JSON, so that its client libraries work. A frame has one or \
more commands, one per line. An empty object is a ping, and so is its answer. A browser, which cannot set \
headers, sends its key or token with `connect`.

{channels}

The gateway closes a connection with one of these codes; a client reconnects after 3000 to 3499:

{codes}
"""
_LOBBY = (
    "One line of chat per frame. Everybody in the lobby gets `Message received: <line>`. Needs `{read}`, and "
    "`{write}` to post: a line without it is answered with `Error: <reason>`."
)


class DocumentedCommand(Protocol):
    """A declared command of the socket protocol."""

    @property
    def name(self) -> str:
        """The name of the command in a frame."""

    @property
    def summary(self) -> str:
        """A sentence about the command."""

    @property
    def arguments(self) -> type[BaseModel]:
        """The model of its arguments."""

    @property
    def answer(self) -> type[BaseModel]:
        """The model of its answer."""

    @property
    def scope(self) -> str:
        """The right that the caller needs, in words; empty if none."""


def operations(commands: Iterable[DocumentedCommand]) -> Iterator[DocumentedOperation]:
    """Yield the operations of the gateway's WebSockets."""
    declared = list(commands)
    asked = {
        command.name: _numbered(command, "command", command.summary, command.arguments, "validation")
        for command in declared
    }
    answered = {
        command.name: _numbered(command, "reply", f"The answer to {command.name}.", command.answer)
        for command in declared
    }
    pushed = (*(_push(kind) for kind in KINDS.values()), *_SIGNALS)
    channel = DocumentedChannel(
        name="realtime",
        address="/v1/realtime",
        server=SERVER,
        description=_REALTIME.format(
            channels="\n".join(
                f"- `{kind.form}`: {kind.summary} Needs `{kind.read}`"
                + (f", and `{kind.write}` to publish." if kind.write else ".")
                for kind in KINDS.values()
            ),
            codes="\n".join(f"- {int(code)}: {reason}" for code, reason in CLOSE_REASONS.items()),
        ),
        messages=(*asked.values(), *answered.values(), _ERROR, *pushed),
        bindings={"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
    )
    for command in declared:
        needs = f" Needs {command.scope}." if command.scope else ""
        yield DocumentedOperation(
            name=f"realtime.{command.name}",
            action="receive",
            channel=channel,
            summary=command.summary + needs,
            messages=(asked[command.name],),
            reply=(channel, (answered[command.name], _ERROR)),
        )
    yield DocumentedOperation(
        name="realtime.push",
        action="send",
        channel=channel,
        summary="Publications and other events of the channels that the client has subscribed to.",
        messages=pushed,
    )


def event_streams(endpoints: Iterable[Endpoint]) -> Iterator[DocumentedOperation]:
    """Yield the streams of server-sent events among `endpoints`."""
    for endpoint in endpoints:
        answer = endpoint.answers[endpoint.status]
        if EVENT_STREAM not in answer.media_types:
            continue
        message = DocumentedMessage(
            name=f"{endpoint.name}.event",
            summary="The data of one event.",
            kind=answer.item,
            content_type="application/json",
        )
        channel = DocumentedChannel(
            name=endpoint.name,
            address=endpoint.template,
            server=SERVER,
            description=f"{endpoint.summary} (server-sent events).",
            messages=(message,),
            parameters={name: f"`{name}` of the path." for name in endpoint.path_parameters},
        )
        yield DocumentedOperation(
            name=endpoint.name,
            action="send",
            channel=channel,
            summary=endpoint.summary,
            messages=(message,),
            security=("bearer", "key"),
            bindings={"http": {"method": "GET", "bindingVersion": "0.3.0"}},
        )


def lobby() -> Iterator[DocumentedOperation]:
    """Yield the operations of the lobby."""
    line = DocumentedMessage(
        name="lobby.line", summary="A line of chat.", kind=str, content_type="text/plain"
    )
    shown = DocumentedMessage(
        name="lobby.shown", summary="A line that somebody wrote.", kind=str, content_type="text/plain"
    )
    chat = KINDS["chat"]
    channel = DocumentedChannel(
        name="lobby",
        address="/ws",
        server=SERVER,
        description=_LOBBY.format(read=chat.read, write=chat.write),
        messages=(line, shown),
    )
    for name, action, message in (("lobby.say", "receive", line), ("lobby.show", "send", shown)):
        yield DocumentedOperation(
            name=name,
            action="receive" if action == "receive" else "send",
            channel=channel,
            summary=message.summary,
            messages=(message,),
            security=("bearer", "key"),
        )


def _numbered(
    command: DocumentedCommand, role: str, summary: str, kind: type[BaseModel], mode: Mode = "serialization"
) -> DocumentedMessage:
    """Return the message of a command or its reply: a number, and the content under the command's name."""

    def wrap(schema: Json) -> Json:
        return {
            "type": "object",
            "required": ["id", command.name],
            "properties": {"id": {"type": "integer", "minimum": 1}, command.name: schema},
        }

    return DocumentedMessage(name=f"{command.name}.{role}", summary=summary, kind=kind, mode=mode, wrap=wrap)


def _push(kind: ChannelKind) -> DocumentedMessage:
    def wrap(schema: Json) -> Json:
        publication = {
            "type": "object",
            "required": ["data", "offset", "epoch"],
            "properties": {
                "data": schema,
                "offset": {"type": "integer"},
                "epoch": {"type": "string"},
                "time": {"type": "integer", "description": "Unix time in milliseconds."},
                "info": {
                    "type": "object",
                    "description": "Who has published, as chat messages say it; no client over HTTP.",
                    "required": ["user"],
                    "properties": {"user": {"type": "string"}, "client": {"type": "string"}},
                },
                "tags": {
                    "type": "object",
                    "properties": {
                        "skipped": {
                            "type": "string",
                            "description": "The number of publications that this one replaced.",
                        }
                    },
                },
            },
        }
        return _pushed(f"^{kind.name}" + (":" if kind.argument else "$"), {"pub": publication})

    return DocumentedMessage(
        name=f"{kind.name}.publication", summary=kind.summary, kind=_PUBLISHED[kind.name], wrap=wrap
    )


def _pushed(channel: str, content: Json) -> Json:
    push = {
        "type": "object",
        "required": ["channel", *content],
        "properties": {"channel": {"type": "string", "pattern": channel}, **content},
    }
    return {"type": "object", "required": ["push"], "properties": {"push": push}}


def _fixed(name: str, summary: str, payload: Json) -> DocumentedMessage:
    return DocumentedMessage(name=name, summary=summary, kind=None, wrap=lambda _: payload)


def _coded(meanings: Mapping[ErrorCode, str] | Mapping[UnsubscribeCode, str]) -> Json:
    """Return the schema of a code that is one of `meanings`."""
    listed = "\n".join(f"- {int(code)}: {meaning}" for code, meaning in meanings.items())
    return {"type": "integer", "enum": [int(code) for code in meanings], "description": listed}


_UNSUBSCRIBED: Json = {
    "type": "object",
    "required": ["code", "reason"],
    "properties": {"code": _coded(UNSUBSCRIBE_REASONS), "reason": {"type": "string"}},
}
_CLIENT: Json = {
    "type": "object",
    "required": ["info"],
    "properties": {
        "info": {
            "type": "object",
            "required": ["user", "client"],
            "properties": {"user": {"type": "string"}, "client": {"type": "string"}},
        }
    },
}
_SIGNALS = (
    _fixed("join", "A connection has subscribed to the channel.", _pushed("^chat:", {"join": _CLIENT})),
    _fixed("leave", "A connection has left the channel.", _pushed("^chat:", {"leave": _CLIENT})),
    _fixed(
        "unsubscribed",
        "The gateway ended the subscription; from code 2500 on, the client subscribes again.",
        _pushed(".", {"unsubscribe": _UNSUBSCRIBED}),
    ),
    _fixed(
        "ping", "A ping; the client answers with an empty object.", {"type": "object", "maxProperties": 0}
    ),
)
_ERROR = _fixed(
    "error.reply",
    "The command failed; one that is `temporary` can be repeated.",
    {
        "type": "object",
        "required": ["id", "error"],
        "properties": {
            "id": {"type": "integer"},
            "error": {
                "type": "object",
                "required": ["code", "message"],
                "properties": {
                    "code": _coded(ERROR_MESSAGES),
                    "message": {"type": "string"},
                    "temporary": {"type": "boolean"},
                },
            },
        },
    },
)
