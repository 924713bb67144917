"""What a read shows with a scope, a change shows with that scope only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from contracts.scopes import Scope
from gateway.http.endpoints import Answer, Endpoint
from gateway.http.filters import BulkResult
from support import declared_gateway

ENDPOINTS = declared_gateway.create().server.endpoints
CHANGES = [endpoint for endpoint in ENDPOINTS if endpoint.method != "GET"]
EXCERPTS = [
    pytest.param(answer, id=f"{endpoint.name}.{status}")
    for endpoint in ENDPOINTS
    for status, answer in endpoint.answers.items()
    if answer.excerpt is not None
]

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


def test_a_bulk_action_counts_what_matches_only_for_a_key_that_may_read_it() -> None:
    # Nothing is read of webhooks and parked messages with another scope than they are changed with.
    open_ = {
        endpoint.scope
        for endpoint in CHANGES
        for answer in endpoint.answers.values()
        if BulkResult in getattr(answer.model, "__mro__", ()) and answer.excerpt is None
    }
    assert open_ == {Scope.WEBHOOKS_WRITE, Scope.ADMIN}


@pytest.mark.parametrize("answer", EXCERPTS)
def test_an_excerpt_has_fields_of_the_whole_answer_but_not_all(answer: Answer) -> None:
    assert answer.excerpt is not None
    assert answer.excerpt.model.model_fields.keys() < answer.model.model_fields.keys()
