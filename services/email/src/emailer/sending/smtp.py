"""A thin SMTP client: one session to the relay, which uses pipelining where the relay offers it.

aiosmtplib needs four round trips per mail, and does not say whether a connection broke before or after the
final dot; both matter here.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from chassis.redaction import REDACTED
from emailer.errors import AuthenticationRefused, ConnectionLost, RelayUnreachable, TlsFailed
from emailer.sending import outcomes
from emailer.sending.hosts import TlsPolicy
from emailer.sending.outcomes import SmtpAnswer, SmtpReply, Stage
from emailer.sending.wire import Wire

# The codes with which a server rejects a command that it does not know.
_NO_EXTENSIONS = (500, 501, 502, 504)
_PART_BYTES = 256 * 1024
# RFC 1870: at most 20 digits. Python refuses to read thousands of them.
_SIZE = re.compile("[0-9]{1,20}")
_UNSAFE = re.compile(r"[\x00-\x20\x7f<>]")


@dataclass(frozen=True)
class SmtpRelay:
    """A relay that mails are handed to, and its settings.

    `timeout_s` bounds each reply, and each step of sending a mail; `dot_timeout_s` bounds the reply to the
    final dot, before which a relay may check a mail for minutes (RFC 5321 allows ten).
    """

    host: str
    port: int
    tls: TlsPolicy = "opportunistic"
    ca_file: str | None = None
    username: str | None = None
    password: str = ""
    hello: str = "localhost"
    timeout_s: float = 30
    dot_timeout_s: float = 600

    @property
    def name(self) -> str:
        """The relay's name, as attempts record it: `host:port`."""
        return f"{self.host}:{self.port}"

    @cached_property
    def tls_context(self) -> ssl.SSLContext:
        """The TLS context: it verifies the certificate, except with opportunistic TLS."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.tls == "opportunistic" and self.ca_file is None:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


@dataclass(frozen=True, slots=True)
class Envelope:
    """A mail for one recipient, as it goes over the wire. The lines of `content` end with CRLF."""

    sender: str
    recipient: str
    content: bytes
    needs_utf8: bool = False


class SmtpSession:
    """An open connection to the relay: greeted, encrypted and logged in as its settings say."""

    def __init__(self, wire: Wire, relay: SmtpRelay) -> None:
        self._wire = wire
        self.relay = relay
        self._extensions: dict[str, str] = {}
        self._unfinished = False
        self._logged_in = False
        self.tls = False
        self.deliveries = 0
        self.used_at = asyncio.get_running_loop().time()

    @property
    def is_usable(self) -> bool:
        """Whether another mail can be handed over on this session."""
        return self._wire.is_quiet

    async def introduce(self, *, encrypt: bool) -> None:
        """Greet, say EHLO, start TLS and log in. Raise `RelayUnreachable` or `AuthenticationRefused`."""
        if self.relay.tls == "implicit":
            await self._encrypt()
        greeting = (await self._wire.replies(1, timeout_s=self.relay.timeout_s))[0]
        _require(greeting, 220, "greeting")
        await self._hello()
        if encrypt and not self.tls:
            await self._start_tls()
        if self.relay.username is not None:
            if not self.tls and self.relay.tls != "off":
                raise RelayUnreachable("no TLS, and a password is sent in the clear only if TLS is off")
            _require(await self._authenticate(self.relay.username, self.relay.password), 235, "login")
            self._logged_in = True

    def obstacle(self, envelope: Envelope) -> SmtpReply | None:
        """Return the relay's reply to MAIL for a mail that it cannot carry, judged by its extensions."""
        if envelope.needs_utf8 and "SMTPUTF8" not in self._extensions:
            return SmtpReply(
                550, "5.6.7 The relay does not offer SMTPUTF8, which an address of this mail needs"
            )
        most = self._extensions.get("SIZE", "")
        if _SIZE.fullmatch(most) and 0 < int(most) < len(envelope.content):
            return SmtpReply(
                552, f"5.3.4 The mail has {len(envelope.content)} octets, the relay accepts {most}"
            )
        return None

    async def deliver(self, envelope: Envelope) -> SmtpAnswer:
        """Hand a mail over and return the decisive answer. Raise `ConnectionLost`."""
        if (obstacle := self.obstacle(envelope)) is not None:
            # The relay was not asked, so nothing is known about the sender.
            return SmtpAnswer(obstacle, "mail", logged_in=self._logged_in)
        reused = self.deliveries > 0
        self.deliveries += 1
        refused = await self._address(envelope)
        if refused is not None:
            self._unfinished = True
            reply, stage = refused
        else:
            dot_was_sent = True
            for part in _with_dots_doubled(envelope.content):
                # Part by part, because a transport copies what it cannot send at once.
                dot_was_sent = self._wire.is_quiet
                if not dot_was_sent:
                    break
                self._wire.write(part)
                dot_was_sent = await self._wire.drained(timeout_s=self.relay.timeout_s)
            # A reply that comes before the dot is about the mail in the middle, not about all of it.
            stage = "content" if dot_was_sent else "data"
            timeout_s = self.relay.dot_timeout_s if dot_was_sent else self.relay.timeout_s
            reply = (await self._wire.replies(1, timeout_s=timeout_s, after_dot=dot_was_sent))[0]
            if not dot_was_sent:
                # The relay waits for the rest of the mail, so nothing else can be sent on this session.
                self.abort()
                if reply.code < 400:
                    raise ConnectionLost(f"answer before the end of the mail: {reply}", after_dot=False)
            self.used_at = asyncio.get_running_loop().time()
        if reply.code == 421 or reply.code // 100 not in (2, 4, 5):
            # With any other answer, the relay may still wait for more of this mail.
            self.abort()
        return SmtpAnswer(reply, stage, logged_in=self._logged_in, reused=reused)

    def close(self) -> None:
        """Say goodbye without waiting for the answer."""
        self._wire.write(b"QUIT\r\n")
        self._wire.transport.close()

    def abort(self) -> None:
        """Drop the connection."""
        self._wire.abort()

    async def _address(self, envelope: Envelope) -> tuple[SmtpReply, Stage] | None:
        """Send the commands up to DATA; return a refusal and its stage, or None if the content may follow."""
        for address in (envelope.sender, envelope.recipient):
            if _UNSAFE.search(address):
                raise ValueError("an address with a separator must never come this far")
        parameters = " SMTPUTF8" if envelope.needs_utf8 else ""
        if "SIZE" in self._extensions:
            parameters += f" SIZE={len(envelope.content)}"
        commands: list[tuple[Stage, bytes]] = [
            ("mail", f"MAIL FROM:<{envelope.sender}>{parameters}\r\n".encode()),
            ("recipient", f"RCPT TO:<{envelope.recipient}>\r\n".encode()),
            ("data", b"DATA\r\n"),
        ]
        is_reset, self._unfinished = self._unfinished, False
        if is_reset:
            commands.insert(0, ("mail", b"RSET\r\n"))
        # The commands that may be sent before the reply to the first is known.
        at_once = len(commands) if "PIPELINING" in self._extensions else 1
        replies: list[SmtpReply] = []
        while len(replies) < len(commands) and (not replies or 200 <= replies[-1].code < 400):
            lines = [line for _, line in commands[len(replies) : len(replies) + at_once]]
            self._wire.write(b"".join(lines))
            replies += await self._wire.replies(len(lines), timeout_s=self.relay.timeout_s)
            if len(replies) % at_once:
                # The connection ended in the middle of the answers.
                break
        if is_reset and replies[0].code // 100 != 2:
            # A refusal to forget the mail before says nothing about this one.
            self.abort()
            raise ConnectionLost(f"RSET refused: {replies[0]}", after_dot=False)
        answers = zip(replies, (stage for stage, _ in commands), strict=False)
        refused = next((answer for answer in answers if not 200 <= answer[0].code < 400), None)
        if replies[-1].code == 354 and refused is not None:
            # The relay waits for a mail without a recipient: anything sent now would be taken for that mail.
            self.abort()
        if refused is None and replies[-1].code != 354:
            # Either the relay closed the connection, or its reply to DATA was not a go-ahead.
            self.abort()
            raise ConnectionLost(f"unexpected answer: {replies[-1]}", after_dot=False)
        return refused

    async def _say(self, line: str) -> SmtpReply:
        self._wire.write(line.encode() + b"\r\n")
        return (await self._wire.replies(1, timeout_s=self.relay.timeout_s))[0]

    async def _hello(self) -> None:
        reply = await self._say(f"EHLO {self.relay.hello}")
        if reply.code in _NO_EXTENSIONS:
            # A relay without extensions is greeted with HELO.
            reply = await self._say(f"HELO {self.relay.hello}")
            reply = SmtpReply(reply.code, reply.text.partition("\n")[0])
        _require(reply, 250, "hello")
        # Some old servers write AUTH=LOGIN, in addition to AUTH LOGIN or instead of it.
        lines = (line.replace("AUTH=", "AUTH ", 1) for line in reply.text.split("\n")[1:])
        self._extensions = {}
        for name, _, rest in (line.partition(" ") for line in lines):
            known = self._extensions.get(name.upper())
            self._extensions[name.upper()] = f"{known} {rest}" if known else rest

    async def _start_tls(self) -> None:
        if "STARTTLS" not in self._extensions:
            if self.relay.tls == "required":
                raise RelayUnreachable("TLS is required, but the relay does not offer STARTTLS")
            return
        reply = await self._say("STARTTLS")
        if reply.code != 220 and self.relay.tls == "opportunistic":
            return
        _require(reply, 220, "starttls")
        if not self._wire.is_quiet:
            raise RelayUnreachable("the relay sent more plain text after STARTTLS")
        await self._encrypt()
        # The extensions that were offered before TLS must be discarded (RFC 3207).
        await self._hello()

    async def _encrypt(self) -> None:
        try:
            transport = await asyncio.get_running_loop().start_tls(
                self._wire.transport,
                self._wire,
                self.relay.tls_context,
                server_hostname=self.relay.host,
                ssl_handshake_timeout=self.relay.timeout_s,
            )
        except OSError as error:
            raise TlsFailed(f"TLS with {self.relay.host} failed: {_text_of(error)}") from error
        assert transport is not None
        self._wire.connection_made(transport)
        self.tls = True

    async def _authenticate(self, username: str, password: str) -> SmtpReply:
        mechanisms = self._extensions.get("AUTH", "").upper().split()
        if "PLAIN" in mechanisms:
            both = _base64(f"\0{username}\0{password}")
            return _without(await self._say(f"AUTH PLAIN {both}"), both, password)
        if "LOGIN" not in mechanisms:
            raise AuthenticationRefused("the relay offers neither AUTH PLAIN nor AUTH LOGIN")
        reply = await self._say("AUTH LOGIN")
        for secret in (username, password):
            if reply.code == 334:
                reply = await self._say(_base64(secret))
        return _without(reply, _base64(password), password)


