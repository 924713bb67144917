"""The SMTP client against a real server: pipelining, TLS, login, and refusals on the way in."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emailer.errors import AuthenticationRefused, ConnectionLost, RelayUnreachable
from emailer.sending import smtp
from emailer.sending.hosts import TlsPolicy
from emailer.sending.smtp import Envelope, SmtpRelay, SmtpSession
from emailer.sending.wire import Wire
from support.doubles import smtp as double
from support.doubles.smtp import STOP_READING, SmtpServer, Step
from support.waiting import until

ENVELOPE = Envelope("a@example.com", "b@example.com", b"Subject: x\r\n\r\nHello\r\n")


def relay(server: SmtpServer, **fields: object) -> SmtpRelay:
    usual = {"host": "localhost", "port": server.port, "tls": "off", "timeout_s": 5}
    return SmtpRelay(**(usual | fields))  # type: ignore[arg-type]  # the tests' own fields


@pytest.fixture
async def tls_server(certificate: Path) -> AsyncIterator[SmtpServer]:
    async with double.running(server_with("required", certificate)) as running:
        yield running


def server_with(tls: TlsPolicy, certificate: Path, **fields: Any) -> SmtpServer:
    """Return a server for clients with this policy."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return SmtpServer(tls=None if tls == "off" else context, implicit_tls=tls == "implicit", **fields)


async def connected(
    server: SmtpServer, tls: TlsPolicy, certificate: Path, *, timeout_s: float = 5
) -> SmtpSession:
    return await smtp.connect(relay(server, tls=tls, ca_file=str(certificate), timeout_s=timeout_s))


encryptions = pytest.mark.parametrize("tls", ["off", "required", "implicit"])


@pytest.mark.parametrize("extensions", [["PIPELINING"], []], ids=["pipelining", "one by one"])
async def test_mails_follow_each_other_on_one_connection(server: SmtpServer, extensions: list[str]) -> None:
    server.extensions = extensions
    server.script(
        "b@example.com", Step("rcpt", "550 no"), Step("content", "451 later"), Step("data", "452 full")
    )
    session = await smtp.connect(relay(server))
    answers = [await session.deliver(ENVELOPE) for _ in range(5)]
    session.close()
    assert [(answer.reply.code, answer.stage) for answer in answers] == [
        (550, "recipient"),
        (451, "content"),
        (452, "data"),
        (250, "content"),
        (250, "content"),
    ]
    assert len(server.received) == 2
    assert server.connections == 1
    assert server.commands.count("RSET") == 2


async def test_dots_at_the_start_of_a_line_survive(server: SmtpServer) -> None:
    content = b".a\r\n..b\r\n.\r\nc.\r\n"
    session = await smtp.connect(relay(server))
    await session.deliver(Envelope("a@example.com", "b@example.com", content))
    await session.deliver(Envelope("a@example.com", "b@example.com", b"no end of line"))
    session.close()
    assert [received.content for received in server.received] == [content, b"no end of line\r\n"]


@encryptions
@pytest.mark.parametrize("lines", [1_000, 100_000])
async def test_a_big_mail_arrives_whole_and_the_next_ones_too(
    certificate: Path, tls: TlsPolicy, lines: int
) -> None:
    content = b"".join(b"%d line\r\n" % number for number in range(lines))
    async with double.running(server_with(tls, certificate)) as server:
        session = await connected(server, tls, certificate)
        for _ in range(3):
            answer = await session.deliver(replace(ENVELOPE, content=content))
            assert answer.reply.code == 250
        session.abort()
    assert [one.content == content for one in server.received] == [True] * 3
    assert session.tls == (tls != "off")


async def test_a_relay_that_hangs_up_while_idle_leaves_no_usable_session(server: SmtpServer) -> None:
    session = await smtp.connect(relay(server))
    await server.stop()
    await until(lambda: not session.is_usable)
    with pytest.raises(ConnectionLost) as caught:
        await session.deliver(ENVELOPE)
    assert not caught.value.after_dot


