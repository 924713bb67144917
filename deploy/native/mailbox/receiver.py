"""The SMTP side: accepts every message, unless a script or the recipient's name asks for a failure.

Scripts are set on the page, or with `PUT /api/v1/scripts`; they take precedence over names.

The recipient's local part (`+anything` may follow) selects an outcome:

| local part | what happens |
|---|---|
| `reject550`, `defer451` | RCPT is answered with that code |
| `datareject554`, `datadefer451` | the message is answered with that code and not stored |
| `greylist` | 451 for the first attempt of this sender and recipient, then accepted |
| `slow3` | the answer to RCPT takes 3 s (60 at most) |
| `dropbefore` | the connection is cut at DATA, before the message |
| `dropafter` | the message is stored, and the connection is cut instead of the answer |
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiosmtpd.smtp import SMTP, Envelope, Session

from native.mailbox.messages import Received, Store
from native.mailbox.scripts import Script, Scripts

_SCRIPT = re.compile(
    r"(reject|defer|datareject|datadefer)([45]\d\d)$|(slow)(\d{1,3})$|(greylist|dropbefore|dropafter)$",
    re.ASCII,
)
_LARGEST_MESSAGE = 35 * 1024 * 1024
_LONGEST_WAIT_S = 60


@dataclass(frozen=True)
class Limits:
    """The bounds of the SMTP server: there is one for each thing that a client can make grow.

    A message that comes in while there are as many as there may be waits up to `wait_s` seconds.
    """

    recipients: int = 100
    connections: int = 500
    messages_at_once: int = 16
    wait_s: float = 10
    greylisted: int = 10_000


class Receiver:
    """Puts accepted messages into the store; `scripted` enables the table above."""

    def __init__(
        self,
        store: Store,
        *,
        scripted: bool = True,
        keep: Callable[[Received], None] = lambda _: None,
        limits: Limits = Limits(),
    ) -> None:
        self._store = store
        self._scripted = scripted
        self._keep = keep
        self.scripts = Scripts()
        self.limits = limits
        self.connections = 0
        self.places = asyncio.Semaphore(limits.messages_at_once)
        # The senders and recipients that are not put off again, the oldest first.
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()

    def protocol(self) -> SMTP:
        """Return the protocol of one connection."""
        return _Connection(self, hostname="tickwire-mailbox", ident="tickwire mailbox", enable_SMTPUTF8=True,
                           data_size_limit=_LARGEST_MESSAGE)  # fmt: skip

    def script(self, address: str) -> tuple[str, int]:
        """Return the behaviour that the address asks for, as (action, number); ("", 0) for ordinary mail."""
        match = _SCRIPT.match(address.partition("@")[0].partition("+")[0].lower())
        if not self._scripted or match is None:
            return "", 0
        return match[1] or match[3] or match[5], int(match[2] or match[4] or 0)

    async def handle_RCPT(  # noqa: N802  the library looks methods up by these names
        self, server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Return the reply to RCPT TO: that of the recipient's script if it has one, or 250 or a refusal."""
        if len(envelope.rcpt_tos) >= self.limits.recipients:
            return f"452 4.5.3 Too many recipients: a message has {self.limits.recipients} at most"
        script = self.scripts.take(address)
        if script is not None:
            if script.action == "slow":
                await asyncio.sleep(script.seconds)
            elif script.stage == "rcpt":
                if script.action == "drop":
                    _cut(server)
                return script.reply
            else:
                _planned(envelope)[address] = script
        action, number = self.script(address)
        if action == "slow":
            await asyncio.sleep(min(number, _LONGEST_WAIT_S))
        if action in ("reject", "defer"):
            return _reply(number)
        attempt = (envelope.mail_from or "", address)
        if action == "greylist" and attempt not in self._seen:
            self._seen[attempt] = None
            if len(self._seen) > self.limits.greylisted:
                self._seen.popitem(last=False)
            return "451 4.7.1 Greylisted, try again in 1 seconds"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.extend(options)
        return "250 2.1.5 OK"

    async def handle_DATA(  # noqa: N802
        self, server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        """Answer the message itself."""
        planned = list(_planned(envelope).values())
        for script in planned:
            if script.action in ("fail", "defer"):
                return script.reply
        asked = dict(self.script(address) for address in envelope.rcpt_tos)
        for action in ("datareject", "datadefer"):
            if action in asked:
                return _reply(asked[action])
        content = envelope.original_content or b""
        message = Received(content, envelope.mail_from or "", tuple(envelope.rcpt_tos))
        # Parsed and stored now, in a thread, so that listing messages is quick.
        try:
            await asyncio.to_thread(lambda: (message.summary, self._keep(message)))
        except OSError as error:
            return f"452 4.3.1 The message could not be stored: {error.strerror}"
        self._store.add(message)
        if "dropafter" in asked or planned:
            _cut(server)
        return f"250 2.0.0 OK: kept as {message.id}"


def _planned(envelope: Envelope) -> dict[str, Script]:
    """Return the scripts for the message itself, by recipient; the library's envelope carries them."""
    found: dict[str, Script] = envelope.__dict__.setdefault("planned", {})
    return found


class _Connection(SMTP):
    def __init__(self, receiver: Receiver, **settings: Any) -> None:
        super().__init__(receiver, **settings)
        self._receiver = receiver

    async def _handle_client(self) -> None:
        if self._receiver.connections >= self._receiver.limits.connections:
            await self.push("421 4.3.2 Too many connections; try again later")
            self._writer.close()
            return
        self._receiver.connections += 1
        try:
            await super()._handle_client()
        finally:
            self._receiver.connections -= 1

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        recipients = self.envelope.rcpt_tos if self.envelope else []
        if any(self._receiver.script(address)[0] == "dropbefore" for address in recipients):
            _cut(self)
            return
        try:
            async with asyncio.timeout(self._receiver.limits.wait_s):
                await self._receiver.places.acquire()
        except TimeoutError:
            await self.push("452 4.3.1 Too many messages are coming in; try again later")
            return
        try:
            await super().smtp_DATA(arg)
        finally:
            self._receiver.places.release()


def _cut(connection: SMTP) -> None:
    if connection.transport:
        cast(asyncio.WriteTransport, connection.transport).abort()


def _reply(code: int) -> str:
    words = "refused" if code >= 500 else "put off"
    return f"{code} {code // 100}.0.0 Scripted by the recipient's name: {words}"