async def connect(relay: SmtpRelay) -> SmtpSession:
    """Open a session. Raise `RelayUnreachable` or `AuthenticationRefused`; each step has a deadline."""
    if relay.tls != "opportunistic":
        return await _connect(relay, encrypt=relay.tls == "required")
    try:
        return await _connect(relay, encrypt=True)
    except TlsFailed:
        # TLS is opportunistic: a relay whose TLS is broken still gets its mail, in the clear.
        return await _connect(relay, encrypt=False)


async def _connect(relay: SmtpRelay, *, encrypt: bool) -> SmtpSession:
    wire = Wire()
    session: SmtpSession | None = None
    try:
        async with asyncio.timeout(relay.timeout_s):
            await asyncio.get_running_loop().create_connection(lambda: wire, relay.host, relay.port)
        session = SmtpSession(wire, relay)
        await session.introduce(encrypt=encrypt)
    except BaseException as error:
        wire.abort()
        if isinstance(error, (OSError, TimeoutError, ConnectionLost)):
            raise RelayUnreachable(
                f"cannot connect to {relay.host}:{relay.port}: {_text_of(error)}"
            ) from error
        raise
    return session


def _without(reply: SmtpReply, *secrets: str) -> SmtpReply:
    """Return `reply` without `secrets`, as it is recorded: some relays echo the command."""
    text = reply.text
    for secret in filter(None, secrets):
        text = text.replace(secret, REDACTED)
    return SmtpReply(reply.code, text)


def _with_dots_doubled(content: bytes) -> Iterable[bytes]:
    """Yield `content` for DATA, with the final dot, in parts: a large mail is never copied as a whole."""
    end = b".\r\n" if content.endswith(b"\r\n") else b"\r\n.\r\n"
    for start in range(0, len(content) or 1, _PART_BYTES):
        part = content[start : start + _PART_BYTES].replace(b"\n.", b"\n..")
        if part.startswith(b".") and (start == 0 or content[start - 1 : start] == b"\n"):
            part = b"." + part
        yield part + end if start + _PART_BYTES >= len(content) else part


def _text_of(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _require(reply: SmtpReply, code: int, stage: Stage) -> None:
    if reply.code == code:
        return
    if outcomes.judge(SmtpAnswer(reply, stage)) == "login-refused":
        raise AuthenticationRefused(f"the relay refused the login ({stage}): {reply}")
    raise RelayUnreachable(f"{stage} refused: {reply}")