@pytest.mark.parametrize("extensions", [["PIPELINING", "SMTPUTF8"], ["PIPELINING"]])
async def test_an_address_beyond_ascii_needs_the_relays_consent(
    server: SmtpServer, extensions: list[str]
) -> None:
    server.extensions = extensions
    session = await smtp.connect(relay(server))
    answer = await session.deliver(Envelope("a@example.com", "jörg@example.com", b"\r\n", needs_utf8=True))
    session.close()
    offered = "SMTPUTF8" in extensions
    assert (answer.reply.code, answer.stage) == ((250, "content") if offered else (550, "mail"))
    assert ("MAIL FROM:<a@example.com> SMTPUTF8" in server.commands) == offered
    assert len(server.received) == offered


async def test_an_address_with_a_separator_is_never_written(server: SmtpServer) -> None:
    session = await smtp.connect(relay(server))
    with pytest.raises(ValueError, match="never come this far"):
        await session.deliver(Envelope("a@example.com", "b@example.com>\r\nRCPT TO:<c@example.com", b""))
    session.close()
    assert not [command for command in server.commands if command.startswith("RCPT")]


@pytest.mark.parametrize("tls", ["opportunistic", "required"])
async def test_everything_after_starttls_is_encrypted(
    tls_server: SmtpServer, certificate: Path, tls: str
) -> None:
    session = await smtp.connect(relay(tls_server, tls=tls, ca_file=str(certificate)))
    await session.deliver(ENVELOPE)
    session.close()
    assert session.tls
    assert [received.tls for received in tls_server.received] == [True]
    # What was offered in the clear counts for nothing: EHLO comes again.
    assert [command.split(" ")[0] for command in tls_server.commands[:3]] == ["EHLO", "STARTTLS", "EHLO"]


