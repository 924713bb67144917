"""The AsyncAPI document of sockets, event streams and the messages between the services."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
from pydantic import BaseModel

from contracts import topology
from contracts.message import Command, Reply, Request
from gateway.realtime.codes import ErrorCode, UnsubscribeCode
from gateway.reference import asyncapi, broker
from support import sample_endpoints

SCHEMA = Path(__file__).parents[3] / "contracts" / "schemas" / "asyncapi-3.0.0.json"


class Greeting(BaseModel):
    """Whom to greet."""

    name: str


class Greeted(BaseModel):
    """How it went."""

    text: str


@dataclass
class Greet:
    name: str = "greet"
    summary: str = "Greet somebody."
    arguments: type[BaseModel] = Greeting
    answer: type[BaseModel] = Greeted
    scope: str = "the scope of the channel"


DOCUMENT = asyncapi.build(sample_endpoints.declared(), [Greet()])


def resolved(reference: dict[str, str]) -> dict[str, Any]:
    found: Any = DOCUMENT
    for part in reference["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return resolved(found) if "$ref" in found else dict(found)


def test_the_document_is_valid() -> None:
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    def check(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                assert resolved(part) is not None
            for value in part.values():
                check(value)
        elif isinstance(part, list):
            for value in part:
                check(value)

    check(DOCUMENT)


def test_a_command_of_the_socket_has_its_arguments_and_its_reply() -> None:
    operation = DOCUMENT["operations"]["realtime.greet"]
    assert operation["action"] == "receive"
    assert operation["summary"] == "Greet somebody. Needs the scope of the channel."
    command = resolved(operation["messages"][0])["payload"]
    assert command["required"] == ["id", "greet"]
    assert resolved(command["properties"]["greet"])["properties"]["name"] == {"type": "string"}
    names = {resolved(message)["name"] for message in operation["reply"]["messages"]}
    assert names == {"greet.reply", "error.reply"}


def test_a_stream_of_events_is_a_channel_with_its_item() -> None:
    channel = DOCUMENT["channels"]["watchThing"]
    assert channel["address"] == "/things/{thing_id}/events"
    assert list(channel["parameters"]) == ["thing_id"]
    assert resolved(channel["messages"]["watchThing.event"])["payload"] == {
        "$ref": "#/components/schemas/Thing"
    }


def test_only_streams_of_events_are_channels() -> None:
    gateway = [
        name
        for name, channel in DOCUMENT["channels"].items()
        if channel["servers"] == [{"$ref": "#/servers/gateway"}]
    ]
    assert sorted(gateway) == ["lobby", "realtime", "watchThing"]


def test_the_lobby_names_the_scopes_that_it_needs() -> None:
    described = DOCUMENT["channels"]["lobby"]["description"]
    assert "Needs `chat:read`, and `chat:write` to post" in described


def test_every_message_of_the_contracts_is_on_a_channel() -> None:
    carried = {name for channel in DOCUMENT["channels"].values() for name in channel["messages"]}
    assert {message.message_type for message in broker.messages()} <= carried


def test_every_queue_is_a_channel_or_is_named_by_an_operation() -> None:
    text = json.dumps(DOCUMENT["operations"])
    for owned in topology.TOPOLOGIES.values():
        for queue in owned.queues:
            assert queue.name in DOCUMENT["channels"] or queue.name in text


def test_a_queue_says_how_it_is_declared() -> None:
    bindings = DOCUMENT["channels"]["email.send"]["bindings"]["amqp"]
    assert bindings["queue"] == {
        "name": "email.send",
        "durable": True,
        "exclusive": False,
        "autoDelete": False,
    }
    assert DOCUMENT["channels"]["email.rpc"]["bindings"]["amqp"]["queue"]["autoDelete"] is True


def test_an_event_is_received_by_those_that_bound_its_key() -> None:
    operations = DOCUMENT["operations"]
    assert "gateway.receive.batch.finished" in operations
    assert "email.receive.batch.finished" not in operations


def test_a_request_is_answered_on_the_address_that_it_names_with_its_own_reply() -> None:
    operation = DOCUMENT["operations"]["email.answer.email.get.v1"]
    assert [resolved(message)["name"] for message in operation["messages"]] == ["email.get.v1"]
    replies = [resolved(message)["name"] for message in operation["reply"]["messages"]]
    assert replies == ["Email", "Failure"]
    channel = resolved(operation["reply"]["channel"])
    assert channel["address"] is None
    assert {"Email", "EmailCounts", "Failure"} <= set(channel["messages"])


def headers_of(message: str) -> dict[str, Any]:
    (trait,) = DOCUMENT["components"]["messages"][message]["traits"]
    found: dict[str, Any] = resolved(trait)["headers"]
    return found


def test_a_message_has_the_headers_of_the_way_that_it_travels() -> None:
    assert headers_of("email.send.v1")["required"] == ["x-attempt", "x-sent-at"]
    assert headers_of("email.get.v1")["required"] == ["x-attempt", "x-sent-at", "x-deadline"]
    assert headers_of("Email")["properties"].keys() == {"x-reply-status"}
    assert "x-tenant" in headers_of("batch.finished.v1")["properties"]
    assert "x-tenant" not in headers_of("stocks.ticked.v1")["properties"]


def test_what_waits_or_is_parked_is_a_message_of_any_type_with_the_reason_in_its_headers() -> None:
    for service in ("gateway", "email", "batch-processor"):
        for channel, name in ((f"retry.{service}", "waiting"), (f"{service}.parked", "parked")):
            assert list(DOCUMENT["channels"][channel]["messages"]) == [name]
            assert f"{service}.send.{channel.removeprefix(f'{service}.')}" in DOCUMENT["operations"]
            assert DOCUMENT["components"]["messages"][name]["payload"] == {}
            assert {"x-error", "x-first-error"} <= headers_of(name)["properties"].keys()
    # It handles no messages that it could park.
    assert "stock-data.send.parked" not in DOCUMENT["operations"]


def test_a_queue_of_events_has_those_whose_routing_keys_are_bound_to_it() -> None:
    kept = DOCUMENT["channels"]["gateway.events"]["messages"].keys()
    assert {"batch.finished.v1", "parked.changed.v1"} <= kept
    assert "batch.progressed.v1" not in kept
    assert DOCUMENT["operations"]["gateway.return.gateway.events"]["action"] == "send"


def test_the_data_of_publications_are_those_that_subscribers_get() -> None:
    def data_of(kind: str) -> dict[str, Any]:
        push = DOCUMENT["components"]["messages"][f"{kind}.publication"]["payload"]["properties"]["push"]
        return resolved(push["properties"]["pub"]["properties"]["data"])

    assert "state" in data_of("quotes")["required"]
    # Its offset is that of the publication.
    assert data_of("chat")["properties"].keys() == {"text", "user", "user_id"}


def test_every_request_names_its_reply() -> None:
    requests = [kind for kind in broker.messages() if issubclass(kind, Request)]
    assert len(requests) >= 15
    assert all(issubclass(kind.reply, Reply) for kind in requests)


def test_a_command_has_senders_that_may_write_to_its_exchange() -> None:
    assert "gateway.send.email.send" in DOCUMENT["operations"]
    promised = DOCUMENT["operations"]["batch-processor.send.email.send"]
    assert [resolved(message)["name"] for message in promised["messages"]] == ["email.send.v1"]
    commands = [kind for kind in broker.messages() if issubclass(kind, Command)]
    writers = {name for name, owned in topology.TOPOLOGIES.items() if topology.COMMANDS in owned.writes}
    assert {sender for kind in commands for sender in kind.senders} == writers


def test_the_codes_of_errors_and_of_unsubscribing_are_listed_with_their_meaning() -> None:
    messages = DOCUMENT["components"]["messages"]
    error = messages["error.reply"]["payload"]["properties"]["error"]["properties"]["code"]
    push = messages["unsubscribed"]["payload"]["properties"]["push"]["properties"]
    unsubscribe = push["unsubscribe"]["properties"]["code"]
    for schema, known in ((error, ErrorCode), (unsubscribe, UnsubscribeCode)):
        assert set(schema["enum"]) == {int(code) for code in known}
        assert all(f"- {int(code)}: " in schema["description"] for code in known)
