"""The HTTP server over real sockets: requests that are complete, cut short, slow, or never read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest
from prometheus_client import REGISTRY

from chassis.http1.limits import ConnectionLimits
from contracts.mail import MOST_UPLOAD_BYTES
from support.http1_site import GET, Http1Site, problem_of, serving
from support.waiting import until

CHUNKED = b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
BRIEF = ConnectionLimits(
    head_s=0.5,
    idle_s=0.5,
    unauthenticated_idle_s=0.5,
    body_window_s=0.5,
    write_stall_s=1,
    linger_s=0.5,
    most_linger_s=1,
)


@pytest.fixture(scope="module")
async def site() -> AsyncIterator[Http1Site]:
    """Yield a server with the usual limits."""
    async with serving(ConnectionLimits()) as found:
        yield found


@pytest.fixture(scope="module")
async def brief_site() -> AsyncIterator[Http1Site]:
    """Yield a server that waits half a second for everything."""
    async with serving(BRIEF) as found:
        yield found


async def test_requests_follow_each_other_on_one_connection(site: Http1Site) -> None:
    reader, writer = await site.connect()
    for _ in range(3):
        writer.write(GET)
        assert await reader.readuntil(b"\r\n\r\nok") != b""
    writer.close()


async def test_five_thousand_pipelined_requests_are_answered_in_order(site: Http1Site) -> None:
    last = b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = await site.exchange(GET * 5000 + last)
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 5001
    assert answer.endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_a_client_of_http_1_0_gets_no_chunks(site: Http1Site) -> None:
    answer = await site.exchange(b"GET /stream HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"connection: close\r\n\r\nonetwo")


async def test_head_has_no_body(site: Http1Site) -> None:
    answer = await site.exchange(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b"content-length: 2\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_refused_head_request_has_no_body(site: Http1Site) -> None:
    answer = await site.exchange(b"HEAD / HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_body_comes_whole_by_length_and_by_chunks(site: Http1Site) -> None:
    close = b"POST /read HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    sized = await site.exchange(close + b"Content-Length: 300000\r\n\r\n", b"x" * 300_000)
    assert sized.endswith(b"\r\n\r\n300000")
    chunks = b"3e8;a=b\r\n" + b"x" * 1000 + b"\r\n"
    chunked = await site.exchange(
        close + b"Transfer-Encoding: chunked\r\n\r\n", chunks * 300, b"0\r\nA: b\r\n\r\n"
    )
    assert chunked.endswith(b"\r\n\r\n300000")


async def test_an_encoded_slash_stays_part_of_its_segment(site: Http1Site) -> None:
    answer = await site.exchange(b"GET /a%2fb%20c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    answer = await site.exchange(b"GET /a%2Fb%20c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert site.recorded.scopes[-1]["raw_path"] == b"/a%2Fb%20c"


async def test_continue_is_sent_when_the_application_reads_and_not_before(site: Http1Site) -> None:
    lines = b"Host: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    refused = await site.exchange(b"POST /refuse HTTP/1.1\r\n" + lines)
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close\r\n" in refused
    reader, writer = await site.connect()
    writer.write(b"POST /read HTTP/1.1\r\n" + lines)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"hi")
    assert (await reader.readuntil(b"\r\n\r\n2")).startswith(b"HTTP/1.1 200 ")
    writer.close()


@pytest.mark.parametrize("path", [b"/fail", b"/inject", b"/silent"])
async def test_an_application_that_fails_is_a_problem_document(site: Http1Site, path: bytes) -> None:
    answer = await site.exchange(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert problem_of(answer)["type"] == "/problems/internal"


async def test_an_answer_that_fails_in_its_middle_does_not_look_complete(site: Http1Site) -> None:
    with contextlib.suppress(ConnectionError):
        answer = await site.exchange(b"GET /fail-late HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"0\r\n\r\n" not in answer


async def test_an_answer_that_is_cut_is_counted_and_does_not_look_complete(site: Http1Site) -> None:
    cuts = partial(REGISTRY.get_sample_value, "tickwire_http_refused_total", {"reason": "slow_reader"})
    before = cuts() or 0
    with contextlib.suppress(ConnectionError):
        answer = await site.exchange(b"GET /cut HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"0\r\n\r\n" not in answer
    assert cuts() == before + 1


async def test_the_application_learns_that_a_client_has_gone_away(site: Http1Site) -> None:
    _, writer = await site.connect()
    before = len(site.recorded.scopes)
    writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await until(lambda: len(site.recorded.scopes) > before)
    writer.close()
    await until(lambda: "disconnected" in site.recorded.ends)


@pytest.mark.parametrize(
    ("segments", "statuses"),
    [
        ([b""], []),
        ([GET], [200]),
        ([b"GET / HT"], [408]),
        ([b"GET / HTTP/1.1\r\nHost: x\r\n"], [408]),
        ([GET, b"GET /"], [200, 408]),
        ([b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab"], [408]),
        ([CHUNKED + b"5\r\nab"], [408]),
    ],
)
async def test_a_client_that_stops_sending_is_not_waited_for(
    brief_site: Http1Site, segments: list[bytes], statuses: list[int]
) -> None:
    answer = await brief_site.exchange(*segments)
    answers = answer.split(b"HTTP/1.1 ")[1:]
    assert [int(found[:3]) for found in answers] == statuses
    if 408 in statuses:
        assert problem_of(b"HTTP/1.1 " + answers[-1])["type"] == "/problems/request-timeout"


@pytest.mark.parametrize("first", [b"", GET])
@pytest.mark.parametrize("part", [b"\r\n", b"G"])
async def test_a_head_that_is_sent_slowly_has_one_deadline(
    brief_site: Http1Site, first: bytes, part: bytes
) -> None:
    reader, writer = await brief_site.connect()
    writer.write(first)
    dripping = asyncio.create_task(_drip(writer, part))
    async with asyncio.timeout(20):
        answer = await reader.read()
        await dripping
    writer.close()
    *_, last = answer.split(b"HTTP/1.1 ")
    assert problem_of(b"HTTP/1.1 " + last)["status"] in (400, 408)


async def test_a_body_that_is_sent_slowly_is_408_and_the_application_is_notified(
    brief_site: Http1Site,
) -> None:
    brief_site.recorded.ends.clear()
    reader, writer = await brief_site.connect()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    ids = f"X-Request-Id: order-17\r\nTraceparent: 00-{trace_id}-b7ad6b7169203331-01\r\n\r\n"
    writer.write(CHUNKED.removesuffix(b"\r\n") + ids.encode())
    dripping = asyncio.create_task(_drip(writer, b"1\r\na\r\n"))
    async with asyncio.timeout(20):
        answer = await reader.read()
    await dripping
    writer.close()
    problem = problem_of(answer)
    assert (problem["type"], problem["instance"]) == ("/problems/request-timeout", "order-17")
    assert f"traceparent: 00-{trace_id}-".encode() in answer
    await until(lambda: "disconnected" in brief_site.recorded.ends)


async def _drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("body", [b"5\r\nhello\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"])
async def test_a_body_without_end_after_its_refusal_is_cut(brief_site: Http1Site, body: bytes) -> None:
    reader, writer = await brief_site.connect()
    writer.write(b"POST /refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
    sending = asyncio.create_task(_drip(writer, body))
    async with asyncio.timeout(20):
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401 ")
        assert b"connection: close\r\n" in answer
        await sending
    writer.close()


async def test_a_client_that_writes_a_whole_upload_before_it_reads_gets_its_refusal(site: Http1Site) -> None:
    head = b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % MOST_UPLOAD_BYTES

    def answer_of_a_client_that_only_writes() -> bytes:
        with socket.create_connection(("127.0.0.1", site.port), timeout=20) as client:
            client.sendall(head)
            client.sendall(bytes(MOST_UPLOAD_BYTES))
            return client.recv(65_536)

    assert (await asyncio.to_thread(answer_of_a_client_that_only_writes)).startswith(b"HTTP/1.1 401 ")


async def test_a_flood_after_the_answer_is_cut_before_its_time(site: Http1Site) -> None:
    _, writer = await site.connect()
    writer.write(b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"x" * 262_144)
                await writer.drain()
    writer.close()


async def test_the_request_after_one_that_was_not_read_is_not_answered(site: Http1Site) -> None:
    smuggled = b"POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + GET
    answer = await site.exchange(smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_client_that_reads_nothing_is_cut_off(brief_site: Http1Site) -> None:
    with socket.create_connection(("127.0.0.1", brief_site.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /pour HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: brief_site.recorded.sent_bytes > 65_536)
        await until(lambda: not brief_site.server.server_state.connections)


async def test_a_client_that_trickles_an_answer_is_cut_off_and_leaves_nothing_in_the_system(
    brief_site: Http1Site,
) -> None:
    before = brief_site.recorded.sent_bytes
    taken = [before]
    with socket.create_connection(("127.0.0.1", brief_site.port)) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /pour HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: brief_site.recorded.sent_bytes > before)

        async def is_cut_off() -> bool:
            client.recv(10)
            if brief_site.server.server_state.connections:
                taken.append(brief_site.recorded.sent_bytes)
                return False
            return True

        await until(is_cut_off)
        assert taken[-1] - before < 1 << 20, "the system held megabytes of it"

        async def is_reset() -> bool:
            try:
                assert client.recv(65_536), "the rest was kept for the client"
            except ConnectionResetError:
                return True
            return False

        await until(is_reset)


async def test_a_stop_answers_open_requests_and_closes_idle_connections() -> None:
    async with serving(ConnectionLimits()) as found:
        idle_reader, idle = await found.connect()
        idle.write(GET)
        await idle_reader.readuntil(b"\r\n\r\nok")
        reader, writer = await found.connect()
        writer.write(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n")
        await until(lambda: len(found.recorded.scopes) == 2)
        found.server.should_exit = True
        async with asyncio.timeout(10):
            assert await idle_reader.read() == b""
            writer.write(b"hi")
            answer = await reader.read()
        assert b"connection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\n2")
        idle.close()
        writer.close()
