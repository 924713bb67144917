"""Schedules over HTTP, with the real answers of batch-processor, and the runs that the gateway accepts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from contracts.schedules import ScheduleFired
from support import schedule_site
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem
from support.schedule_site import HOURLY, TEMPLATE, ScheduleSite, accepted, fired

GUARDED = {**HOURLY, "template": {"operation": "guarded", "payload": 1}}


@pytest.fixture(scope="module")
async def site(module_house: House) -> AsyncIterator[ScheduleSite]:
    async with schedule_site.on(module_house) as made:
        yield made


@pytest.fixture(autouse=True)
async def _empty(site: ScheduleSite) -> None:
    await site.world.clear()


async def test_a_schedule_comes_back_as_it_was_written(site: ScheduleSite) -> None:
    written = f'{{"name":"hourly","cron":"0 * * * *","time_zone":"Europe/Berlin","template":{TEMPLATE}}}'
    headers = {"content-type": "application/json"}
    made = await site.listener.api.post("/v1/schedules", content=written, headers=headers)
    assert made.status_code == 201, made.text
    found = await site.listener.api.get(made.headers["location"])
    listed = await site.listener.api.get("/v1/schedules", params={"status": "active", "operation": "echo"})
    for answer in (made, found, listed):
        assert f'"template":{TEMPLATE}' in answer.text
    assert found.headers["etag"] == made.headers["etag"]
    schedule = found.json()
    assert (schedule["overlap"], schedule["missed"], schedule["kind"]) == ("skip", "once", "task")
    assert (schedule["status"], len(schedule["next_runs"]), schedule["last_run"]) == ("active", 5, None)
    assert schedule["next"]["what"] == "its next run"
    coming = await site.listener.api.get(f"{made.headers['location']}/next-runs", params={"limit": 7})
    assert coming.json()["data"][:5] == schedule["next_runs"]
    assert len(coming.json()["data"]) == 7
    assert listed.json()["next_cursor"] is None


async def test_a_schedule_is_read_changed_and_ended_by_its_owner_only(site: ScheduleSite) -> None:
    made = await site.create()
    path = made.headers["location"]
    key = await site.listener.new_key("schedules:read", "schedules:write", "batches:write")
    async with site.listener.client(key) as other:
        assert (await other.get("/v1/schedules")).json() == {"data": [], "next_cursor": None}
        for answer in (
            await other.get(path),
            await other.get(f"{path}/runs"),
            await other.get(f"{path}/next-runs"),
            await other.patch(path, json={"name": "mine"}, headers={"if-match": "*"}),
            await other.delete(path, headers={"if-match": "*"}),
            await other.post(f"{path}/run"),
            await other.post(f"{path}/pause"),
        ):
            assert_problem(answer, 404, "schedule-not-found")


async def test_a_change_names_the_version_that_was_seen(site: ScheduleSite) -> None:
    made = await site.create()
    path, seen = made.headers["location"], made.headers["etag"]
    assert_problem(await site.listener.api.patch(path, json={"name": "b"}), 428, "precondition-required")
    assert_problem(await site.listener.api.delete(path), 428, "precondition-required")
    # A run in between is no change.
    assert (await site.listener.api.post(f"{path}/run")).status_code == 202
    assert (await site.listener.api.get(path)).headers["etag"] != seen
    changed = await site.listener.api.patch(
        path, json={"name": "b", "cron": "5 4 * * *"}, headers={"if-match": seen}
    )
    assert (changed.status_code, changed.json()["name"], changed.json()["cron"]) == (200, "b", "5 4 * * *")
    for answer in (
        await site.listener.api.patch(path, json={"name": "c"}, headers={"if-match": seen}),
        await site.listener.api.delete(path, headers={"if-match": seen}),
    ):
        assert_problem(answer, 412, "precondition-failed")
    current = {"if-match": changed.headers["etag"]}
    assert (await site.listener.api.delete(path, headers=current)).status_code == 204
    assert_problem(await site.listener.api.get(path), 404, "schedule-not-found")
    made_id = path.rsplit("/", 1)[1]
    assert await site.audited(made_id) == [
        "schedule.created",
        "schedule.triggered",
        "schedule.changed",
        "schedule.deleted",
    ]


async def test_a_schedule_is_304_for_its_entity_tag_until_a_run_changes_it(site: ScheduleSite) -> None:
    made = await site.create()
    path, known = made.headers["location"], {"if-none-match": made.headers["etag"]}
    assert (await site.listener.api.get(path, headers=known)).status_code == 304
    await site.listener.api.post(f"{path}/run")
    assert (await site.listener.api.get(path, headers=known)).json()["last_run"]["trigger"] == "manual"


async def test_the_rights_of_the_runs_are_needed_to_make_change_resume_and_run(site: ScheduleSite) -> None:
    guarded, free = await site.create(GUARDED), await site.create()
    writer = await site.listener.new_key("schedules:write", "batches:write", user_id=1)
    without_batches = await site.listener.new_key("schedules:write", user_id=1)
    path, free_path = guarded.headers["location"], free.headers["location"]
    anything = {"if-match": "*"}
    async with site.listener.client(writer) as client:
        following = {**HOURLY["template"], "on_finished": {"operation": "guarded"}}  # type: ignore[dict-item]
        for answer in (
            await client.post("/v1/schedules", json=GUARDED),
            await client.post("/v1/schedules", json={**HOURLY, "template": following}),
            await client.patch(path, json={"name": "b"}, headers=anything),
            await client.patch(free_path, json={"template": GUARDED["template"]}, headers=anything),
            await client.post(f"{path}/resume"),
            await client.post(f"{path}/run"),
        ):
            assert_problem(answer, 403, "forbidden")
            assert "emails:send" in answer.headers["www-authenticate"]
        for answer in (
            await client.post(f"{path}/pause"),
            await client.patch(free_path, json={"name": "b"}, headers=anything),
        ):
            assert answer.json()["status"] in ("paused", "active")
            assert answer.json().keys() == {"id", "status", "changed_at", "next"}
        assert_problem(await client.get(path), 403, "forbidden")
    async with site.listener.client(without_batches) as client:
        refused = await client.post("/v1/schedules", json=HOURLY)
        assert "batches:write" in refused.headers["www-authenticate"]
    assert (await site.listener.api.post(f"{path}/resume")).json()["status"] == "active"


@pytest.mark.parametrize("is_first_whole", [True, False])
@pytest.mark.parametrize(("method", "action"), [("POST", "/pause"), ("PATCH", "")])
async def test_a_repeated_change_shows_the_template_only_to_a_key_that_may_read_it(
    site: ScheduleSite, method: str, action: str, is_first_whole: bool
) -> None:
    path = (await site.create()).headers["location"]
    sent: dict[str, Any] = {"headers": {"idempotency-key": uuid4().hex}}
    if method == "PATCH":
        sent = {"headers": {**sent["headers"], "if-match": "*"}, "json": {"name": "b"}}
    writer = await site.listener.new_key("schedules:write", "batches:write", user_id=1)
    async with site.listener.client(writer) as client:
        callers = [site.listener.api, client] if is_first_whole else [client, site.listener.api]
        first, again = [await one.request(method, path + action, **sent) for one in callers]
    assert again.headers["idempotent-replayed"] == "true"
    assert ["template" in first.json(), "template" in again.json()] == [is_first_whole, not is_first_whole]


async def test_the_same_key_makes_one_schedule_and_one_run_even_where_an_answer_was_lost(
    site: ScheduleSite,
) -> None:
    key = {"idempotency-key": uuid4().hex}
    made = await site.create(HOURLY, **key)
    run_path = f"{made.headers['location']}/run"
    run = await site.listener.api.post(run_path, headers=key | {"idempotency-key": "r" + uuid4().hex})
    assert run.status_code == 202, run.text
    again = await site.create(HOURLY, **key)
    assert again.headers["idempotent-replayed"] == "true"
    await site.listener.database.execute("DELETE FROM idempotency")
    assert (await site.create(HOURLY, **key)).headers["location"] == made.headers["location"]
    ran = await site.listener.api.post(run_path, headers=dict(run.request.headers))
    assert ran.json()["id"] == run.json()["id"]
    assert run.headers["location"] == f"/v1/tasks/{run.json()['id']}"


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer"),
    [
        ({"cron": "every minute or so"}, 422, "invalid-input", "/cron"),
        ({"time_zone": "Mars/Olympus"}, 422, "invalid-input", "/time_zone"),
        ({"missed": "all"}, 422, "invalid-input", "/missed"),
        ({"template": {"operation": "nothing"}}, 422, "unknown-operation", "/template/operation"),
        ({"template": {"operation": "numbers", "payload": "x"}}, 422, "invalid-input", "/template/payload"),
        (
            {"template": {"operation": "numbers", "items": [1, "x"]}},
            422,
            "invalid-input",
            "/template/items/1",
        ),
        ({"template": {"operation": "echo", "payload": "x" * 65_536}}, 422, "invalid-input", "/template"),
        ({"seconds": 5}, 422, "invalid-input", "/seconds"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_schedule_that_could_not_run_is_refused(
    site: ScheduleSite, change: dict[str, Any], status: int, code: str, pointer: str | None
) -> None:
    answer = await site.listener.api.post("/v1/schedules", json={**HOURLY, **change})
    assert_problem(answer, status, code)
    assert pointer is None or pointer in [error["pointer"] for error in answer.json()["errors"]]


async def test_a_cron_or_time_zone_that_is_refused_says_what_it_must_be(site: ScheduleSite) -> None:
    fields = "cron must be five fields, minute hour day-of-month month day-of-week"
    for change, detail in (
        ({"cron": "@daily"}, fields),
        ({"cron": "0 * * *"}, fields),
        ({"time_zone": "Mars/Base"}, "time_zone 'Mars/Base' is not a time zone in the IANA database."),
    ):
        refused = assert_problem(
            await site.listener.api.post("/v1/schedules", json={**HOURLY, **change}), 422, "invalid-input"
        )
        assert refused["detail"].startswith(detail)


async def test_runs_are_listed_in_pages_and_by_filters(site: ScheduleSite) -> None:
    made = await site.create({**HOURLY, "overlap": "queue"})
    path = made.headers["location"]
    ran = [(await site.listener.api.post(f"{path}/run")).json() for _ in range(3)]
    first = (await site.listener.api.get(f"{path}/runs", params={"limit": 2})).json()
    rest = (await site.listener.api.get(f"{path}/runs", params={"cursor": first["next_cursor"]})).json()
    assert first["data"] + rest["data"] == ran[::-1]
    waiting = (await site.listener.api.get(f"{path}/runs", params={"status": "waiting"})).json()
    assert [run["id"] for run in waiting["data"]] == [run["id"] for run in ran[:0:-1]]
    none = await site.listener.api.get(f"{path}/runs", params={"trigger": "due,catch-up"})
    assert none.json()["data"] == []


async def test_a_schedule_that_is_busy_is_not_run_beside_itself(site: ScheduleSite) -> None:
    path = (await site.create()).headers["location"]
    assert (await site.listener.api.post(f"{path}/run")).status_code == 202
    assert_problem(await site.listener.api.post(f"{path}/run"), 409, "schedule-busy")


async def test_runs_are_accepted_like_tasks_and_batches_with_the_rights_of_now(site: ScheduleSite) -> None:
    user = await site.listener.new_user()
    key = (await site.listener.new_key("batches:write", "quotes:read", user_id=user)).split("_")[2]
    of_batch = '{"operation":"echo","items":[1.10,{"custom_id":"b","payload":2}],"expires_in_s":60}'
    runs = [fired(user, key), fired(user, key, kind="batch", template=of_batch)]
    began_at = datetime.now(UTC)
    async with accepted(site, *runs) as commands:
        task, batch = commands
    assert [(one["_type"], one["_kind"]) for one in commands] == [
        ("batch.create.v1", "task"),
        ("batch.create.v1", "batch"),
    ]
    assert (task["batch_id"], task["owner_id"]) == (str(runs[0].run_id), str(user))
    assert task["scopes"] == ["batches:write", "quotes:read"]
    assert task["metadata"] == {
        "report": "daily",
        "schedule_id": str(runs[0].schedule_id),
        "due_at": "2026-11-27T12:00:00Z",
    }
    assert '"items":[{"payload":{"price": 1.10}}]' in task["_body"]
    assert '"items":[{"payload":1.10},{"custom_id":"b","payload":2}]' in batch["_body"]
    expires_at = datetime.fromisoformat(batch["expires_at"])
    minute = timedelta(seconds=60)
    assert began_at + minute <= expires_at <= datetime.now(UTC) + minute


async def nothing(listener: RunningGateway, key_id: str, user: int) -> None:
    """Leave the key unchanged: it has never had the scope of the operation."""


async def without_right(listener: RunningGateway, key_id: str, user: int) -> None:
    await listener.database.execute("UPDATE api_keys SET scopes = '{schedules:write}' WHERE id = $1", key_id)


async def revoked(listener: RunningGateway, key_id: str, user: int) -> None:
    await listener.database.execute("UPDATE api_keys SET revoked_at = now() WHERE id = $1", key_id)


async def disabled(listener: RunningGateway, key_id: str, user: int) -> None:
    await listener.change_user(user, status="disabled")


@pytest.mark.parametrize(
    ("lose", "operation", "code"),
    [
        (nothing, "guarded", "forbidden"),
        (nothing, "gone", "unknown-operation"),
        (nothing, "numbers", "invalid-input"),
        (without_right, "echo", "forbidden"),
        (revoked, "echo", "forbidden"),
        (disabled, "echo", "forbidden"),
    ],
)
async def test_a_run_whose_maker_may_not_make_it_any_more_is_refused_and_its_neighbour_is_not(
    site: ScheduleSite, lose: Callable[..., Any], operation: str, code: str
) -> None:
    user, other = await site.listener.new_user(), await site.listener.new_user()
    lost = (await site.listener.new_key("batches:write", user_id=user)).split("_")[2]
    kept = (await site.listener.new_key("batches:write", user_id=other)).split("_")[2]
    await lose(site.listener, lost, user)
    template = TEMPLATE.replace("echo", operation)
    runs = [fired(user, lost, template=template), fired(other, kept), fired(user, kept)]
    async with accepted(site, *runs) as commands:
        pass
    made = [one["batch_id"] for one in commands if one["_type"] == "batch.create.v1"]
    refused = {one["run_id"]: one for one in commands if one["_type"] == "schedules.refuse-run.v1"}
    assert made == [str(runs[1].run_id)]
    assert refused.keys() == {str(runs[0].run_id), str(runs[2].run_id)}
    assert refused[str(runs[0].run_id)]["code"] == code
    assert refused[str(runs[0].run_id)]["owner_id"] == str(user)


async def test_a_run_of_a_token_has_its_scopes_within_the_rights_of_its_user_now(site: ScheduleSite) -> None:
    user = await site.listener.new_user()
    guarded = '{"operation":"guarded"}'
    scopes = ["admin", "batches:write", "quotes:read"]

    def runs() -> list[ScheduleFired]:
        return [
            fired(user, f"jwt:{uuid4()}", scopes=scopes),
            fired(
                user,
                f"jwt:{uuid4()}",
                scopes=[*scopes, "emails:send", "of a later release"],
                template=guarded,
            ),
            # The token could not do this when it was there, although its user may.
            fired(user, f"jwt:{uuid4()}", scopes=scopes, template=guarded),
            # What the token could do is not known.
            fired(user, f"jwt:{uuid4()}"),
        ]

    async with accepted(site, *runs()) as commands:
        pass
    refusal = "schedules.refuse-run.v1"
    assert sorted(one["_type"] for one in commands) == ["batch.create.v1"] * 2 + [refusal] * 2
    created = [one for one in commands if one["_type"] == "batch.create.v1"]
    assert created[0]["scopes"] == ["batches:write", "quotes:read"], "the user does not administer"
    await site.listener.change_user(user, status="disabled")
    async with accepted(site, *runs()) as commands:
        pass
    assert [one["_type"] for one in commands] == [refusal] * 4


async def test_a_run_that_was_given_up_or_cannot_be_read_is_refused(site: ScheduleSite) -> None:
    user = await site.listener.new_user()
    key = (await site.listener.new_key("batches:write", user_id=user)).split("_")[2]
    old = fired(user, key, fired_at=datetime.now(UTC) - timedelta(hours=25))
    odd = fired(user, key, template='{"operation":"echo","colour":"red"}')
    async with accepted(site, old, odd) as commands:
        pass
    assert [one["code"] for one in commands] == ["not-accepted", "invalid-template"]
    assert {UUID(one["run_id"]) for one in commands} == {old.run_id, odd.run_id}
