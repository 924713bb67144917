"""Requests over real sockets on loopback, which the tests open as internal targets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chassis.egress.addresses import Address
from chassis.egress.client import (
    AnswerTooLarge,
    DestinationUnreachable,
    GuardedClient,
    HttpRequest,
    is_own,
    resolve,
)
from chassis.egress.destinations import DestinationRefused, InternalTargets

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello"


@dataclass
class NotingServer:
    """A server on loopback that notes what comes and answers the same to everybody."""

    answer: bytes
    port: int = 0
    requests: list[bytes] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length" in line), 0
        )
        self.requests.append(head + await reader.readexactly(length))
        writer.write(self.answer)
        writer.close()


@asynccontextmanager
async def serving(
    answer: bytes = HELLO, *, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[NotingServer]:
    server = NotingServer(answer)
    listening = await asyncio.start_server(server.serve, host, port, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


@dataclass
class ScriptedResolver:
    """A resolver in which each look-up of a name takes the next answer."""

    answers: list[Sequence[str]]
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        self.asked.append(host)
        return [ip_address(text) for text in self.answers.pop(0)]


def client(allowed: str = "127.0.0.0/8", *answers: Sequence[str]) -> GuardedClient:
    return GuardedClient(InternalTargets.parse(allowed), resolve=ScriptedResolver(list(answers)).resolve)


async def get(guarded: GuardedClient, url: str, timeout_s: float = 5) -> bytes:
    return (await guarded.fetch(HttpRequest("GET", url), timeout_s=timeout_s)).body


async def test_an_answer_comes_with_its_status_and_headers() -> None:
    async with serving() as server:
        url = f"http://hooks.example:{server.port}/a?b=c"
        request = HttpRequest("POST", url, {"X-Token": "t", "Host": "other"}, b"body")
        answer = await client("127.0.0.1", ["127.0.0.1"]).fetch(request, timeout_s=5)
    assert (answer.status, answer.headers["x-a"], answer.body) == (200, "1, 2", b"hello")
    [sent] = server.requests
    head, _, body = sent.lower().partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert (line, body) == (b"post /a?b=c http/1.1", b"body")
    assert b"host: hooks.example:%d" % server.port in headers
    assert b"x-token: t" in headers
    assert sum(header.startswith(b"host:") for header in headers) == 1


async def test_a_name_that_resolves_differently_a_moment_later_is_looked_up_once() -> None:
    async with serving(host="127.0.0.2") as good, serving(host="127.0.0.3", port=good.port) as other:
        names = ScriptedResolver([["127.0.0.2"], ["127.0.0.3"]])
        guarded = GuardedClient(InternalTargets.parse("127.0.0.2"), resolve=names.resolve)
        assert await get(guarded, f"http://rebinding.example:{good.port}/") == b"hello"
        with pytest.raises(DestinationRefused):
            await get(guarded, f"http://rebinding.example:{good.port}/")
    assert (names.asked, len(good.requests), other.requests) == (["rebinding.example"] * 2, 1, [])


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "::1", "64:ff9b::7f00:1"])
async def test_a_name_with_one_address_that_is_not_public_is_refused(address: str) -> None:
    guarded = client("", ["1.1.1.1", address])
    with pytest.raises(
        DestinationRefused, match=r"mixed\.example leads to an address that is not public"
    ) as refused:
        await get(guarded, "http://mixed.example/")
    assert address not in refused.value.detail


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"])
async def test_an_address_that_is_not_public_is_refused_without_asking_the_dns(host: str) -> None:
    with pytest.raises(DestinationRefused, match="not public"):
        await get(client(""), f"http://{host}/")


async def test_localhost_is_refused_by_the_resolver_of_the_system() -> None:
    with pytest.raises(DestinationRefused, match="not public"):
        await get(GuardedClient(InternalTargets(), resolve=resolve), "http://localhost./")


async def test_the_next_address_is_tried_when_one_does_not_answer() -> None:
    async with serving(host="127.0.0.2") as server:
        guarded = client("127.0.0.0/8", ["127.0.0.3", "127.0.0.2"])
        assert await get(guarded, f"http://two.example:{server.port}/") == b"hello"


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with serving(moved) as server:
        request = HttpRequest("GET", f"http://127.0.0.1:{server.port}/")
        answer = await client().fetch(request, timeout_s=5)
    assert (answer.status, answer.headers["location"]) == (302, "http://127.0.0.1:1/")


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    endless = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n" + b"x" * 300_000
    async with serving(endless) as server:
        with pytest.raises(AnswerTooLarge, match="more than 131072 bytes"):
            await get(client(), f"http://127.0.0.1:{server.port}/")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 5000 + HELLO,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-A: " + b"x" * 40_000 + b"\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["heads before the answer", "chunks of one byte", "a long head"],
)
async def test_an_answer_that_takes_long_to_parse_is_not_read_to_its_end(answer: bytes) -> None:
    async with serving(answer) as server:
        with pytest.raises(AnswerTooLarge, match="more than 32768 bytes besides its content"):
            await get(client(), f"http://127.0.0.1:{server.port}/")


async def test_an_answer_in_chunks_of_a_usual_size_is_read() -> None:
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 100 + b"0\r\n\r\n"
    async with serving(answer) as server:
        assert len(await get(client(), f"http://127.0.0.1:{server.port}/")) == 102_400


@pytest.mark.parametrize(
    "answer", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"]
)
async def test_an_invalid_answer_is_reported(answer: bytes) -> None:
    async with serving(answer) as server:
        with pytest.raises(DestinationUnreachable, match=r"127\.0\.0\.1 cannot be reached"):
            await get(client(), f"http://127.0.0.1:{server.port}/")


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    listening = await asyncio.start_server(wait, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        with pytest.raises(DestinationUnreachable, match=r"did not answer within 0\.1 s") as late:
            await get(client(), f"http://127.0.0.1:{port}/", timeout_s=0.1)
    assert late.value.retryable


async def test_a_name_without_an_address_is_reported() -> None:
    with pytest.raises(DestinationUnreachable, match="has no address"):
        await get(client("", []), "http://nothing.example/")


async def test_the_name_in_tls_is_that_of_the_url_and_is_verified(tmp_path: Path) -> None:
    asked: list[str | None] = []
    server_tls, trusting = certified(tmp_path, "hooks.example")
    server_tls.sni_callback = lambda _, name, __: asked.append(name)
    names = ScriptedResolver([["127.0.0.1"], ["127.0.0.1"]])
    guarded = GuardedClient(InternalTargets.parse("127.0.0.1"), resolve=names.resolve, tls=trusting)
    async with serving(tls=server_tls) as server:
        assert await get(guarded, f"https://hooks.example:{server.port}/") == b"hello"
        with pytest.raises(DestinationUnreachable, match="certificate"):
            await get(guarded, f"https://other.example:{server.port}/")
    assert asked == ["hooks.example", "other.example"]


def certified(folder: Path, name: str) -> tuple[ssl.SSLContext, Callable[[], ssl.SSLContext]]:
    """Return the context of a server whose certificate is for `name`, and what trusts it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    written = certificate.public_bytes(serialization.Encoding.PEM)
    file = folder / "server.pem"
    file.write_bytes(
        written
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context, lambda: ssl.create_default_context(cadata=written.decode())


async def test_an_address_of_this_machine_is_not_public_whatever_its_range() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert not is_own(ip_address("192.0.2.1"))
    # A server with an address of its own on the internet, on which internal services listen, too.
    public = "93.184.215.14"
    answers = [[public], [public]]
    guarded = GuardedClient(
        InternalTargets(),
        resolve=ScriptedResolver([*answers]).resolve,
        is_own=lambda address: str(address) == public,
    )
    for url in (f"http://{public}:8081/", "http://rebinding.example/"):
        with pytest.raises(DestinationRefused):
            await guarded.fetch(HttpRequest("GET", url), timeout_s=5)


async def test_silent_name_servers_hold_no_thread_that_others_need(monkeypatch: pytest.MonkeyPatch) -> None:
    answering, waiting = threading.Event(), threading.Semaphore(0)
    found = socket.getaddrinfo("127.0.0.1", 80, type=socket.SOCK_STREAM)

    def look_up(host: str, *_: Any, **__: Any) -> Any:
        if host == "silent.example":
            waiting.release()
            answering.wait(20)
        return found

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    # More than the event loop has threads.
    silent = [asyncio.create_task(resolve("silent.example", 80)) for _ in range(40)]
    try:
        async with asyncio.timeout(10):
            while not waiting.acquire(blocking=False):
                await asyncio.sleep(0.01)
            assert await resolve("hook.example", 80) == [ip_address("127.0.0.1")]
            # As connections to the broker and the database do.
            assert await asyncio.get_running_loop().getaddrinfo("broker.example", 80) == found
    finally:
        answering.set()
        await asyncio.gather(*silent)
