"""What a read shows with a scope, a change shows with that scope only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args
from uuid import uuid4

import httpx
import pytest
from pydantic import BaseModel

from contracts.scopes import Scope
from gateway.http.calls import Call
from gateway.http.changes import Change
from gateway.http.endpoints import Answer, Endpoint
from gateway.http.filters import BulkResult, CreatedWithin, DryRun
from gateway.http.principal import Principal
from gateway.http.replies import HttpReply, document
from gateway.http.serving import Effect
from support import declared_gateway
from support.problems import assert_problem
from support.served import MEMBER, serving

ENDPOINTS = declared_gateway.create().server.endpoints
CHANGES = [endpoint for endpoint in ENDPOINTS if endpoint.method != "GET"]
EXCERPTS = [
    pytest.param(answer, id=f"{endpoint.name}.{status}")
    for endpoint in ENDPOINTS
    for status, answer in endpoint.answers.items()
    if answer.excerpt is not None
]
DRY_RUNS = [endpoint for endpoint in CHANGES if endpoint.dry_run_scope is not None]

SENT = "the caller has just sent what it shows"
# Answers that are whole for every caller, and the reason.
WHOLE = {
    "createAlert": SENT,
    "createApiKey": SENT,
    "createDomain": "it says what to publish in DNS",
    "createRoom": SENT,
    "createSchedule": SENT,
    "createTemplate": SENT,
    "changeTemplate": SENT,
    "createUser": SENT,
    "rotateApiKey": "the caller gets the key itself, which may read it",
    "rotateDkim": "it says what to publish in DNS",
    "runSchedule": "the caller has just made the run",
    "setRetention": SENT,
    "verifyDomain": "it says what is published in DNS, and what is missing there",
}


def models(kind: Any) -> Iterator[type[BaseModel]]:
    """Yield the models of an answer: of a page those of its rows."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        for part in get_args(kind):
            yield from models(part)
    elif rows := kind.model_fields.get("data"):
        yield from models(rows.annotation)
    else:
        yield kind


def read_with() -> dict[type[BaseModel], set[Scope]]:
    """Return the scopes of the routes that read each model."""
    found = defaultdict(set)
    for endpoint in ENDPOINTS:
        if endpoint.method == "GET" and endpoint.scope is not None:
            for model in models(endpoint.answers[endpoint.status].model):
                found[model].add(endpoint.scope)
    return found


def shows_too_much(endpoint: Endpoint, answer: Answer) -> bool:
    """Return whether a key with the scope of a change reads with `answer` what needs another scope."""
    for shown in models(answer.model):
        for read, scopes in read_with().items():
            if issubclass(shown, read) and endpoint.scope not in scopes:
                return answer.excerpt is None or answer.excerpt.scope not in scopes
    return False


def test_a_change_shows_what_a_read_shows_only_to_a_key_that_may_read_it() -> None:
    open_ = {e.name for e in CHANGES for answer in e.answers.values() if shows_too_much(e, answer)}
    assert open_ == WHOLE.keys()


def test_a_null_in_a_change_is_refused_wherever_a_field_may_be_left_out() -> None:
    bodies = [endpoint.body for endpoint in CHANGES if endpoint.method == "PATCH"]
    optional = [body for body in bodies if not all(f.is_required() for f in body.model_fields.values())]
    assert len(optional) > 3
    assert [body for body in optional if not issubclass(body, Change)] == []


def test_a_bulk_action_counts_what_matches_only_for_a_key_that_may_read_it() -> None:
    # Nothing is read of parked messages with another scope than they are changed with. Of deliveries the
    # handler chooses those that the key may read.
    open_ = {
        endpoint.scope
        for endpoint in CHANGES
        for answer in endpoint.answers.values()
        if BulkResult in getattr(answer.model, "__mro__", ()) and answer.excerpt is None
    }
    assert open_ == {Scope.WEBHOOKS_WRITE, Scope.ADMIN}


def test_every_action_that_can_be_tried_lets_the_server_ask_for_the_right_to_read() -> None:
    tried = [endpoint for endpoint in CHANGES if "dry_run" in getattr(endpoint.query, "model_fields", ())]
    assert all(issubclass(endpoint.query or object, DryRun) for endpoint in tried)
    assert {e.scope for e in tried if e not in DRY_RUNS} == {Scope.WEBHOOKS_WRITE, Scope.ADMIN}


@pytest.mark.parametrize("endpoint", DRY_RUNS, ids=lambda endpoint: endpoint.name)
async def test_a_dry_run_that_was_recorded_is_answered_only_to_a_key_that_may_read(
    endpoint: Endpoint,
) -> None:
    async def recorded(_: Call, __: Endpoint, ___: Effect) -> HttpReply:
        return HttpReply(document({"matched": 3, "changed": 2, "dry_run": True}), is_repeat=True)

    async def repeat(*scopes: Scope) -> httpx.Response:
        async def identify(_: str | None, __: str | None) -> Principal:
            return replace(MEMBER, scopes=frozenset(scopes))

        query = {"dry_run": "true"}
        if issubclass(endpoint.query or object, CreatedWithin):
            query["created_after"] = "2026-01-01T00:00:00Z"
        path = endpoint.template.format(**{name: uuid4() for name in endpoint.path_parameters})
        async with serving([endpoint], identify=identify, once=recorded) as client:
            return await client.post(path, params=query, headers={"idempotency-key": '"tried before"'})

    assert endpoint.scope is not None
    assert endpoint.dry_run_scope is not None
    refused = await repeat(endpoint.scope)
    assert endpoint.dry_run_scope in assert_problem(refused, 403, "forbidden")["detail"]
    assert (await repeat(endpoint.scope, endpoint.dry_run_scope)).json()["changed"] == 2


@pytest.mark.parametrize("answer", EXCERPTS)
def test_an_excerpt_has_fields_of_the_whole_answer_but_not_all(answer: Answer) -> None:
    assert answer.excerpt is not None
    assert answer.excerpt.model.model_fields.keys() < answer.model.model_fields.keys()
