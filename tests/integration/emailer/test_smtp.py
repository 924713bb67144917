"""The SMTP client against a real server: pipelining, TLS, login, and refusals on the way in."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from emailer.errors import AuthenticationRefused, ConnectionLost, RelayUnreachable
from emailer.sending import smtp
from emailer.sending.smtp import Envelope, SmtpRelay
from support.doubles import smtp as double
from support.doubles.smtp import STOP_READING, SmtpServer, Step
from support.waiting import until

ENVELOPE = Envelope("a@example.com", "b@example.com", b"Subject: x\r\n\r\nHello\r\n")


def relay(server: SmtpServer, **fields: object) -> SmtpRelay:
    usual = {"host": "localhost", "port": server.port, "tls": "off", "timeout_s": 5}
    return SmtpRelay(**(usual | fields))  # type: ignore[arg-type]  # the tests' own fields


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a key and a certificate for localhost in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, found, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ),
            *("-keyout", str(key), "-out", str(found), "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    both.write_text(key.read_text() + found.read_text())
    return both


@pytest.fixture
async def tls_server(certificate: Path) -> AsyncIterator[SmtpServer]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    async with double.running(SmtpServer(tls=context)) as running:
        yield running


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


async def test_a_big_mail_arrives_whole(server: SmtpServer) -> None:
    content = b"".join(b"%d line\r\n" % number for number in range(100_000))
    session = await smtp.connect(relay(server))
    assert (await session.deliver(Envelope("a@example.com", "b@example.com", content))).reply.code == 250
    session.close()
    assert server.received[0].content == content


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


async def test_a_relay_that_reads_slowly_gets_a_mail_as_long_as_it_reads() -> None:
    content = (b"x" * 70 + b"\r\n") * 280_000
    # Twice the time-out in all. Both ends share the loop: while a busy machine holds it up, nothing moves.
    async with double.running(SmtpServer(buffer_bytes=1 << 16, read_delay_s=0.03)) as server:
        session = await smtp.connect(relay(server, timeout_s=2))
        answer = await session.deliver(Envelope("a@example.com", "b@example.com", content))
        session.close()
    assert answer.reply.code == 250
    assert len(server.received[0].content) == len(content)


async def test_a_relay_that_stops_reading_before_the_dot_has_no_mail() -> None:
    content = (b"x" * 70 + b"\r\n") * 280_000
    async with double.running(SmtpServer(buffer_bytes=1 << 16)) as server:
        server.script("b@example.com", Step("content", STOP_READING))
        session = await smtp.connect(relay(server, timeout_s=0.3))
        with pytest.raises(ConnectionLost, match="accepted no data for") as caught:
            await session.deliver(Envelope("a@example.com", "b@example.com", content))
    assert not caught.value.after_dot


async def test_a_relay_may_take_longer_for_a_whole_mail_than_for_a_command() -> None:
    async with double.running(SmtpServer(dot_delay_s=2)) as server:
        usual = relay(server, timeout_s=1)
        session = await smtp.connect(usual)
        answer = await session.deliver(ENVELOPE)
        session.close()
    assert (usual.dot_timeout_s, answer.reply.code) == (600, 250)


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
