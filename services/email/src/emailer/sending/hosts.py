"""The relay hosts as an operator writes them: `relay-1.example.com, relay-2.example.com:587`."""

from __future__ import annotations

import re
from typing import Literal

TlsPolicy = Literal["off", "opportunistic", "required", "implicit"]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_LARGEST_PORT = 65_535


def read(text: str) -> list[tuple[str, int | None]]:
    """Return the hosts in `text`, in order, each with its port or None.

    An IPv6 address with a port is written in brackets. Raise `ValueError` for an invalid or repeated host.
    """
    found = [_read_one(part.strip()) for part in text.split(",")]
    if len(set(found)) < len(found):
        raise ValueError("the same relay is listed twice")
    return found


def _read_one(text: str) -> tuple[str, int | None]:
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d+))?", text)
    if bracketed is not None:
        host, port = bracketed[1], bracketed[2]
    elif text.count(":") > 1 and re.fullmatch(r"[0-9A-Fa-f:.]+", text):
        host, port = text, None
    else:
        host, _, port = text.partition(":")
        if not _HOST.fullmatch(host) or (":" in text and not port.isdecimal()):
            raise ValueError(f"{text!r} is not a relay host; write host or host:port, separated by commas")
    if port and not 1 <= int(port) <= _LARGEST_PORT:
        raise ValueError(f"the port of {text!r} must be 1 to {_LARGEST_PORT}")
    return host, int(port) if port else None
