"""Suppressions over HTTP, with the answers of email on a database of their own behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from chassis.postgres import Postgres
from contracts.topology import EMAIL
from emailer.suppression.answers import SuppressionAnswers
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

CSV = {"content-type": "text/csv"}
LINES = {"content-type": "application/x-ndjson"}


@pytest.fixture
async def suppressing(house: House, shared_listener: RunningGateway) -> AsyncIterator[RunningGateway]:
    """Yield the shared gateway, with answers for email that keep at most 1,001 suppressions an owner."""
    postgres = Postgres(await house.database("emailer"))
    await postgres.open()
    await house.double(EMAIL, SuppressionAnswers(postgres, most_of_owner=1001).table)
    yield shared_listener
    await postgres.close()


async def add(api: httpx.AsyncClient, address: str, **fields: Any) -> dict[str, Any]:
    answer = await api.post("/v1/suppressions", json={"address": address, **fields})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/v1/suppressions/{found['id']}"
    return found


async def trail(listener: RunningGateway, target: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (
        await listener.api.get("/v1/admin/audit", params={"target": target})
    ).json()["data"]
    return found


async def test_a_suppression_is_added_once_read_and_lifted_by_its_owner_and_audited(
    suppressing: RunningGateway,
) -> None:
    body = {"address": "Ann@Example.com", "reason": "asked", "expires_at": "2199-01-01T00:00:00+01:00"}
    api, key = suppressing.api, {"idempotency-key": '"suppress ann"'}
    first = await api.post("/v1/suppressions", json=body, headers=key)
    again = await api.post("/v1/suppressions", json=body, headers=key)
    assert (first.status_code, again.json(), again.headers["idempotent-replayed"]) == (
        *(201, first.json(), "true"),
    )
    made = first.json()
    assert (made["address"], made["stream"], made["origin"]) == ("ann@example.com", "all", "manual")
    assert made["expires_at"] == "2198-12-31T23:00:00Z"
    path = f"/v1/suppressions/{made['id']}"
    assert (await api.get(path)).json() == made
    assert (await api.get("/v1/suppressions", params={"address": "ANN@example.com"})).json()["data"] == [made]
    async with suppressing.client(await suppressing.new_key("emails:read", "emails:send")) as other:
        assert (await other.get("/v1/suppressions")).json() == {"data": [], "next_cursor": None}
        for answer in (await other.get(path), await other.delete(path)):
            assert_problem(answer, 404, "not-found")
    assert (await api.delete(path)).status_code == 204
    assert_problem(await api.delete(path), 404, "not-found")
    lifted, added = await trail(suppressing, f"suppression:{made['id']}")
    assert (lifted["action"], lifted["before"]) == ("suppression.lifted", made)
    assert (added["action"], added["after"]) == ("suppression.added", made)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"address": "nobody"}, "/address"),
        ({"address": "Ann <ann@example.com>"}, "/address"),
        ({"stream": "none"}, "/stream"),
        ({"reason": "a\nb"}, "/reason"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"origin": "bounce"}, "/origin"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_an_invalid_suppression_is_refused(
    shared_listener: RunningGateway, change: dict[str, Any], pointer: str
) -> None:
    answer = await shared_listener.api.post("/v1/suppressions", json={"address": "ann@example.com"} | change)
    assert [error["pointer"] for error in assert_problem(answer, 422, "invalid-input")["errors"]] == [pointer]


async def test_an_export_can_be_imported_and_a_filter_lifts_suppressions(suppressing: RunningGateway) -> None:
    key = await suppressing.new_key("emails:read", "emails:send")
    async with suppressing.client(key) as api:
        for number in range(3):
            await add(api, f"r{number}@example.com", reason=f"=reason {number}")
        exports = {
            kind: (await api.get("/v1/suppressions", params={"format": kind})).content
            for kind in ("csv", "ndjson")
        }
        for headers, kind in ((CSV, "csv"), (LINES, "ndjson")):
            lift = {"origin": "manual,import"}
            seen = await api.post("/v1/suppressions/lift", params={**lift, "dry_run": "true"})
            done = await api.post("/v1/suppressions/lift", params=lift)
            assert (seen.json()["changed"], done.json()["changed"]) == (3, 3)
            answer = await api.post("/v1/suppressions/import", content=exports[kind], headers=headers)
            assert answer.json() == {"added": 3, "changed": 0, "skipped": 0, "refused": 0, "errors": []}
            found = (await api.get("/v1/suppressions")).json()["data"]
            assert sorted((one["address"], one["reason"]) for one in found) == [
                (f"r{number}@example.com", f"=reason {number}") for number in range(3)
            ]
            assert {one["origin"] for one in found} == {"import"}


async def test_a_key_that_only_sends_lifts_suppressions_but_does_not_count_them(
    suppressing: RunningGateway,
) -> None:
    async with suppressing.client(await suppressing.new_key("emails:send")) as api:
        lift = {"address": "ann@example.com"}
        await api.post("/v1/suppressions", json=lift)
        refused = await api.post("/v1/suppressions/lift", params={**lift, "dry_run": "true"})
        assert_problem(refused, 403, "forbidden")
        assert "emails:read" in refused.headers["www-authenticate"]
        done = await api.post("/v1/suppressions/lift", params=lift)
        assert done.json() == {"changed": 1, "dry_run": False, "complete": True}


async def test_a_key_that_only_sends_is_not_told_whether_an_address_was_suppressed_before(
    suppressing: RunningGateway,
) -> None:
    known = {"address": "ann@example.com"}
    async with suppressing.client(await suppressing.new_key("emails:send")) as api:
        first, second = [await api.post("/v1/suppressions", json=known) for _ in range(2)]
        imported = await api.post(
            "/v1/suppressions/import",
            content=b'{"address":"ann@example.com"}\n{"address":"bob@example.com"}\n',
            headers={"Content-Type": "application/x-ndjson"},
        )
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    # The id of an earlier one has the time of its creation in it.
    assert first.json().keys() == {"address", "stream", "origin", "reason", "expires_at"}
    assert "location" not in first.headers
    assert imported.json() == {"skipped": 0, "refused": 0, "errors": []}


async def test_an_import_takes_all_lines_or_only_the_valid_ones_that_fit(
    suppressing: RunningGateway,
) -> None:
    api = suppressing.api
    content = b"address,stream\nr1@example.com,bulk\nnobody,all\nr2@example.com,\n"
    strict = await api.post("/v1/suppressions/import", content=content, headers=CSV)
    assert assert_problem(strict, 422, "invalid-input")["errors"][0]["pointer"] == "/3/address"
    assert (await api.get("/v1/suppressions")).json()["data"] == []
    permissive = await api.post("/v1/suppressions/import?mode=permissive", content=content, headers=CSV)
    result = permissive.json()
    assert (result["added"], result["refused"], result["errors"][0]["pointer"]) == (2, 1, "/3/address")
    more = b"".join(b"m%d@example.com\n" % number for number in range(1000))
    full = await api.post("/v1/suppressions/import", content=b"address\n" + more, headers=CSV)
    assert_problem(full, 409, "too-many-suppressions")
    assert len((await api.get("/v1/suppressions")).json()["data"]) == 2
    strange = await api.post("/v1/suppressions/import", content=b"x", headers={"content-type": "text/plain"})
    assert_problem(strange, 415, "unsupported-media-type")


async def test_the_part_of_an_import_that_was_added_is_audited(suppressing: RunningGateway) -> None:
    content = b"address\n" + b"".join(b"m%d@example.com\n" % number for number in range(1002))
    before = len(await trail(suppressing, "suppression:import"))
    full = await suppressing.api.post("/v1/suppressions/import", content=content, headers=CSV)
    assert_problem(full, 409, "too-many-suppressions")
    entries = await trail(suppressing, "suppression:import")
    assert [entry["after"] for entry in entries[: len(entries) - before]] == [{"added": 1000, "changed": 0}]
