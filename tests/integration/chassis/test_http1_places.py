"""The places for connections of the HTTP server, over real sockets: who gets one, and who gives way."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from chassis import metrics
from chassis.http1 import admission
from chassis.http1.limits import ConnectionLimits
from support.http1_site import GET, problem_of, serving
from support.measured import value_of
from support.waiting import until


async def test_a_connection_over_the_limit_gets_a_problem_document() -> None:
    async with serving(ConnectionLimits(most=3, per_address=2)) as found:
        first, second = await found.connect(), await found.connect()
        for reader, writer in (first, second):
            # Who has shown a key gives way to nobody.
            writer.write(GET.replace(b"/ ", b"/key "))
            await reader.readuntil(b"\r\n\r\nok")
        assert problem_of(await found.exchange())["type"] == "/problems/too-many-connections"
        first[1].close()
        await until(lambda: len(found.server.server_state.connections) == 1)
        third = await found.connect()
        third[1].write(GET)
        assert await third[0].readuntil(b"\r\n\r\nok")
        for _, writer in (second, third):
            writer.close()


async def test_a_connection_that_has_shown_a_key_leaves_the_unauthenticated_pool() -> None:
    limits = ConnectionLimits(most=4, per_address=4, unauthenticated_share=0.25)
    async with serving(limits) as found:
        reader, writer = await found.connect()
        writer.write(GET.replace(b"/ ", b"/key "))
        await reader.readuntil(b"\r\n\r\nok")
        other_reader, other = await found.connect()
        other.write(GET)
        assert await other_reader.readuntil(b"\r\n\r\nok")
        writer.write(GET)
        assert await reader.readuntil(b"\r\n\r\nok")
        writer.close()
        other.close()


async def test_a_silent_connection_without_a_key_gives_way_to_a_new_one() -> None:
    limits = ConnectionLimits(most=8, per_address=16, unauthenticated_share=0.25)
    async with serving(limits) as found:
        silent, held = await found.connect()
        _, half = await found.connect()
        half.write(GET[:10])
        answer = await found.exchange(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert answer.endswith(b"ok")
        assert await silent.read() == b""
        for writer in (held, half):
            writer.close()


@pytest.mark.parametrize(
    ("request_line", "status", "is_proxied"),
    [
        (b"POST /read", b"HTTP/1.1 408 ", False),
        (b"POST /read", b"HTTP/1.1 408 ", True),
        (b"POST /refuse", b"HTTP/1.1 401 ", False),
        (b"GET /pour", b"HTTP/1.1 200 ", False),
        (b"GET /pour", b"HTTP/1.1 200 ", True),
    ],
)
async def test_what_waits_for_its_client_without_a_key_gives_way_to_a_new_request(
    request_line: bytes, status: bytes, is_proxied: bool
) -> None:
    proxies = (ipaddress.ip_network("127.0.0.0/8"),) if is_proxied else ()
    limits = ConnectionLimits(most=8, per_address=16, unauthenticated_share=0.25, trusted_proxies=proxies)
    lines = b" HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n"
    body = b"\r\n" if b"GET" in request_line else b"Content-Length: 50\r\n\r\n{"
    async with serving(limits) as found:
        waiting = [await found.connect() for _ in range(2)]
        for _, writer in waiting:
            writer.write(request_line + lines + body)
        held = list(found.server.server_state.connections)
        await until(lambda: len(found.recorded.scopes) == 2)
        if b"pour" in request_line:
            await until(lambda: all(connection.is_blocked for connection in held))
        answer = await found.exchange(b"GET /" + lines + b"Connection: close\r\n\r\n")
        assert answer.endswith(b"ok")
        assert (await waiting[0][0].read(len(status))) == status
        for _, writer in waiting:
            writer.close()


async def test_a_trusted_proxy_names_the_addresses_of_its_clients() -> None:
    loopback = (ipaddress.ip_network("127.0.0.0/8"),)
    async with serving(ConnectionLimits(per_address=1, trusted_proxies=loopback)) as found:
        waiting = b"GET /wait HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n"
        asking = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Forwarded-For: "
        _, writer = await found.connect()
        writer.write(waiting)
        await until(lambda: len(found.recorded.scopes) == 1)
        assert found.recorded.scopes[0]["client"] == ("192.0.2.1", 0)
        assert problem_of(await found.exchange(asking + b"192.0.2.1\r\n\r\n"))["status"] == 429
        secure = asking + b"6.6.6.6, 192.0.2.2\r\nX-Forwarded-Proto: https\r\n\r\n"
        assert (await found.exchange(secure)).startswith(b"HTTP/1.1 200 ")
        assert found.recorded.scopes[-1]["client"] == ("192.0.2.2", 0)
        assert found.recorded.scopes[-1]["scheme"] == "https"
        writer.close()
        await until(lambda: "disconnected" in found.recorded.ends)
        assert (await found.exchange(asking + b"192.0.2.1\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_heads_and_requests_that_wait_share_a_number_of_bytes_and_usual_ones_count_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "WAITING_BYTES", 80_000)
    close = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with serving(ConnectionLimits()) as found:
        reader, neighbour = await found.connect()
        neighbour.write(GET.replace(b"/ ", b"/key "))
        await reader.readuntil(b"\r\n\r\nok")
        neighbour.write(GET[:-4] + b"\r\nX: " + b"x" * 20_000)
        # All together they have more than there may be.
        usual = [await found.connect() for _ in range(12)]
        for _, writer in usual:
            writer.write(GET[:-4] + b"\r\nX: " + b"x" * 7_000)
        pipelined = asyncio.create_task(
            found.exchange(GET.replace(b"/ ", b"/read-late ") + GET * 800 + close)
        )
        assert problem_of(await found.exchange(GET[:-4] + b"\r\nX: " + b"x" * 50_000))["status"] == 503
        for taken, writer in [(reader, neighbour), *usual]:
            writer.write(b"\r\n\r\n")
            assert await taken.readuntil(b"\r\n\r\nok")
            writer.close()
        found.recorded.may_read.set()
        assert (await pipelined).count(b"HTTP/1.1 200 ") == 802


async def test_a_request_that_is_being_done_is_answered_when_those_behind_it_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(admission, "WAITING_BYTES", 20_000)
    dropped = metrics.HTTP_REFUSED.labels("bytes")
    before = value_of(dropped)
    async with serving(ConnectionLimits()) as found:
        asking = asyncio.create_task(found.exchange(GET.replace(b"/ ", b"/read-late ") + GET * 1200))
        await until(lambda: value_of(dropped) > before)
        found.recorded.may_read.set()
        head, _, body = (await asking).partition(b"\r\n\r\n")
        assert (head[:12], body) == (b"HTTP/1.1 200", b"0")
        assert b"connection: close" in head


async def test_bodies_that_nobody_reads_share_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAITING_BYTES", 160_000)

    def post(size: int) -> bytes:
        head = b"POST /read-late HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        return head % size + b"x" * size

    async with serving(ConnectionLimits()) as found:
        reader, neighbour = await found.connect()
        neighbour.write(GET.replace(b"/ ", b"/key "))
        await reader.readuntil(b"\r\n\r\nok")
        neighbour.write(post(20_000))
        await until(lambda: len(found.recorded.scopes) == 2)
        greedy = [asyncio.create_task(found.exchange(post(50_000))) for _ in range(3)]
        (refused,), others = await asyncio.wait(greedy, return_when=asyncio.FIRST_COMPLETED)
        assert problem_of(refused.result())["status"] == 503
        found.recorded.may_read.set()
        assert (await reader.read()).endswith(b"\r\n\r\n20000")
        assert all([(await other).endswith(b"\r\n\r\n50000") for other in others])
        neighbour.close()


async def test_answers_that_nobody_takes_share_a_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "WAITING_BYTES", 1)
    async with serving(ConnectionLimits()) as found:
        _, writer = await found.connect()
        writer.write(b"GET /pour HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: found.recorded.sent_bytes)
        await until(lambda: not found.server.server_state.connections)
        writer.close()
