"""An AsyncAPI document, compared with messages that were really sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs
import orjson

from contracts import headers
from contracts.topology import COMMANDS, REPLIES, RPC
from support.broker_tap import Sent

Json = dict[str, Any]


class Undocumented(Exception):
    """The document has no channel or message for something that was sent."""


class MessageReference:
    """The messages of a document, and those of them that no comparison has shown yet.

    `unseen` has the channel and the name of each message, and `unused` the service, channel and name of each
    message that an operation sends over the broker.
    """

    def __init__(self, document: Json) -> None:
        self._channels: Mapping[str, Json] = document["channels"]
        self._operations: Mapping[str, Json] = document["operations"]
        self._components: Json = _closed(document["components"])
        self._requests: dict[tuple[str | None, str | None], Sent] = {}
        self.unseen = {(name, one) for name, channel in self._channels.items() for one in channel["messages"]}
        self.unused = {
            (name.partition(".send.")[0], *_place(message))
            for name, operation in self._operations.items()
            if ".send." in name
            for message in operation["messages"]
        }
        self._validator = cache(self._new_validator)

    def compare(self, channel: str, name: str, payload: Any) -> None:
        """Validate the payload of a message. Raise `Undocumented` or `ValidationError`."""
        if name not in self._channels[channel]["messages"]:
            raise Undocumented(f"{channel} has no message {name}")
        self._validator(name, "payload").validate(payload)
        self.unseen.discard((channel, name))

    def compare_sent(self, sent: Sent) -> None:
        """Validate a message of the broker with its headers. Raise as `compare`."""
        if sent.exchange == RPC:
            self._requests[sent.reply_to, sent.correlation_id] = sent
        if sent.exchange == REPLIES and (sent.routing_key, sent.correlation_id) not in self._requests:
            # It was asked for before the recording began.
            return
        channel, name = self._place_of(sent)
        self.compare(channel, name, orjson.loads(sent.body))
        self._validator(name, "headers").validate(dict(sent.headers))
        self.unused.discard((sent.user, channel, name))
        # A queue that is bound to an exchange has the message as well.
        self.unseen -= {(queue, name) for queue in sent.queues}

    def _place_of(self, sent: Sent) -> tuple[str, str]:
        """Return the channel of a message, and its name there. Raise `Undocumented`."""
        if sent.exchange == REPLIES:
            request = self._requests[sent.routing_key, sent.correlation_id]
            service = request.routing_key.removesuffix(".rpc")
            answers = self._operations[f"{service}.answer.{request.message_type}"]["reply"]["messages"]
            is_failure = sent.headers[headers.REPLY_STATUS] != headers.REPLY_OK
            return _place(answers[-1 if is_failure else 0])
        for name, channel in self._channels.items():
            if _leads_to(sent, channel):
                # What is parked or waits is of any type.
                one = [message for message in channel["messages"] if message in ("parked", "waiting")]
                return name, one[0] if one else sent.message_type
        raise Undocumented(f"{sent.user} sent {sent.message_type} to {sent.exchange}, {sent.routing_key}")

    def _new_validator(self, name: str, part: str) -> Any:
        message = self._components["messages"][name]
        if part == "headers":
            (trait,) = (one["$ref"].rpartition("/")[2] for one in message["traits"])
            message = self._components["messageTraits"][trait]
        return jsonschema_rs.validator_for(
            {"components": self._components, **message[part]}, validate_formats=True
        )


def _leads_to(sent: Sent, channel: Json) -> bool:
    """Return whether the destination of a message is the channel, by its binding."""
    amqp = channel.get("bindings", {}).get("amqp")
    if amqp is None:
        return False
    if amqp["is"] == "queue":
        name = amqp["queue"]["name"]
        return sent.routing_key == name and sent.exchange in (COMMANDS, RPC, name.partition(".")[0])
    pattern = re.sub(r"\\{\w+\\}", "[^.]+", re.escape(channel["address"]))
    return sent.exchange == amqp["exchange"]["name"] and bool(re.fullmatch(pattern, sent.routing_key))


def _place(reference: Json) -> tuple[str, str]:
    """Return the channel and the name of a message from `#/channels/<channel>/messages/<name>`."""
    _, _, channel, _, name = reference["$ref"].split("/")
    return channel, name


def _closed(part: Any) -> Any:
    """Return a part of the document in which no object has other fields than the declared ones."""
    if isinstance(part, list):
        return [_closed(one) for one in part]
    if not isinstance(part, dict):
        return part
    found = {name: _closed(value) for name, value in part.items()}
    if part.get("type") == "object" and isinstance(part.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return found
