"""The OpenAPI document of declared endpoints of every kind."""

from __future__ import annotations

from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.reference import openapi, outcomes
from support import sample_endpoints

DECLARED = sample_endpoints.declared()
DOCUMENT = openapi.build(DECLARED)


def operation(name: str) -> dict[str, Any]:
    (found,) = (
        operation
        for path in DOCUMENT["paths"].values()
        for operation in path.values()
        if operation["operationId"] == name
    )
    return dict(found)


def parameter(name: str, of: str) -> dict[str, Any]:
    found = {parameter.get("name"): parameter for parameter in operation(of)["parameters"]}
    return dict(found[name])


def shared_parameters(of: str) -> set[str]:
    return {
        parameter["$ref"].rpartition("/")[2]
        for parameter in operation(of)["parameters"]
        if "$ref" in parameter
    }


def test_the_document_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()


def test_every_declared_endpoint_is_an_operation_at_its_path_and_method() -> None:
    found = {
        (method.upper(), path, operation["operationId"])
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }
    assert found == {(endpoint.method, endpoint.template, endpoint.name) for endpoint in DECLARED}


def test_a_path_parameter_has_the_type_of_its_part() -> None:
    assert parameter("thing_id", "getThing")["schema"] == {"type": "string", "format": "uuid"}
    assert parameter("thing_id", "getThing")["example"] == sample_endpoints.THING_ID
    assert parameter("number", "endSlot")["schema"] == {"type": "integer", "minimum": 0}
    assert parameter("number", "endSlot")["description"] == "The number of a slot."


def test_a_query_parameter_cannot_be_null_and_keeps_its_bounds_and_example() -> None:
    assert parameter("name", "listThings") == {
        "name": "name",
        "in": "query",
        "required": False,
        "description": "Only things of this name.",
        "example": "cup",
        "schema": {"type": "string"},
    }
    assert parameter("limit", "listThings")["schema"] == {
        "type": "integer",
        "default": 50,
        "minimum": 1,
        "maximum": 200,
    }


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("createThing", {"Idempotency-Key", "Request-Timeout", "Prefer"}),
        ("getThing", {"If-Match-Of-Read", "If-None-Match", "Request-Timeout", "Prefer"}),
        ("renameThing", {"If-Match-Required", "Request-Timeout", "Prefer"}),
        ("endSlot", {"If-Match", "Request-Timeout", "Prefer"}),
        ("watchThing", {"Last-Event-ID", "Request-Timeout", "Prefer"}),
        ("ping", {"Request-Timeout", "Prefer"}),
    ],
)
def test_an_operation_lists_the_headers_that_mean_something_to_it(name: str, headers: set[str]) -> None:
    assert shared_parameters(name) == headers | {"traceparent", "X-Request-Id"}


def test_a_body_has_its_media_types_and_its_example() -> None:
    content = operation("createThing")["requestBody"]["content"]
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/ThingInput"}
    assert content["application/json"]["examples"]["a cup"]["value"]["name"] == "cup"
    body = operation("uploadThings")["requestBody"]
    assert set(body["content"]) == {"application/json", "application/x-ndjson"}
    assert body["description"] == "`application/x-ndjson` may be compressed: `Content-Encoding` `gzip`."


def test_an_answer_has_its_own_headers_and_those_that_follow_from_the_declaration() -> None:
    assert {"Location", "Idempotent-Replayed", "X-Request-Id"} <= set(
        operation("createThing")["responses"]["201"]["headers"]
    )
    assert "Vary" in operation("listThings")["responses"]["200"]["headers"]
    assert "content" not in operation("endSlot")["responses"]["204"]
    assert set(operation("getThing")["responses"]["304"]["headers"]) >= {"ETag"}


def test_a_stream_names_the_schema_of_its_items() -> None:
    content = operation("watchThing")["responses"]["200"]["content"]
    assert content["text/event-stream"]["x-item-schema"] == {"$ref": "#/components/schemas/Thing"}
    answers = operation("listThings")["responses"]["200"]["content"]
    assert list(answers) == ["application/json", "application/x-ndjson", "text/csv"]
    assert answers["application/x-ndjson"]["x-item-schema"] == {"$ref": "#/components/schemas/Thing"}


def test_an_operation_names_its_scope_and_a_public_one_needs_no_key() -> None:
    assert operation("createThing")["security"] == [{"bearer": ["chat:write"]}, {"key": ["chat:write"]}]
    assert operation("createThing")["x-required-scopes"] == ["chat:write"]
    assert operation("endSlot")["security"] == [{"bearer": []}, {"key": []}]
    assert operation("ping")["security"] == []


def test_an_operation_lists_each_problem_type_under_its_status() -> None:
    for endpoint in DECLARED:
        responses = operation(endpoint.name)["responses"]
        for problem in outcomes.of(endpoint):
            reference = responses[str(problem.status)]["$ref"].rpartition("/")[2]
            response = DOCUMENT["components"]["responses"][reference]
            content = response["content"]["application/problem+json"]
            assert f"/problems/{problem.code}" in content["schema"]["allOf"][1]["properties"]["type"]["enum"]
            assert content["examples"][problem.code]["value"]["status"] == problem.status


def test_a_refused_content_coding_is_answered_with_those_that_are_taken() -> None:
    reference = operation("uploadThings")["responses"]["415"]["$ref"].rpartition("/")[2]
    assert "Accept-Encoding" in DOCUMENT["components"]["responses"][reference]["headers"]


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("createThing", {"conflict", "idempotency-running", "idempotency-mismatch", "malformed-input"}),
        ("getThing", {"not-found", "idempotency-not-supported", "unauthenticated", "forbidden"}),
        ("renameThing", {"precondition-failed", "precondition-required"}),
        ("uploadThings", {"upload-stalled", "payload-too-large", "unsupported-media-type"}),
    ],
)
def test_problem_types_follow_from_what_an_endpoint_declares(name: str, codes: set[str]) -> None:
    (endpoint,) = (endpoint for endpoint in DECLARED if endpoint.name == name)
    assert codes <= {problem.code for problem in outcomes.of(endpoint)}


def test_a_public_operation_never_asks_who_calls() -> None:
    (ping,) = (endpoint for endpoint in DECLARED if endpoint.name == "ping")
    assert not {"unauthenticated", "forbidden"} & {problem.code for problem in outcomes.of(ping)}


def test_components_hold_each_model_once_and_none_that_nothing_refers_to() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert list(schemas) == ["Problem", "Thing", "ThingInput", "ThingPart", "Things"]
    assert schemas["ThingInput"]["additionalProperties"] is False
    assert schemas["ThingInput"]["description"] == "What a thing is made of."
