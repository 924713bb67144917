"""The card of a running stack: its addresses after trying them, the key, a login address, and commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from card import asking

_WIDTH = 14


@dataclass(frozen=True)
class Card:
    """The values that the card shows; an empty value has no line.

    `recover` is the command that makes a new administrator's key, `login` the one that makes another login
    address; `patience_s` is how long to wait for the gateway's first answer. `pages` are further addresses
    and `hints` commands, by their labels. `senders` is the services' value of ALLOWED_SENDER_DOMAINS.
    """

    gateway: str
    key: str
    key_file: str
    recover: str
    login: str = "make login"
    proxy: str = ""
    patience_s: float = 20
    pages: Mapping[str, str] = field(default_factory=dict)
    hints: Mapping[str, str] = field(default_factory=dict)
    senders: str = ""

    def text(self) -> str:
        """Return the card after trying its addresses; those that do not answer are marked."""
        refusal = asking.why_key_fails(self.gateway, self.key, patience_s=self.patience_s)
        rows = {
            "API": self.gateway + (f", and {_tried(self.proxy)}" if self.proxy else ""),
            "console": self._console(refusal),
            "reference": _tried(f"{self.gateway}/docs"),
            "status": _tried(f"{self.gateway}/console/status"),
            **{name: _tried(address) for name, address in self.pages.items() if address},
            "senders": self._senders(),
            "API key": self.key,
            "": f"({f'{refusal}: {self.recover}' if refusal else f'also in {shlex.quote(self.key_file)}'})",
        }
        header = f'"Authorization: Bearer $(cat {shlex.quote(self.key_file)})"'
        try_it = f"curl -H {header} {self.gateway}/v1/stocks/AAPL"
        hints = {"try it": try_it, **{name: command for name, command in self.hints.items() if command}}
        parts = (("  ", {"Tickwire is ready.": ""}), ("    ", rows), ("    ", hints))
        return "\n" + "\n".join(
            "".join(f"{indent}{name:<{_WIDTH}}{value}".rstrip() + "\n" for name, value in part.items())
            for indent, part in parts
        )

    def _senders(self) -> str:
        if not self.senders:
            return "mail may come from anybody    (ALLOWED_SENDER_DOMAINS=none: from verified domains only)"
        others = "" if self.senders == "none" else f", and from {self.senders}"
        return f"mail may come from verified domains{others}"

    def _console(self, refusal: str | None) -> str:
        if refusal:
            return f"{self.gateway}/console/status    (asks for an API key)"
        try:
            address = asking.login_address(self.gateway, self.key)
        except asking.NoAnswer as error:
            return f"{self.gateway}/console/status    (no login address: {error})"
        about = f"(opens once, within {asking.LOGIN_MINUTES} minutes; for another one: {self.login})"
        return f"{address}\n{'':{_WIDTH + 4}}{about}"


def _tried(shown: str) -> str:
    """Return an address with its note, and with a mark if no server answers."""
    address = shown.split()[0]
    return shown if asking.answers(address) else f"{shown}    (does not answer)"
