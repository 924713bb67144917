"""The retention of mails over HTTP, with the answers of email on a database of their own behind."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from chassis.postgres import Postgres
from contracts.topology import EMAIL
from emailer.retention.answers import RetentionAnswers
from emailer.retention.removal import Retention
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

OWN = "/v1/emails/retention"


@pytest.fixture
async def listener(house: House, shared_listener: RunningGateway) -> AsyncIterator[RunningGateway]:
    """Yield the shared gateway, with answers about retention."""
    postgres = Postgres(await house.database("emailer"))
    await postgres.open()
    await house.double(EMAIL, RetentionAnswers(postgres, Retention()).table)
    yield shared_listener
    await postgres.close()


async def test_an_owner_changes_its_retention_at_the_version_it_has_read(listener: RunningGateway) -> None:
    user_id = await listener.new_user()
    async with listener.client(await listener.new_key("emails:read", "emails:send", user_id=user_id)) as api:
        read = await api.get(OWN)
        assert read.json() == {
            "content_days": 7,
            "record_days": 90,
            "chosen_content_days": None,
            "chosen_record_days": None,
            "most_content_days": 90,
            "most_record_days": 400,
            "version": 0,
            "changed_at": None,
        }
        assert_problem(await api.put(OWN, json={"content_days": 1}), 428, "precondition-required")
        seen = {"if-match": read.headers["etag"]}
        changed = await api.put(OWN, json={"content_days": 1.5, "record_days": 30}, headers=seen)
        assert changed.status_code == 200, changed.text
        assert (changed.json()["content_days"], changed.json()["record_days"]) == (1.5, 30)
        again = await api.get(OWN)
        assert (again.json(), again.headers["etag"]) == (changed.json(), changed.headers["etag"])
        assert (await api.get(OWN, headers={"if-none-match": changed.headers["etag"]})).status_code == 304
        late = await api.put(OWN, json={"content_days": 2}, headers=seen)
        assert_problem(late, 412, "precondition-failed")
    entry = (await listener.api.get("/v1/admin/audit", params={"target": f"retention:{user_id}"})).json()[
        "data"
    ]
    assert [(row["action"], row["before"], row["after"]) for row in entry] == [
        (
            "retention.changed",
            {"chosen_content_days": None, "chosen_record_days": None},
            {"chosen_content_days": 1.5, "chosen_record_days": 30},
        )
    ]


@pytest.mark.parametrize(
    ("days", "pointer"),
    [
        ({"content_days": 91}, "/content_days"),
        ({"content_days": -1}, "/content_days"),
        ({"content_days": "7"}, "/content_days"),
        ({"content_days": True}, "/content_days"),
        ({"record_days": 1e9}, "/record_days"),
        ({"record_days": 1}, "/record_days"),
        ({"attachment_days": 1}, "/attachment_days"),
    ],
)
async def test_days_that_are_not_allowed_are_refused_with_a_pointer(
    listener: RunningGateway, days: dict[str, object], pointer: str
) -> None:
    refused = await listener.api.put(OWN, json=days, headers={"if-match": "*"})
    assert [error["pointer"] for error in assert_problem(refused, 422, "invalid-input")["errors"]] == [
        pointer
    ]


async def test_an_administrator_changes_it_for_any_user_and_nobody_else_does(
    listener: RunningGateway,
) -> None:
    user_id = await listener.new_user()
    async with listener.client(await listener.new_key("emails:read", "emails:send", user_id=user_id)) as api:
        path = f"/v1/admin/emails/retention/{user_id}"
        changed = await listener.api.put(path, json={"record_days": 400}, headers={"if-match": "*"})
        assert changed.status_code == 200, changed.text
        assert (await api.get(OWN)).json() == (await listener.api.get(path)).json() == changed.json()
        assert (await listener.api.get(OWN)).json()["version"] == 0
        assert_problem(await api.get(path), 403, "forbidden")
        assert_problem(await api.put(path, json={}, headers={"if-match": "*"}), 403, "forbidden")
    unknown = await listener.api.get("/v1/admin/emails/retention/999999")
    assert_problem(unknown, 404, "not-found")
    async with listener.client(await listener.new_key("emails:read")) as api:
        assert_problem(await api.put(OWN, json={}, headers={"if-match": "*"}), 403, "forbidden")
