"""Sender domains over HTTP, and mails that are judged by the gateway's copy; a double keeps the domains."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from chassis.broker.envelope import Delivery
from chassis.deadlines import Deadline
from chassis.errors import NotFound
from contracts.domains import (
    CreateDomain,
    DeleteDomain,
    Domain,
    DomainChanged,
    Domains,
    DomainStatus,
    GetDomain,
    ListDomains,
    RotateDkim,
    VerifyDomain,
)
from support.gateway_stack import House, RunningGateway
from support.problems import assert_problem

MAIL = {"to": "ann@example.com", "subject": "Hello", "text": "Hi"}


@dataclass
class Registry:
    """Keeps domains as email does; a check verifies a domain while `status` says so."""

    domains: dict[UUID, Domain] = field(default_factory=dict)
    asked: list[Any] = field(default_factory=list)
    status: DomainStatus = "verified"

    async def create(self, request: CreateDomain, _: Deadline) -> Domain:
        self.asked.append(request)
        made = Domain(
            id=request.domain_id,
            name=request.name,
            status="pending",
            version=1,
            created_at=datetime.now(UTC),
            return_path_host=f"bounces.{request.name}",
            records=[],
            dkim=[],
        )
        self.domains[made.id] = made
        return made

    async def get(self, request: GetDomain, _: Deadline) -> Domain:
        if request.domain_id not in self.domains:
            raise NotFound(f"There is no domain {request.domain_id}.")
        return self.domains[request.domain_id]

    async def list(self, request: ListDomains, _: Deadline) -> Domains:
        self.asked.append(request)
        return Domains(data=[*self.domains.values()], next_cursor=None)

    async def change(self, request: VerifyDomain | RotateDkim, deadline: Deadline) -> Domain:
        self.asked.append(request)
        before = await self.get(GetDomain(domain_id=request.domain_id, owner_id=request.owner_id), deadline)
        status = self.status if isinstance(request, VerifyDomain) else before.status
        verified_at = datetime.now(UTC) if status == "verified" else before.verified_at
        changed = before.model_copy(
            update={"version": before.version + 1, "status": status, "verified_at": verified_at}
        )
        self.domains[before.id] = changed
        return changed

    async def delete(self, request: DeleteDomain, deadline: Deadline) -> Domain:
        before = await self.get(GetDomain(domain_id=request.domain_id, owner_id=request.owner_id), deadline)
        return self.domains.pop(before.id)


@pytest.fixture(scope="module")
async def registry(module_house: House) -> Registry:
    registry = Registry()
    await module_house.double(
        "email",
        {
            CreateDomain: registry.create,
            GetDomain: registry.get,
            ListDomains: registry.list,
            VerifyDomain: registry.change,
            RotateDkim: registry.change,
            DeleteDomain: registry.delete,
        },
    )
    return registry


@pytest.fixture(scope="module")
async def strict(module_house: House, registry: Registry) -> AsyncIterator[RunningGateway]:
    """Yield a gateway that lets mails from verified domains in, and from one that its operator has named."""
    yield await module_house.open(allowed_sender_domains="shared.example")
    assert registry.asked


async def created(listener: RunningGateway, name: str) -> dict[str, Any]:
    answer = await listener.api.post("/v1/domains", json={"name": name})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def sent(listener: RunningGateway, sender: str | None) -> int:
    mail = MAIL if sender is None else {**MAIL, "from": sender}
    return (await listener.api.post("/v1/emails", json=mail)).status_code


async def test_a_domain_is_made_read_listed_and_recorded(strict: RunningGateway, registry: Registry) -> None:
    made = await strict.api.post("/v1/domains", json={"name": "Bücher.example"})
    domain = made.json()
    assert (domain["name"], domain["status"]) == ("xn--bcher-kva.example", "pending")
    assert made.headers["location"] == f"/v1/domains/{domain['id']}"
    read = await strict.api.get(made.headers["location"])
    assert read.headers["etag"] == made.headers["etag"]
    same = await strict.api.get(made.headers["location"], headers={"if-none-match": read.headers["etag"]})
    assert same.status_code == 304
    query = {"name": "BÜCHER.example", "status": "pending,lost", "limit": "7"}
    assert (await strict.api.get("/v1/domains", params=query)).json()["data"] == [domain]
    asked = registry.asked[-1]
    assert (asked.name, asked.status, asked.limit) == ("xn--bcher-kva.example", ["pending", "lost"], 7)
    trail = await strict.api.get("/v1/admin/audit", params={"target": f"domain:{domain['id']}"})
    (entry,) = trail.json()["data"]
    assert (entry["action"], entry["after"]["name"]) == ("domain.created", "xn--bcher-kva.example")


async def test_a_repeated_request_makes_one_domain(strict: RunningGateway, registry: Registry) -> None:
    before = len(registry.domains)
    again = {"idempotency-key": '"one domain"'}
    answers = [
        await strict.api.post("/v1/domains", json={"name": "once.example"}, headers=again) for _ in range(2)
    ]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotent-replayed"] == "true"
    assert answers[1].headers["etag"] == answers[0].headers["etag"]
    assert len(registry.domains) == before + 1


@pytest.mark.parametrize("name", ["acme", "a@acme.example", "", "x." * 100 + "example"])
async def test_an_invalid_domain_is_refused(strict: RunningGateway, name: str) -> None:
    answer = await strict.api.post("/v1/domains", json={"name": name})
    assert assert_problem(answer, 422, "invalid-input")["errors"][0]["pointer"] == "/name"


async def test_rotating_keys_needs_the_current_version_of_the_domain(
    strict: RunningGateway, registry: Registry
) -> None:
    path = f"/v1/domains/{(await created(strict, 'rotated.example'))['id']}"
    seen = (await strict.api.get(path)).headers["etag"]
    for method, address in (("POST", f"{path}/dkim/rotate"), ("DELETE", path)):
        assert_problem(await strict.api.request(method, address), 428, "precondition-required")
    rotated = await strict.api.post(f"{path}/dkim/rotate", headers={"if-match": seen})
    assert rotated.status_code == 200
    assert (registry.asked[-1].version, rotated.json()["version"]) == (1, 2)
    for method, address in (("POST", f"{path}/dkim/rotate"), ("DELETE", path)):
        stale = await strict.api.request(method, address, headers={"if-match": seen})
        assert_problem(stale, 412, "precondition-failed")
    removed = await strict.api.delete(path, headers={"if-match": rotated.headers["etag"]})
    assert removed.status_code == 204
    assert_problem(await strict.api.get(path), 404, "not-found")
    trail = await strict.api.get("/v1/admin/audit", params={"target": f"domain:{path.rpartition('/')[2]}"})
    actions = [entry["action"] for entry in trail.json()["data"]]
    assert actions == ["domain.deleted", "domain.keys-rotated", "domain.created"]


async def test_a_mail_goes_out_from_a_domain_as_long_as_it_is_verified(
    strict: RunningGateway, registry: Registry
) -> None:
    path = f"/v1/domains/{(await created(strict, 'acme.example'))['id']}"
    refused = await strict.api.post("/v1/emails", json={**MAIL, "from": "Acme <a@ACME.example>"})
    problem = assert_problem(refused, 422, "invalid-input")
    assert problem["errors"][0]["pointer"] == "/from"
    assert "/v1/domains" in problem["errors"][0]["detail"]
    registry.status = "pending"
    await strict.api.post(f"{path}/verify")
    assert await sent(strict, "a@acme.example") == 422
    registry.status = "verified"
    assert (await strict.api.post(f"{path}/verify")).json()["status"] == "verified"
    assert await sent(strict, "Acme <a@ACME.example>") == 202
    assert await sent(strict, "a@news.acme.example") == 422
    async with strict.client(await strict.new_key("emails:send", user_id=1)) as same_owner:
        answer = await same_owner.post("/v1/emails", json={**MAIL, "from": "b@acme.example"})
        assert answer.status_code == 202
    await strict.api.delete(path, headers={"if-match": "*"})
    assert await sent(strict, "a@acme.example") == 422


async def test_domains_that_were_never_verified_leave_nothing_behind(strict: RunningGateway) -> None:
    before = await strict.database.fetchval("SELECT count(*) FROM sender_domains")
    for number in range(3):
        path = f"/v1/domains/{(await created(strict, f'never-{number}.example'))['id']}"
        assert (await strict.api.delete(path, headers={"if-match": "*"})).status_code == 204
    assert await strict.database.fetchval("SELECT count(*) FROM sender_domains") == before


async def test_a_mail_without_a_sender_or_from_a_named_domain_is_taken(strict: RunningGateway) -> None:
    assert [await sent(strict, None), await sent(strict, "a@shared.example")] == [202, 202]


async def test_each_of_several_mails_is_judged_by_its_sender(strict: RunningGateway) -> None:
    mails = [MAIL, {**MAIL, "from": "a@other.example"}, {**MAIL, "from": "a@shared.example"}]
    strictly = await strict.api.post("/v1/emails/batch", json={"emails": mails})
    assert assert_problem(strictly, 422, "invalid-input")["errors"][0]["pointer"] == "/emails/1/from"
    kindly = await strict.api.post("/v1/emails/batch", json={"emails": mails, "mode": "permissive"})
    results = kindly.json()["results"]
    assert [result["status"] for result in results] == ["queued", "refused", "queued"]
    assert results[1]["errors"][0]["pointer"] == "/emails/1/from"


async def test_events_of_a_domain_are_ordered_by_their_version(strict: RunningGateway) -> None:
    domain_id, resources = uuid4(), strict.gateway.resources

    async def reported(*news: tuple[int, bool]) -> None:
        deliveries = [
            Delivery(
                message=DomainChanged(
                    domain_id=domain_id,
                    owner_id="1",
                    name="news.example",
                    is_verified=verified,
                    version=version,
                ),
                message_id=uuid4(),
                attempt=1,
                tenant="1",
                headers={},
            )
            for version, verified in news
        ]
        async with resources.runtime.postgres.transaction() as connection:
            await resources.senders.changed(connection, deliveries)
        resources.senders.forget("1", "news.example")

    await reported((3, True))
    assert await sent(strict, "a@news.example") == 202
    await reported((5, False), (4, True), (5, False))
    assert await sent(strict, "a@news.example") == 422


async def test_reading_needs_another_scope_than_changing(strict: RunningGateway) -> None:
    async with strict.client(await strict.new_key("emails:read")) as reader:
        assert (await reader.get("/v1/domains")).status_code == 200
        assert_problem(await reader.post("/v1/domains", json={"name": "a.example"}), 403, "forbidden")
    async with strict.client(await strict.new_key("domains:write")) as writer:
        assert_problem(await writer.get("/v1/domains"), 403, "forbidden")
