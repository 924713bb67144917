"""The limits of a key on real servers: exact over two gateways on one database, for every way in."""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
from collections import Counter
from typing import Any

import asyncpg
import httpx
import pytest

from chassis import queries
from gateway.http.rates import RateClass
from gateway.identity import keys
from gateway.limits import exchange, repository, service
from gateway.limits.leases import Question
from support.gateway_stack import Connect, House, OpenTalk, RunningGateway
from support.problems import assert_problem
from support.rate_windows import RateWindows
from support.waiting import until

_DAY_S = 86_400


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let gateways wait for the database and for each other, however busy the machine is.

    Where an answer is late a gateway counts alone, and where tokens come back late it refuses: then the limit
    is not exact, and need not be.
    """
    monkeypatch.setattr(exchange, "ANSWERED_WITHIN_S", 60)
    monkeypatch.setattr(service, "RETURNED_WITHIN_S", 60)


async def two_gateways(house: House, limits: str) -> tuple[RunningGateway, RunningGateway]:
    """Return two gateways on one database."""
    dsn, key = await house.database(), str(keys.new_key())
    one = await house.open(dsn=dsn, bootstrap_key=key, rate_limits=limits)
    return one, await house.open(dsn=dsn, bootstrap_key=key, rate_limits=limits)


def left(answer: httpx.Response) -> int:
    """Return what is left of a limit as an answer says."""
    found = re.fullmatch(r'"[a-z]+";r=(\d+);t=\d+', answer.headers["ratelimit"])
    assert found is not None
    return int(found[1])


async def used(listener: RunningGateway, rate: str) -> dict[str, Any]:
    """Return the usage of a class as a gateway tells it."""
    answer = (await listener.api.get("/v1/me/usage")).json()
    assert answer["shared"] is True
    return next(one for one in answer["data"] if one["name"] == rate)


@pytest.mark.usefixtures("patient")
async def test_exactly_the_limit_passes_over_two_gateways(house: House) -> None:
    one, other = await two_gateways(house, f"read=60/{_DAY_S}")
    requests = [listener.api.get("/v1/me") for _ in range(40) for listener in (one, other)]
    began = time.time()
    answers = await asyncio.gather(*requests)
    assert Counter(answer.status_code for answer in answers) == {200: 60, 429: 20}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert_problem(refused, 429, "rate-limited")
    least_s, most_s = (math.ceil(_DAY_S - at % _DAY_S) for at in (time.time(), began))
    assert least_s <= int(refused.headers["retry-after"]) <= most_s
    assert refused.headers.get_list("ratelimit-policy") == [f'"read";q=60;w={_DAY_S}']
    assert left(refused) == 0


@pytest.mark.usefixtures("patient")
async def test_alternating_requests_pass_exactly_up_to_the_limit_and_returned_tokens_serve_the_other_gateway(
    house: House,
) -> None:
    one, other = await two_gateways(house, f"read=80/{_DAY_S}")
    by_turns = [await listener.api.get("/v1/me") for _ in range(10) for listener in (one, other)]
    # The first gateway holds some more; the second one gets them as soon as they are returned.
    rest = [await other.api.get("/v1/me") for _ in range(70)]
    assert [answer.status_code for answer in by_turns] == [200] * 20
    assert [answer.status_code for answer in rest] == [200] * 60 + [429] * 10


@pytest.mark.usefixtures("patient")
async def test_usage_agrees_with_the_headers_and_between_gateways(house: House) -> None:
    one, other = await two_gateways(house, f"read=1000/{_DAY_S},write=500/{_DAY_S}")
    for listener, number in ((one, 30), (other, 20)):
        for _ in range(number):
            await listener.api.get("/v1/me")
    body = {"ttl_s": 60}
    posted = await one.api.post("/v1/realtime/tokens", json=body)
    assert (posted.headers["ratelimit-policy"], left(posted)) == (f'"write";q=500;w={_DAY_S}', 499)

    async def agrees() -> bool:
        # Each question counts, too.
        found = [await used(listener, "read") for listener in (one, other)]
        first, second = (usage["used"] for usage in found)
        return bool(second == first + 1)

    await until(agrees)
    asked = await other.api.get("/v1/me/usage")
    reads, writes = asked.json()["data"]
    assert (reads["name"], reads["limit"], reads["window_s"]) == ("read", 1000, _DAY_S)
    assert reads["remaining"] == 1000 - reads["used"] == left(asked)
    assert (writes["name"], writes["used"], writes["remaining"]) == ("write", 1, 499)
    assert reads["resets_at"] == writes["resets_at"]


async def test_each_key_has_a_limit_of_its_own(house: House) -> None:
    listener = await house.open(rate_limits=f"read=5/{_DAY_S}")
    key = await listener.new_key("quotes:read")
    async with listener.client(key) as client:
        assert [(await client.get("/v1/me")).status_code for _ in range(6)] == [200] * 5 + [429]
    assert (await listener.api.get("/v1/me")).status_code == 200


@pytest.mark.usefixtures("patient")
async def test_all_keys_of_a_user_together_have_a_multiple_of_the_limit(house: House) -> None:
    dsn, key = await house.database(), str(keys.new_key())
    one, other = [
        await house.open(
            dsn=dsn, bootstrap_key=key, rate_limits=f"read=10/{_DAY_S}", rate_limit_owner_factor=2
        )
        for _ in range(2)
    ]
    user_id = await one.new_user()
    made = [await one.new_key("quotes:read", user_id=user_id) for _ in range(4)]
    statuses: Counter[int] = Counter()
    for listener in (one, other):
        for secret in made:
            async with listener.client(secret) as client:
                answers = await asyncio.gather(*(client.get("/v1/me") for _ in range(8)))
            statuses.update(answer.status_code for answer in answers)
    assert statuses == {200: 20, 429: 44}
    # A new key has spent nothing itself, and its user has nothing left.
    async with one.client(await one.new_key("quotes:read", user_id=user_id)) as client:
        refused = await client.get("/v1/me")
    assert_problem(refused, 429, "rate-limited")
    assert refused.headers["ratelimit-policy"] == (f'"read";q=10;w={_DAY_S}, "read-owner";q=20;w={_DAY_S}')
    assert '"read";r=10;t=' in refused.headers["ratelimit"]
    assert '"read-owner";r=0;t=' in refused.headers["ratelimit"]
    assert (await one.api.get("/v1/me")).status_code == 200


@pytest.mark.usefixtures("patient")
async def test_the_usage_says_what_all_keys_of_the_user_have_used(house: House) -> None:
    one, other = await two_gateways(house, f"write=100/{_DAY_S}")
    user_id, body = await one.new_user(), {"ttl_s": 60}
    first, second = [await one.new_key("quotes:read", user_id=user_id) for _ in range(2)]
    async with other.client(second) as client:
        for _ in range(3):
            assert (await client.post("/v1/realtime/tokens", json=body)).status_code == 200
    async with one.client(first) as client:
        assert (await client.post("/v1/realtime/tokens", json=body)).status_code == 200

        async def agrees() -> bool:
            (usage,) = (await client.get("/v1/me/usage")).json()["data"]
            return (usage["used"], usage["owner"]) == (1, {"limit": 500, "used": 4, "remaining": 496})

        await until(agrees)


async def test_a_mail_counts_once_for_each_recipient_by_every_way_in(house: House) -> None:
    listener = await house.open(rate_limits=f"send=20/{_DAY_S}")
    to = [f"u{number}@example.com" for number in range(4)]
    mail = {"to": to[:2], "cc": to[2:], "subject": "s", "text": "t"}
    sent = await listener.api.post("/v1/emails", json=mail)
    assert (sent.status_code, left(sent)) == (202, 16)
    several = await listener.api.post("/v1/emails/batch", json={"emails": [mail, mail]})
    assert (several.status_code, left(several)) == (202, 8)
    short = await listener.api.post("/send-email", json={"to": to, "subject": "s", "body": "t"})
    assert (short.status_code, left(short)) == (202, 4)
    refused = await listener.api.post("/v1/emails/batch", json={"emails": [mail, mail]})
    assert_problem(refused, 429, "rate-limited")
    too_many = await listener.api.post("/v1/emails/batch", json={"emails": [mail] * 6})
    assert_problem(too_many, 422, "invalid-input")


async def test_sockets_count_in_the_limits_of_their_key_and_get_error_111(
    house: House, connect: Connect, talk: OpenTalk
) -> None:
    listener = await house.open(rate_limits=f"chat=4/{_DAY_S},read=3/{_DAY_S}")
    post = {"channel": "chat:lobby", "data": {"text": "x"}}
    async with talk(listener) as client:
        assert await client.ask(publish=post) == {}
        assert (await listener.api.post("/v1/rooms/lobby/messages", json={"text": "x"})).status_code == 201
        token = (await listener.api.post("/v1/realtime/tokens", json={"ttl_s": 60})).json()["token"]
        async with talk(listener, token) as with_token:
            assert await with_token.ask(publish=post) == {}
        headers = {"authorization": f"Bearer {listener.admin_key}"}
        async with connect(listener, "/ws", headers=headers) as lobby:
            await lobby.send("x")
            assert "Message received: x" in str(await lobby.recv())
            await lobby.send("y")
            assert "Error: " in str(await lobby.recv())
        assert {"code": 111, "temporary": True}.items() <= (await client.ask(publish=post)).items()
        assert "data" in await client.ask(rpc={"method": "getMe"})
        assert "publications" in await client.ask(history={"channel": "chat:lobby"})
        assert (await listener.api.get("/v1/me")).status_code == 200
        assert (await client.ask(rpc={"method": "getMe"}))["code"] == 111
        assert (await client.ask(history={"channel": "chat:lobby"}))["code"] == 111


async def test_event_streams_and_short_routes_count_as_what_they_are(house: House) -> None:
    listener = await house.open(rate_limits=f"read=2/{_DAY_S},batch=1/{_DAY_S}")
    for _ in range(2):
        answer = await listener.api.get("/v1/stocks/stream", params={"symbols": "!"})
        assert answer.status_code == 422
    assert_problem(await listener.api.get("/v1/stocks/stream?symbols=AAPL"), 429, "rate-limited")
    assert (await listener.api.post("/process-data", json={"items": [1]})).status_code == 202
    refused = await listener.api.post("/v1/batches", json={"operation": "echo", "items": [1]})
    assert_problem(refused, 429, "rate-limited")


async def test_requests_without_a_key_or_a_limit_have_no_limit_headers(house: House) -> None:
    listener = await house.open(rate_limits=f"write=5/{_DAY_S}")
    for answer in (await listener.api.get("/v1/me"), await listener.api.get("/openapi.json")):
        assert answer.status_code == 200
        assert "ratelimit" not in answer.headers


async def test_while_the_database_is_away_known_keys_are_counted_by_each_gateway_alone(house: House) -> None:
    gate = await house.gate("127.0.0.1", house.postgres_port)
    dsn = house.dsn_by(await house.database(), gate)
    listener = await house.open(dsn=dsn, rate_limits=f"read=30/{_DAY_S}")
    assert (await listener.api.get("/v1/me")).status_code == 200
    await gate.shut()
    found = [(await listener.api.get("/v1/me")).status_code for _ in range(40)]
    assert found == [200] * 29 + [429] * 11
    await gate.open()

    async def is_told() -> bool:
        # Of the key, and of its owner.
        rows = await listener.database.fetch("SELECT spent FROM rate_windows WHERE class = 'read'")
        return [row["spent"] for row in rows] == [30, 30]

    await until(is_told, timeout_s=30)


async def test_a_gateway_that_stops_returns_what_it_holds(house: House) -> None:
    one, other = await two_gateways(house, f"read=100/{_DAY_S}")
    for _ in range(20):
        await one.api.get("/v1/me")
    await one.gateway.resources.limits.give_back()
    rows = await other.database.fetch("SELECT taken, spent FROM rate_windows WHERE class = 'read'")
    # Of the key, and of its owner.
    assert [tuple(row) for row in rows] == [(20, 20), (20, 20)]


async def test_the_statement_answers_like_the_model_of_the_unit_tests(house: House) -> None:
    queries.load("gateway")
    chance = random.Random(7)
    model = RateWindows()
    connection = await asyncpg.connect(await house.database())
    try:
        for _ in range(300):
            asked = [
                Question(
                    who,
                    60 * chance.randint(1, 4),
                    most=200 if who < "d" else 1000,
                    spent=chance.randint(0, 9),
                    back=chance.randint(-9, 3),
                    need=chance.choice((0, 0, 1, 7)),
                    wish=chance.randint(0, 60),
                )
                for who in chance.sample("abcdef", chance.randint(1, 6))
            ]
            for start in {one.starts_at for one in asked}:
                of_window = [one for one in asked if one.starts_at == start]
                found = await repository.exchange(connection, RateClass.READ, 60, of_window)
                assert found == await model.ask(RateClass.READ, of_window)
    finally:
        await connection.close()


async def test_two_gateways_that_ask_for_the_same_callers_at_once_never_deadlock(
    house: House,
) -> None:
    queries.load("gateway")
    names = [f"k{number:02}" for number in range(60)]
    dsn = await house.database()

    async def ask_often(seed: int) -> int:
        chance, granted = random.Random(seed), 0
        connection = await asyncpg.connect(dsn)
        try:
            for _ in range(40):
                chance.shuffle(names)
                asked = [Question(who, 60, most=10_000, spent=0, back=0, need=1, wish=0) for who in names]
                found = await repository.exchange(connection, RateClass.READ, 60, asked)
                granted += sum(one.granted for one in found.values())
        finally:
            await connection.close()
        return granted

    assert sum(await asyncio.gather(*map(ask_often, range(4)))) == 4 * 40 * 60


async def test_windows_that_ended_a_while_ago_are_removed(house: House) -> None:
    listener = await house.open(rate_limits=f"read=10/{_DAY_S}")
    await listener.api.get("/v1/me")
    await listener.database.execute(
        "INSERT INTO rate_windows SELECT 'k' || n, 'read', 0, 60, 1, 1, 1 FROM generate_series(1, 2500) n"
    )
    await listener.gateway.resources.limits.remove_old()
    rows = await listener.database.fetch("SELECT who FROM rate_windows")
    assert {row["who"] for row in rows} == {listener.admin_key.split("_")[2], "owner:1"}
