"""The OpenAPI 3.1 document, built from the declarations of the endpoints."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version

from gateway.http.endpoints import Endpoint
from gateway.http.replies import JSON
from gateway.reference import answers, outcomes, parameters, schemas
from gateway.reference.schemas import Json, SchemaPlace, Schemas
from gateway.reference.security import SCHEMES

_DESCRIPTION = """\
One authenticated HTTP and WebSocket API over stock quotes and history, e-mail, batches, tasks and chat. \
Sockets, event streams and messages are described at `/asyncapi.json`.

- Every error is a problem document (RFC 9457); its `type` is a path on this server with the meaning and \
the remedy.
- `HEAD` is served wherever `GET` is; `OPTIONS` lists the methods of a path in `Allow`.
- Unknown parameters and fields are refused, and so are repeated ones.
- A request that matches no operation is answered with one of: {outside}.
"""


def build(endpoints: Sequence[Endpoint]) -> Json:
    """Return the document that describes `endpoints`."""
    found = schemas.of(place for endpoint in endpoints for place in _places(endpoint))
    paths: dict[str, Json] = {}
    for endpoint in endpoints:
        operation = _operation(endpoint, found)
        if links := _links(endpoint, endpoints, found):
            operation["responses"][str(endpoint.status)]["links"] = links
        paths.setdefault(endpoint.template, {})[endpoint.method.lower()] = operation
    document: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "Tickwire",
            "version": version("tickwire-gateway"),
            "summary": "Market data and notifications behind one API.",
            "description": _DESCRIPTION.format(outside=", ".join(f"`{code}`" for code in outcomes.OUTSIDE)),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{"url": "/", "description": "This gateway"}],
        "tags": [{"name": name} for name in dict.fromkeys(endpoint.tag for endpoint in endpoints)],
        "paths": dict(sorted(paths.items())),
    }
    models = {**found.models, "Problem": answers.PROBLEM_SCHEMA}
    responses = answers.problem_responses(endpoints)
    given = [one for path in paths.values() for operation in path.values() for one in operation["parameters"]]
    shared = {one["$ref"].rpartition("/")[2] for one in given if "$ref" in one}
    document["components"] = {
        "schemas": schemas.referenced({"document": document, "responses": responses}, models),
        "parameters": {name: one for name, one in parameters.SHARED.items() if name in shared},
        "headers": dict(answers.HEADERS),
        "responses": responses,
        "securitySchemes": {**SCHEMES, "key": {**SCHEMES["key"], "type": "apiKey"}},
    }
    return document


def _places(endpoint: Endpoint) -> Iterator[SchemaPlace]:
    name = endpoint.name
    for part in endpoint.path_parameters:
        yield SchemaPlace(f"{name}.path.{part}", endpoint.parameters[part], "validation")
    if endpoint.query is not None:
        yield SchemaPlace(f"{name}.query", endpoint.query, "validation")
    if endpoint.body is not None:
        yield SchemaPlace(f"{name}.body", endpoint.body, "validation")
    for status, answer in endpoint.answers.items():
        if answer.model is not None:
            yield SchemaPlace(f"{name}.answer.{status}", answer.shapes, "serialization")
        if answer.item is not None:
            yield SchemaPlace(f"{name}.answer.{status}.item", answer.item, "serialization")


def _operation(endpoint: Endpoint, found: Schemas) -> Json:
    operation: Json = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": parameters.of(endpoint, found),
        "responses": answers.of(endpoint, found),
        "x-rate-class": endpoint.rate,
    }
    if endpoint.takes_body:
        content: dict[str, Json] = {}
        if endpoint.body is not None:
            content[JSON] = {"schema": found.by_place[f"{endpoint.name}.body"]}
            if examples := body_examples(endpoint):
                content[JSON]["examples"] = {name: {"value": value} for name, value in examples.items()}
        if endpoint.upload is not None:
            content[endpoint.upload] = {"schema": {"type": "string", "contentMediaType": endpoint.upload}}
        for kind in endpoint.takes:
            content[kind] = {"schema": {"type": "string", "contentMediaType": kind}}
        if endpoint.takes and (examples := body_examples(endpoint)):
            # The example of the first media type; a string is written as it is sent.
            content[endpoint.takes[0]]["examples"] = {
                name: {"value": value} for name, value in examples.items()
            }
        operation["requestBody"] = {"required": True, "content": content}
        if endpoint.codings:
            codings = " or ".join(f"`{coding}`" for coding in endpoint.codings)
            operation["requestBody"]["description"] = (
                f"`{endpoint.upload}` may be compressed: `Content-Encoding` {codings}."
            )
    if endpoint.is_public:
        return {**operation, "security": []}
    scopes = [] if endpoint.scope is None else [endpoint.scope.value]
    needs = f"Needs the scope `{endpoint.scope}`." if endpoint.scope else "Needs a key with any scopes."
    if endpoint.dry_run_scope is not None:
        needs += f" A dry run needs `{endpoint.dry_run_scope}`, too."
    return {
        **operation,
        "description": needs,
        "security": [{"bearer": scopes}, {"key": scopes}],
        "x-required-scopes": scopes,
    }


def _links(maker: Endpoint, endpoints: Iterable[Endpoint], found: Schemas) -> Json:
    """Return links to the operations below the path of `maker`, which take the id of the created object."""
    answer = maker.answers[maker.status]
    if maker.method != "POST" or answer.model is None:
        return {}
    properties, _ = found.properties(f"{maker.name}.answer.{maker.status}")
    below = re.compile(re.escape(maker.template) + r"/\{(\w+)\}")
    return {
        endpoint.name: {"operationId": endpoint.name, "parameters": {part[1]: "$response.body#/id"}}
        for endpoint in endpoints
        if "id" in properties and (part := below.match(endpoint.template))
    }


def body_examples(endpoint: Endpoint) -> Json:
    """Return the examples of a body; the other declared examples are those of parameters."""
    known = {*endpoint.path_parameters, *(endpoint.query.model_fields if endpoint.query else ())}
    return {name: value for name, value in endpoint.examples.items() if name not in known}
