"""The whole way of a run whose owner has lost rights: due, refused, in the history, and without a task."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from chassis.broker.envelope import Delivery, new_id
from contracts.schedules import RefuseRun
from support import schedule_site
from support.gateway_stack import House
from support.problems import assert_problem
from support.schedule_site import HOURLY, ScheduleSite, accepted

SCOPES = ("schedules:write", "schedules:read", "batches:write", "batches:read", "admin")


@dataclass(frozen=True)
class Owner:
    """An administrator, a key of theirs that makes a schedule, and another one that reads its history."""

    user: int
    key_id: str
    maker: httpx.AsyncClient
    reader: httpx.AsyncClient


@pytest.fixture(scope="module")
async def site(module_house: House) -> AsyncIterator[ScheduleSite]:
    async with schedule_site.on(module_house) as made:
        yield made


@pytest.fixture
async def owner(site: ScheduleSite) -> AsyncIterator[Owner]:
    await site.world.clear()
    user = await site.listener.new_user(role="admin")
    maker, reader = [await site.listener.new_key(*SCOPES, user_id=user) for _ in range(2)]
    async with site.listener.client(maker) as by_maker, site.listener.client(reader) as by_reader:
        yield Owner(user, maker.split("_")[2], by_maker, by_reader)


async def demote(site: ScheduleSite, owner: Owner) -> None:
    await site.listener.change_user(owner.user, role="member")


async def disable(site: ScheduleSite, owner: Owner) -> None:
    await site.listener.change_user(owner.user, status="disabled")


async def revoke(site: ScheduleSite, owner: Owner) -> None:
    assert (await site.listener.api.delete(f"/v1/api-keys/{owner.key_id}")).status_code == 204


async def expire(site: ScheduleSite, owner: Owner) -> None:
    past = "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1"
    await site.listener.database.execute(past, owner.key_id)


async def keep(site: ScheduleSite, owner: Owner) -> None:
    """Lose nothing."""


def body(operation: str, **more: Any) -> Mapping[str, Any]:
    return {**HOURLY, "template": {"operation": operation, "payload": 1, **more}}


async def fire(site: ScheduleSite, path: str) -> list[dict[str, Any]]:
    """Let a schedule be due, and return what its run made the gateway send; refusals reach the history."""
    due = "UPDATE schedules SET due_at = now(), fire_at = now() WHERE id = $1"
    await site.world.rows(due, UUID(path.rsplit("/", 1)[1]))
    await site.world.firing.fire()
    async with accepted(site, *await site.world.events()) as commands:
        pass
    refusals = [
        RefuseRun(**{name: one[name] for name in ("run_id", "owner_id", "code", "detail")})
        for one in commands
        if one["_type"] == RefuseRun.message_type
    ]
    async with site.world.postgres.transaction() as connection:
        deliveries = [Delivery(one, new_id(), 1, one.owner_id, {}) for one in refusals]
        await site.world.firing.refuse(connection, deliveries)
    return commands


@pytest.mark.parametrize("lose", [demote, disable, revoke, expire])
@pytest.mark.parametrize("more", [{}, {"on_finished": {"operation": "administrative"}}])
async def test_a_due_run_is_refused_in_its_history_and_makes_no_task_once_its_right_is_lost(
    site: ScheduleSite,
    owner: Owner,
    lose: Callable[[ScheduleSite, Owner], Awaitable[None]],
    more: Mapping[str, Any],
) -> None:
    # Either the task itself needs the right, or the one that follows it.
    operation = "echo" if more else "administrative"
    made = await owner.maker.post("/v1/schedules", json=body(operation, **more))
    assert made.status_code == 201, made.text
    path = made.headers["location"]
    await lose(site, owner)
    commands = await fire(site, path)
    assert [one["_type"] for one in commands] == [RefuseRun.message_type]
    if lose is disable:
        assert_problem(await owner.reader.get(path), 401, "unauthenticated")
        await site.listener.change_user(owner.user, status="active")
    [run] = (await owner.reader.get(f"{path}/runs")).json()["data"]
    assert (run["status"], run["code"], run["trigger"]) == ("refused", "forbidden", "due")
    assert ("needs the scope admin" if lose is demote else "revoked or has expired") in run["detail"]
    assert_problem(await owner.reader.get(f"/v1/tasks/{run['id']}"), 404, "not-found")
    schedule = (await owner.reader.get(path)).json()
    assert (schedule["status"], schedule["last_run"]["id"]) == ("active", run["id"])


@pytest.mark.parametrize(("lose", "operation"), [(demote, "echo"), (keep, "administrative")])
async def test_a_run_that_needs_no_lost_right_is_made_with_the_rights_that_are_left(
    site: ScheduleSite,
    owner: Owner,
    lose: Callable[[ScheduleSite, Owner], Awaitable[None]],
    operation: str,
) -> None:
    made = await owner.maker.post("/v1/schedules", json=body(operation))
    await lose(site, owner)
    [command] = await fire(site, made.headers["location"])
    assert command["_type"] == "batch.create.v1"
    assert ("admin" in command["scopes"]) == (lose is keep)


async def test_the_right_to_run_again_that_came_back_lets_the_next_run_be_made(
    site: ScheduleSite, owner: Owner
) -> None:
    made = await owner.maker.post("/v1/schedules", json=body("administrative"))
    path = made.headers["location"]
    types = []
    for role in ("member", "admin"):
        await site.listener.change_user(owner.user, role=role)
        types.append((await fire(site, path))[-1]["_type"])
        await site.world.rows("DELETE FROM outbox")
    assert types == [RefuseRun.message_type, "batch.create.v1"]
