"""A flood of mails that are hard to parse, into the development mailbox."""

from __future__ import annotations

import asyncio
import smtplib
from contextlib import closing
from itertools import cycle

from faults.floods.address import Address
from native.ports import HOST
from support.broken_mails import BROKEN_MAILS

# Ten times what is taken, in lines that are as long as they may be.
LARGE_MIB = 350
_LINE = b"x" * 998 + b"\r\n"
_PART = _LINE * 1049
_FROM, _TO = "guest@example.com", "friend@example.com"


async def mails(at: Address) -> str:
    """Send every broken mail again and again, and beside them one ten times as large as any may be."""
    sent, large = await asyncio.gather(asyncio.to_thread(_send_all, at), asyncio.to_thread(_send_large, at))
    return f"{sent} broken mails; {large}"


def _send_all(at: Address) -> int:
    sent = 0
    for raw in cycle(BROKEN_MAILS.values()):
        if at.is_over:
            break
        try:
            with smtplib.SMTP(HOST, at.mailbox_smtp, timeout=30) as server:
                server.sendmail(_FROM, [_TO], raw)
        except (OSError, smtplib.SMTPException):
            continue
        sent += 1
    return sent


def _send_large(at: Address) -> str:
    """Send a mail without saying before how large it is, for which it would be refused at once."""
    sent = 0
    try:
        # Closed without a farewell, which a busy mailbox would answer late.
        with closing(smtplib.SMTP(HOST, at.mailbox_smtp, timeout=10)) as server:
            server.ehlo()
            server.docmd("MAIL", f"FROM:<{_FROM}>")
            server.docmd("RCPT", f"TO:<{_TO}>")
            server.docmd("DATA")
            while sent < LARGE_MIB and not at.is_late:
                server.send(_PART)
                sent += 1
            answer = "not to its end" if sent < LARGE_MIB else f"answered {server.docmd('.')[0]}"
    except (OSError, smtplib.SMTPException) as error:
        answer = type(error).__name__
    return f"{sent} MiB of one mail, {answer}"
