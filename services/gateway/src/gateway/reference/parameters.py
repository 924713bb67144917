"""The parameters of an operation: parts of the path, the query, and the headers that it uses."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.http.endpoints import Endpoint, Idempotency, Precondition
from gateway.reference.schemas import Json, Schemas, without_null

# Examples of path parameters without an example of their own.
_USUAL: Mapping[str, object] = {"uuid": "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11", "integer": 1}


def _header(name: str, description: str, schema: Json, example: str, *, required: bool = False) -> Json:
    return {
        "name": name,
        "in": "header",
        "description": description,
        "required": required,
        "schema": schema,
        "example": example,
    }


# Parameters that many operations share, by their name in the document's components.
SHARED: Mapping[str, Json] = {
    "Idempotency-Key": _header(
        "Idempotency-Key",
        "Identifies this request: a repetition within 24 hours gets the same answer and has no second "
        "effect. Send a random value with each new request.",
        {
            "type": "string",
            "pattern": r'^([!#-~]{1,255}|"([ !#-\[\]-~]|\\["\\]){1,255}")$',
        },
        '"7f3c0f5e-8a1c-4d1b-9c55-6f0f6c1f2f6a"',
    ),
    "If-Match": _header(
        "If-Match",
        "Make the change only if the object still has this `ETag`; otherwise the answer is 412.",
        {"type": "string"},
        '"3"',
    ),
    "If-Match-Of-Read": _header(
        "If-Match",
        "Answer only if the object still has this `ETag`; otherwise the answer is 412.",
        {"type": "string"},
        '"3"',
    ),
    "If-Match-Required": _header(
        "If-Match",
        "Make the change only if the object still has this `ETag`; otherwise the answer is 412. "
        "`*` overwrites any version.",
        {"type": "string"},
        '"3"',
        required=True,
    ),
    "If-None-Match": _header(
        "If-None-Match",
        "The `ETag` of a cached answer; while it is still current, the answer is 304 without a body.",
        {"type": "string"},
        '"3"',
    ),
    "Last-Event-ID": _header(
        "Last-Event-ID",
        "The id of the last event that you have seen; a browser sends it when it comes back.",
        {"type": "string"},
        "0197b1f0-5a1c-7c3e-9f0e-2f5b1c9d7a11:3",
    ),
    "Request-Timeout": _header(
        "Request-Timeout",
        "The seconds to wait for the answer, from 0.05; more than 30 count as 30. The default is 5.",
        {"type": "string", "pattern": r"^(0\.(0[5-9]|[1-9])[0-9]{0,7}|[1-9][0-9]{0,8}(\.[0-9]{1,9})?)$"},
        "2.5",
    ),
    "Prefer": _header(
        "Prefer",
        "`wait=<seconds>` is an alternative to `Request-Timeout` (RFC 7240).",
        {"type": "string"},
        "wait=10",
    ),
    "traceparent": _header(
        "traceparent",
        "Your trace (W3C Trace Context), which all services continue. An invalid one is ignored.",
        {"type": "string"},
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    "X-Request-Id": _header(
        "X-Request-Id",
        "Your own id for the request, used in logs, messages and answers. An invalid one is replaced.",
        {"type": "string"},
        "order-4711",
    ),
}


def of(endpoint: Endpoint, schemas: Schemas) -> list[Json]:
    """Return the parameters of an operation."""
    found = []
    for name, (converter, _) in endpoint.path_parameters.items():
        schema = dict(schemas.by_place[f"{endpoint.name}.path.{name}"])
        if converter == "int":
            schema["minimum"] = 0
        found.append(_described({"name": name, "in": "path", "required": True}, schema, endpoint))
    properties, required = (
        schemas.properties(f"{endpoint.name}.query") if endpoint.query else ({}, frozenset())
    )
    for name, schema in properties.items():
        place = {"name": name, "in": "query", "required": name in required}
        single = without_null(schema)
        if single.get("type") == "array":
            # A parameter must not be repeated: lists are separated by commas.
            place |= {"style": "form", "explode": False}
        found.append(_described(place, single, endpoint))
    means_something = {
        "Idempotency-Key": endpoint.idempotency is not Idempotency.NONE,
        "If-Match": endpoint.precondition is Precondition.OPTIONAL,
        "If-Match-Required": endpoint.precondition is Precondition.REQUIRED,
        "If-Match-Of-Read": has_entity_tag(endpoint),
        "If-None-Match": has_entity_tag(endpoint),
        "Last-Event-ID": endpoint.is_stream,
        "Request-Timeout": True,
        "Prefer": True,
        "traceparent": True,
        "X-Request-Id": True,
    }
    shared = [name for name, is_meant in means_something.items() if is_meant]
    return [*found, *({"$ref": f"#/components/parameters/{name}"} for name in shared)]


def _described(parameter: Json, schema: Json, endpoint: Endpoint) -> Json:
    """Return a parameter with its description and example beside its schema, where readers expect them."""
    schema = dict(schema)
    if description := schema.pop("description", None):
        parameter["description"] = description
    examples = schema.pop("examples", ())
    kind = schema.get("format", schema.get("type", ""))
    usual = _USUAL.get(str(kind)) if parameter["in"] == "path" else None
    example = endpoint.examples.get(parameter["name"], examples[0] if examples else usual)
    if example is not None:
        parameter["example"] = example
    return {**parameter, "schema": schema}


def has_entity_tag(endpoint: Endpoint) -> bool:
    """Return whether the answer to a read has an `ETag`, so that a caller can make conditional requests."""
    return endpoint.method == "GET" and endpoint.is_tagged
