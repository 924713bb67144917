"""Templates over HTTP, answered by the email service's own code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import uuid4

import pytest

from chassis.postgres import Postgres
from emailer.templates.answers import TemplateAnswers
from emailer.templates.rendering import TemplateRenderer
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

BODY = {"subject": "Welcome, {{ name }}", "html": "<p>Hello {{ name }}</p>"}


@pytest.fixture(scope="module")
async def listener(module_house: House) -> AsyncIterator[RunningGateway]:
    """Yield a gateway in front of the email service's answers about templates."""
    async with AsyncExitStack() as stack:
        postgres, renderer = Postgres(await module_house.database("emailer")), TemplateRenderer()
        await postgres.open()
        stack.push_async_callback(postgres.close)
        stack.push_async_callback(renderer.close)
        await module_house.double("email", TemplateAnswers(postgres, renderer, most_of_owner=100).table())
        yield await module_house.open()


async def created(listener: RunningGateway, **fields: Any) -> dict[str, Any]:
    answer = await listener.api.post("/v1/templates", json={"name": f"t-{uuid4()}", **BODY, **fields})
    assert answer.status_code == 201, answer.text
    assert (answer.headers["etag"], answer.json()["version"]) == ('"1"', 1)
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/templates/{found['name']}"
    return found


async def test_changing_a_template_needs_its_newest_version(listener: RunningGateway) -> None:
    made = await created(listener)
    path = f"/v1/templates/{made['name']}"
    assert (await listener.api.get(path)).json() == made
    assert_problem(await listener.api.put(path, json=BODY), 428, "precondition-required")
    stale = {"if-match": '"7"'}
    assert_problem(await listener.api.put(path, json=BODY, headers=stale), 412, "precondition-failed")
    answer = await listener.api.put(path, json={**BODY, "subject": "Second"}, headers={"if-match": '"1"'})
    assert (answer.status_code, answer.headers["etag"], answer.json()["version"]) == (200, '"2"', 2)
    assert (await listener.api.get(path, params={"version": 1})).json()["subject"] == BODY["subject"]
    versions = (await listener.api.get(f"{path}/versions")).json()
    assert [each["version"] for each in versions["data"]] == [2, 1]
    newest = (await listener.api.get(f"{path}/versions", params={"limit": "1"})).json()
    assert ([each["version"] for each in newest["data"]], newest["next_cursor"]) == ([2], 2)
    older = await listener.api.get(f"{path}/versions", params={"limit": "1", "cursor": "2"})
    assert [each["version"] for each in older.json()["data"]] == [1]
    assert made["name"] in [each["name"] for each in (await listener.api.get("/v1/templates")).json()["data"]]
    assert_problem(await listener.api.delete(path), 428, "precondition-required")
    assert (await listener.api.delete(path, headers={"if-match": "*"})).status_code == 204
    assert_problem(await listener.api.get(path), 404, "not-found")


async def test_changes_of_templates_are_recorded_with_their_versions(listener: RunningGateway) -> None:
    made = await created(listener)
    path, target = f"/v1/templates/{made['name']}", f"template:{made['name']}"
    await listener.api.put(path, json={**BODY, "subject": "Second"}, headers={"if-match": '"1"'})
    await listener.api.put(path, json=BODY, headers={"if-match": '"1"'})
    await listener.api.delete(path, headers={"if-match": "*"})
    entries = (await listener.api.get("/v1/admin/audit", params={"target": target})).json()["data"]
    assert [(entry["action"], entry["before"], entry["after"]) for entry in entries] == [
        ("template.deleted", {"version": 2}, None),
        ("template.changed", {"version": 1}, {"version": 2}),
        ("template.created", None, {"version": 1}),
    ]


async def test_a_preview_shows_the_mail_or_where_the_template_fails(listener: RunningGateway) -> None:
    made = await created(listener)
    path = f"/v1/templates/{made['name']}/preview"
    shown = await listener.api.post(path, json={"data": {"name": "<Ann>"}})
    assert (shown.status_code, shown.json()["subject"]) == (200, "Welcome, <Ann>")
    assert "Hello &lt;Ann&gt;" in shown.json()["html"]
    failed = await listener.api.post(path, json={})
    assert_problem(failed, 422, "invalid-input")
    assert failed.json()["errors"][0]["pointer"] == "/subject"
    assert "line 1" in failed.json()["errors"][0]["detail"]
    source = await listener.api.post("/v1/template-previews", json={"source": {**BODY, "html": "\n{% x %}"}})
    assert_problem(source, 422, "invalid-input")
    assert source.json()["errors"][0]["pointer"] == "/source/html"


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"html": "{{"}, "/html"),
        ({"mjml": "<mjml></mjml>"}, ""),
        ({"html": None}, ""),
        ({"name": "With Spaces"}, "/name"),
        ({"subject": "x" * 2001}, "/subject"),
        ({"html": "x" * 100_001}, "/html"),
    ],
    ids=["syntax", "two bodies", "no body", "name", "subject", "length"],
)
async def test_an_invalid_template_is_422(
    listener: RunningGateway, change: dict[str, Any], pointer: str
) -> None:
    answer = await listener.api.post("/v1/templates", json={"name": "t", **BODY, **change})
    assert_problem(answer, 422, "invalid-input")
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_a_repeated_creation_is_one_and_another_owner_sees_nothing(listener: RunningGateway) -> None:
    body, key = {"name": f"t-{uuid4()}", **BODY}, {"idempotency-key": f"k-{uuid4()}"}
    first = await listener.api.post("/v1/templates", json=body, headers=key)
    again = await listener.api.post("/v1/templates", json=body, headers=key)
    assert (first.status_code, again.status_code, again.json()) == (201, 201, first.json())
    assert_problem(await listener.api.post("/v1/templates", json=body), 409, "conflict")
    async with listener.client(await listener.new_key("templates:read")) as other:
        assert (await other.get("/v1/templates")).json() == {"data": [], "next_cursor": None}
        assert_problem(await other.get(f"/v1/templates/{body['name']}"), 404, "not-found")
        assert_problem(await other.post("/v1/templates", json=body), 403, "forbidden")


async def test_a_mail_has_a_template_or_words_of_its_own(listener: RunningGateway) -> None:
    used = {"to": ["ann@example.com"], "template": {"name": "welcome", "data": {"name": "Ann"}}}
    assert (await listener.api.post("/v1/emails", json=used)).status_code == 202
    large = {"name": "welcome", "data": {"a": "x" * 100_000}}
    for more in ({"text": "x"}, {"subject": "x"}, {"template": large}):
        assert_problem(await listener.api.post("/v1/emails", json={**used, **more}), 422, "invalid-input")
