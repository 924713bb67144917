"""A flood of mails that are hard to parse, into the development mailbox."""

from __future__ import annotations

import asyncio
import smtplib
from itertools import cycle

from faults.floods.address import Address
from native.ports import HOST
from support.broken_mails import BROKEN_MAILS

_LARGE = b"Subject: large\r\n\r\n" + b"x\r\n" * (12 << 20)


async def mails(at: Address) -> str:
    """Send every broken mail again and again, and one that is larger than what is taken."""
    return await asyncio.to_thread(_send_all, at)


def _send_all(at: Address) -> str:
    sent = 0
    for raw in cycle((*BROKEN_MAILS.values(), _LARGE)):
        if at.is_over:
            break
        sent += _send(at, raw)
    return f"{sent} broken mails"


def _send(at: Address, raw: bytes) -> bool:
    try:
        with smtplib.SMTP(HOST, at.mailbox_smtp, timeout=30) as server:
            server.sendmail("guest@example.com", ["friend@example.com"], raw)
    except (OSError, smtplib.SMTPException):
        return False
    return True