async def test_implicit_tls_is_encrypted_from_the_start(certificate: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with double.running(SmtpServer(tls=context, implicit_tls=True)) as server:
        session = await smtp.connect(relay(server, tls="implicit", ca_file=str(certificate)))
        await session.deliver(ENVELOPE)
        session.close()
    assert session.tls
    assert "STARTTLS" not in server.commands


async def test_required_tls_never_falls_back_to_the_clear(server: SmtpServer) -> None:
    with pytest.raises(RelayUnreachable, match="does not offer STARTTLS"):
        await smtp.connect(relay(server, tls="required"))


async def test_required_tls_refuses_a_certificate_that_no_authority_signed(tls_server: SmtpServer) -> None:
    with pytest.raises(RelayUnreachable, match="TLS with localhost"):
        await smtp.connect(relay(tls_server, tls="required"))


async def test_opportunistic_tls_takes_any_certificate(tls_server: SmtpServer) -> None:
    session = await smtp.connect(relay(tls_server, tls="opportunistic"))
    session.close()
    assert session.tls


async def test_opportunistic_tls_goes_on_in_the_clear_where_there_is_none(server: SmtpServer) -> None:
    session = await smtp.connect(relay(server, tls="opportunistic"))
    assert (await session.deliver(ENVELOPE)).reply.code == 250
    session.close()
    assert not session.tls


async def test_opportunistic_tls_goes_on_in_the_clear_where_it_is_broken(server: SmtpServer) -> None:
    # No certificate at all: every handshake fails.
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    session = await smtp.connect(relay(server, tls="opportunistic"))
    assert (await session.deliver(ENVELOPE)).reply.code == 250
    session.close()
    assert not session.tls


async def test_a_password_is_not_sent_in_the_clear_unless_tls_is_off(server: SmtpServer) -> None:
    server.login = ("user", "password")
    with pytest.raises(RelayUnreachable, match="sent in the clear only if TLS is off"):
        await smtp.connect(relay(server, tls="opportunistic", username="user", password="password"))
    assert not [command for command in server.commands if command.startswith("AUTH")]


@pytest.mark.parametrize("mechanisms", ["PLAIN LOGIN", "LOGIN"])
async def test_a_login_uses_a_mechanism_that_the_relay_offers(server: SmtpServer, mechanisms: str) -> None:
    server.login, server.mechanisms = ("user", "pässword"), mechanisms
    session = await smtp.connect(relay(server, username="user", password="pässword"))
    await session.deliver(ENVELOPE)
    session.close()
    assert server.received[0].login == "user"


@pytest.mark.parametrize("mechanisms", ["PLAIN", "LOGIN", "CRAM-MD5"])
async def test_a_refused_login_is_not_taken_for_a_relay_that_is_away(
    server: SmtpServer, mechanisms: str
) -> None:
    server.login, server.mechanisms = ("user", "password"), mechanisms
    with pytest.raises(AuthenticationRefused):
        await smtp.connect(relay(server, username="user", password="other"))


@pytest.mark.parametrize("refusal", ["554 go away", "421 busy"])
async def test_a_refused_greeting_or_hello_is_a_relay_that_is_away(server: SmtpServer, refusal: str) -> None:
    server.hello_refusal = refusal
    with pytest.raises(RelayUnreachable, match="hello refused"):
        await smtp.connect(relay(server))
    server.greeting = refusal
    with pytest.raises(RelayUnreachable, match="greeting refused"):
        await smtp.connect(relay(server))


async def test_opportunistic_tls_goes_on_in_the_clear_where_it_is_refused(tls_server: SmtpServer) -> None:
    tls_server.tls_refusal = "454 4.7.0 TLS not available"
    session = await smtp.connect(relay(tls_server, tls="opportunistic"))
    assert (await session.deliver(ENVELOPE)).reply.code == 250
    session.close()
    with pytest.raises(RelayUnreachable, match="starttls refused"):
        await smtp.connect(relay(tls_server, tls="required"))


@encryptions
async def test_a_relay_that_reads_slowly_gets_a_mail_as_long_as_it_reads(
    certificate: Path, tls: TlsPolicy
) -> None:
    content = (b"x" * 70 + b"\r\n") * 280_000
    # Twice the time-out in all. Both ends share the loop: while a busy machine holds it up, nothing moves.
    async with double.running(
        server_with(tls, certificate, buffer_bytes=1 << 16, read_delay_s=0.03)
    ) as server:
        session = await connected(server, tls, certificate, timeout_s=2)
        answer = await session.deliver(Envelope("a@example.com", "b@example.com", content))
        session.abort()
    assert answer.reply.code == 250
    assert len(server.received[0].content) == len(content)


@encryptions
async def test_a_relay_that_stops_reading_before_the_dot_has_no_mail(
    certificate: Path, tls: TlsPolicy
) -> None:
    content = (b"x" * 70 + b"\r\n") * 280_000
    async with double.running(server_with(tls, certificate, buffer_bytes=1 << 16)) as server:
        server.script("b@example.com", Step("content", STOP_READING))
        session = await connected(server, tls, certificate, timeout_s=0.3)
        with pytest.raises(ConnectionLost, match="accepted no data for") as caught:
            await session.deliver(Envelope("a@example.com", "b@example.com", content))
    assert not caught.value.after_dot


async def test_what_waits_below_the_encryption_has_not_been_sent(certificate: Path) -> None:
    transports: list[Any] = []

    class SeenWire(Wire):
        """A connection whose transports are known: the plain one, and the encrypted one above it."""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)
            super().connection_made(transport)

    part, sent = (b"x" * 70 + b"\r\n") * 3_600, 0
    async with double.running(server_with("required", certificate, buffer_bytes=1 << 16)) as server:
        server.script("b@example.com", Step("content", STOP_READING))
        wire = SeenWire()
        await asyncio.get_running_loop().create_connection(lambda: wire, "localhost", server.port)
        session = SmtpSession(wire, relay(server, tls="required", ca_file=str(certificate)))
        await session.introduce(encrypt=True)
        wire.write(b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n")
        await wire.replies(3, timeout_s=5)
        plain, _ = transports

        async def fill() -> None:
            nonlocal sent
            while await wire.drained(timeout_s=0.3):
                assert plain.get_write_buffer_size() == 0
                wire.write(part)
                sent += 1

        with pytest.raises(ConnectionLost, match="accepted no data for"):
            await fill()
    # The kernel, on both sides, keeps some of them.
    assert sent > 1


@encryptions
async def test_a_relay_may_take_longer_for_a_whole_mail_than_for_a_command(
    certificate: Path, tls: TlsPolicy
) -> None:
    async with double.running(server_with(tls, certificate, dot_delay_s=2)) as server:
        session = await connected(server, tls, certificate, timeout_s=1)
        answer = await session.deliver(ENVELOPE)
        session.abort()
    assert (session.relay.dot_timeout_s, answer.reply.code) == (600, 250)


async def test_a_refused_connection_is_a_relay_that_is_away(server: SmtpServer) -> None:
    await server.stop()
    with pytest.raises(RelayUnreachable, match="cannot connect"):
        await smtp.connect(relay(server))
    await server.start()


async def test_a_relay_that_knows_no_extensions_is_greeted_with_helo(server: SmtpServer) -> None:
    server.extensions, server.hello_refusal = [], "502 5.5.2 command not recognized"
    session = await smtp.connect(relay(server))
    answer = await session.deliver(ENVELOPE)
    session.close()
    assert answer.reply.code == 250
    assert [line.split(" ")[0] for line in server.commands[:3]] == ["EHLO", "HELO", "MAIL"]
    assert server.commands[2] == "MAIL FROM:<a@example.com>"


async def test_the_old_spelling_of_the_login_extension_is_understood(server: SmtpServer) -> None:
    server.extensions = ["AUTH=LOGIN", "PIPELINING"]
    server.login, server.mechanisms = ("user", "secret"), "CRAM-MD5"
    session = await smtp.connect(relay(server, username="user", password="secret"))
    answer = await session.deliver(ENVELOPE)
    session.close()
    assert answer.reply.code == 250
    assert "AUTH LOGIN" in server.commands


async def test_a_mail_announces_its_size_and_is_not_sent_where_it_is_too_big(server: SmtpServer) -> None:
    server.extensions = ["PIPELINING", "SIZE 100"]
    session = await smtp.connect(relay(server))
    await session.deliver(ENVELOPE)
    assert f"MAIL FROM:<a@example.com> SIZE={len(ENVELOPE.content)}" in server.commands
    answer = await session.deliver(Envelope("a@example.com", "b@example.com", b"x" * 101))
    session.close()
    assert (answer.reply.code, answer.stage) == (552, "mail")
    assert str(answer.reply).startswith("552 5.3.4 The mail has 101 octets")
    assert len(server.received) == 1


async def test_a_size_of_thousands_of_digits_is_no_limit(server: SmtpServer) -> None:
    server.extensions = ["PIPELINING", "SIZE " + "9" * 5000]
    session = await smtp.connect(relay(server))
    answer = await session.deliver(ENVELOPE)
    session.close()
    assert answer.reply.code == 250


async def test_an_acceptance_before_the_end_of_the_mail_is_not_believed(server: SmtpServer) -> None:
    server.script("b@example.com", Step("data", "354 go on\r\n250 2.0.0 queued"))
    session = await smtp.connect(relay(server))
    with pytest.raises(ConnectionLost, match="before the end of the mail: 250") as caught:
        await session.deliver(ENVELOPE)
    assert not caught.value.after_dot
    assert not session.is_usable


async def test_a_refusal_before_the_end_of_the_mail_counts_and_ends_the_session(server: SmtpServer) -> None:
    server.script("b@example.com", Step("data", "354 go on\r\n552 5.3.4 too big"))
    session = await smtp.connect(relay(server))
    answer = await session.deliver(ENVELOPE)
    assert (answer.reply.code, answer.stage) == (552, "data")
    assert not session.is_usable


@pytest.mark.parametrize("extensions", [["PIPELINING"], []], ids=["pipelining", "one by one"])
async def test_a_refusal_to_forget_the_mail_before_is_not_one_of_the_next_mail(
    server: SmtpServer, extensions: list[str]
) -> None:
    server.extensions, server.reset_refusal = extensions, "502 5.5.1 not implemented"
    server.script("no@example.com", Step("rcpt", "550 5.1.1 no such user"))
    session = await smtp.connect(relay(server))
    refused = await session.deliver(replace(ENVELOPE, recipient="no@example.com"))
    assert refused.stage == "recipient"
    with pytest.raises(ConnectionLost, match=r"RSET refused: 502 5\.5\.1") as caught:
        await session.deliver(ENVELOPE)
    assert not caught.value.after_dot
    assert not session.is_usable


@pytest.mark.parametrize("answer", ["354 more", "199 what", "600 no"])
async def test_a_session_ends_when_the_relay_may_still_wait_for_the_mail(
    server: SmtpServer, answer: str
) -> None:
    server.script("b@example.com", Step("content", answer))
    session = await smtp.connect(relay(server))
    assert (await session.deliver(ENVELOPE)).stage == "content"
    assert not session.is_usable
