"""The routes that the gateway serves, its declarations and its documents agree."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from pydantic import TypeAdapter

from contracts.message import Event, LiveMessage
from contracts.topology import TOPOLOGIES
from gateway.http.endpoints import Endpoint, Idempotency, Precondition
from gateway.realtime import sockets as websockets
from gateway.realtime.command_table import COMMANDS
from gateway.reference import asyncapi, broker, openapi, sockets
from support import declared_gateway

APP = declared_gateway.create()
ENDPOINTS = APP.server.endpoints
OPENAPI = declared_gateway.document()
ASYNCAPI = asyncapi.build(ENDPOINTS, COMMANDS.values())
SCHEMA = Path(__file__).parent / "schemas" / "asyncapi-3.0.0.json"

# A POST that leaves nothing behind which a repetition could double, and the reason.
HARMLESS = {
    "createRealtimeToken": "a token is signed and not stored",
    "createLogin": "an address is signed and not stored",
    "createSession": "a token of an address works once",
    "previewSource": "nothing is stored",
    "previewTemplate": "nothing is stored",
    "verifyDomain": "what is found counts, however often it is looked for",
}
# Lists that are bounded by what they list, and come whole.
WHOLE = {
    "listQuotes",
    "searchSymbols",
    "listOperations",
    "listErrors",
    "listNextRuns",
    "listPauses",
    "listProblems",
    "listRunbooks",
}

# A DELETE that ends something at whatever version it has, and the reason.
ENDED_ANYHOW = {
    "cancelEmail": "a mail that is not wanted is not wanted at another time either",
    "deleteAlert": "an alert is not edited, and one that has fired meanwhile ends as well",
    "liftSuppression": "an address gets mail again, for whatever reason it got none",
}

# A POST whose object has a name of its caller's choice in place of an id.
NAMED = {"createRoom", "createTemplate", "putMember"}

# HEAD comes with GET, and OPTIONS answers for itself.
IMPLIED = {"HEAD", "OPTIONS"}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in OPENAPI["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def template(rule: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def addresses(server: str) -> set[str | None]:
    """Return the addresses of the channels of `server` in the AsyncAPI document."""
    reference = {"$ref": f"#/servers/{server}"}
    return {c["address"] for c in ASYNCAPI["channels"].values() if c["servers"] == [reference]}


def test_every_route_that_is_served_is_declared_and_every_declared_one_is_served() -> None:
    served = {
        (method, template(rule.rule))
        for rule in APP.url_map.iter_rules()
        for method in (rule.methods or set()) - IMPLIED
    }
    assert served == {(endpoint.method, endpoint.template) for endpoint in ENDPOINTS}


def test_the_document_describes_the_declared_endpoints_and_no_others() -> None:
    documented = {(method, path, operation["operationId"]) for method, path, operation in operations()}
    assert documented == {(endpoint.method, endpoint.template, endpoint.name) for endpoint in ENDPOINTS}
    assert len(documented) == len(ENDPOINTS)


def test_the_channels_of_the_gateway_are_the_websockets_and_event_streams_that_are_served() -> None:
    assert not any(rule.websocket for rule in APP.url_map.iter_rules())
    streams = {endpoint.template for endpoint in ENDPOINTS if endpoint.is_stream}
    assert addresses(sockets.SERVER) == {*websockets.PATHS, *streams}


def test_the_operations_of_the_realtime_socket_are_the_commands_of_its_protocol() -> None:
    received = {
        name
        for name, operation in ASYNCAPI["operations"].items()
        if operation["channel"] == {"$ref": "#/channels/realtime"} and operation["action"] == "receive"
    }
    assert received == {f"realtime.{name}" for name in COMMANDS}


def test_the_channels_of_the_broker_are_its_queues_and_the_routing_keys_of_the_contracts() -> None:
    queues = {queue.name for owned in TOPOLOGIES.values() for queue in owned.queues}
    keys = {kind.routing_key for kind in broker.messages() if issubclass(kind, Event | LiveMessage)}
    # The address of a reply is made for each connection: it is None. That of a message which waits for its
    # next attempt is the time.
    assert addresses(broker.SERVER) == {*queues, *keys, None, "{wait}"}


def test_both_documents_are_valid() -> None:
    OpenAPIV31SpecValidator(OPENAPI).validate()
    jsonschema.Draft7Validator(json.loads(SCHEMA.read_text())).validate(ASYNCAPI)


def test_bounds_use_the_keywords_of_json_schema() -> None:
    """Pydantic writes a limit behind one of its functions as `ge`, which readers of the schema ignore."""
    text = json.dumps(OPENAPI)
    assert not re.findall(r'"(?:ge|gt|le|lt|min_length|max_length)":', text)


def test_operation_ids_and_summaries_are_unique() -> None:
    names = [endpoint.name for endpoint in ENDPOINTS]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][A-Za-z]+", name) for name in names)
    assert all(not endpoint.summary.endswith(".") for endpoint in ENDPOINTS)


def test_every_post_honours_an_idempotency_key_unless_it_leaves_nothing_behind() -> None:
    refusing = {e.name for e in ENDPOINTS if e.method == "POST" and e.idempotency is Idempotency.NONE}
    assert refusing == HARMLESS.keys()


def test_every_resource_that_is_read_and_changed_has_an_entity_tag_and_its_changes_compare_it() -> None:
    read = {endpoint.template: endpoint for endpoint in ENDPOINTS if endpoint.method == "GET"}
    untagged, uncompared = set(), set()
    for change in (endpoint for endpoint in ENDPOINTS if endpoint.method != "GET"):
        # An action belongs to the thing before it: `/v1/batches/{batch_id}/cancel`.
        is_action = not change.template.endswith("}")
        thing = change.template.rpartition("/")[0] if is_action else change.template
        if thing.endswith("}") and thing in read and not read[thing].is_tagged:
            untagged.add(read[thing].name)
        if not is_action and thing in read and change.precondition is Precondition.NONE:
            uncompared.add(change.name)
    assert not untagged
    assert uncompared == ENDED_ANYHOW.keys()


def test_every_list_comes_in_pages_of_one_form_unless_it_is_bounded() -> None:
    whole = set()
    for endpoint in (e for e in ENDPOINTS if e.method == "GET" and re.match("list|search", e.name)):
        taken = set(endpoint.query.model_fields) if endpoint.query else set()
        answered = TypeAdapter(endpoint.answers[200].model).json_schema().get("properties", {}).keys()
        if not ({"limit", "cursor"} <= taken and {"data", "next_cursor"} <= answered):
            assert "cursor" not in taken, endpoint.name
            whole.add(endpoint.name)
    assert whole == WHOLE


@pytest.mark.parametrize(
    "endpoint", [e for e in ENDPOINTS if e.body is not None], ids=lambda endpoint: endpoint.name
)
def test_every_body_has_an_example_that_fits_its_schema(endpoint: Endpoint) -> None:
    examples = openapi.body_examples(endpoint)
    assert examples
    for example in examples.values():
        TypeAdapter(endpoint.body).validate_json(json.dumps(example), strict=True)
        body = OPENAPI["paths"][endpoint.template][endpoint.method.lower()]["requestBody"]
        schema = body["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator({**schema, "components": OPENAPI["components"]}).validate(example)


@pytest.mark.parametrize(
    "endpoint", [e for e in ENDPOINTS if e.path_parameters], ids=lambda endpoint: endpoint.name
)
def test_every_path_parameter_has_an_example(endpoint: Endpoint) -> None:
    parameters = OPENAPI["paths"][endpoint.template][endpoint.method.lower()]["parameters"]
    for parameter in parameters:
        if parameter.get("in") == "path":
            assert "example" in parameter, parameter["name"]


def test_an_operation_that_creates_something_leads_to_all_that_are_about_it() -> None:
    unlinked = set()
    for maker in (endpoint for endpoint in ENDPOINTS if endpoint.method == "POST"):
        below = re.compile(re.escape(maker.template) + r"/\{")
        about = {endpoint.name for endpoint in ENDPOINTS if below.match(endpoint.template)}
        answer = OPENAPI["paths"][maker.template]["post"]["responses"][str(maker.status)]
        if not about <= answer.get("links", {}).keys():
            unlinked.add(maker.name)
    assert unlinked == NAMED
