"""Limits of destination domains: how many connections at a time, and how many attempts in a period."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from contracts import addresses

EVERY_OTHER = "*"
# A rate's period is divided into this many slots: attempts within any period never exceed the rate, and in
# the long run fall short of it by at most one part in as many.
_SLOTS = 100
_SHORTEST_SLOT_S = 0.01
_LONGEST_PERIOD_S = 86_400
_RULE = re.compile(r"(?P<count>[1-9]\d{0,6})(?:/(?P<per_s>[1-9]\d{0,4}))?")


@dataclass(frozen=True, slots=True)
class Rate:
    """Up to `attempts` begin within any `per_s` seconds."""

    attempts: int
    per_s: int

    @property
    def slot_s(self) -> float:
        """The length in seconds of a slot in which attempts are counted."""
        return max(_SHORTEST_SLOT_S, self.per_s / _SLOTS)

    @property
    def window_s(self) -> float:
        """The seconds for which an attempt counts, from the beginning of its slot."""
        return self.per_s + self.slot_s


@dataclass(frozen=True, slots=True)
class DomainLimit:
    """The connections of one process to a domain, and the rate of all processes together; None: no limit."""

    connections: int | None = None
    rate: Rate | None = None


_NONE = DomainLimit()


class DomainLimits:
    """The limits by destination domain; `*` stands for every domain that is not named."""

    def __init__(self, by_domain: Mapping[str, DomainLimit]) -> None:
        self._by_domain = by_domain
        self._other = by_domain.get(EVERY_OTHER, _NONE)

    @classmethod
    def read(cls, text: str) -> DomainLimits:
        """Return the limits of a setting: `gmail.com=4,gmail.com=100/60,*=20/1`.

        A number is how many connections one process may use for a domain; `100/60` is how many attempts may
        begin within 60 seconds. A domain may have both. Raise `ValueError` naming the part that is invalid.
        """
        found: dict[str, DomainLimit] = {}
        for part in filter(None, (part.strip() for part in text.split(","))):
            key, _, value = (piece.strip() for piece in part.partition("="))
            rule, domain = _RULE.fullmatch(value), key if key == EVERY_OTHER else _read_domain(key)
            if rule is None or domain is None or int(rule["per_s"] or 1) > _LONGEST_PERIOD_S:
                raise ValueError(
                    f"{part!r} is not a limit: write example.com=100/60 for 100 attempts in 60 seconds (at "
                    "most a day), example.com=4 for 4 connections, or * as the domain for all others"
                )
            limit, count = found.get(domain, _NONE), int(rule["count"])
            if (limit.connections if rule["per_s"] is None else limit.rate) is not None:
                raise ValueError(f"{part!r} limits {domain} a second time")
            found[domain] = (
                replace(limit, connections=count)
                if rule["per_s"] is None
                else replace(limit, rate=Rate(count, int(rule["per_s"])))
            )
        return cls(found)

    def of(self, domain: str) -> DomainLimit:
        """Return the limit of a domain."""
        return self._by_domain.get(in_ascii(domain), self._other)


UNLIMITED = DomainLimits({})


def in_ascii(domain: str) -> str:
    """Return the ASCII form of a destination domain.

    If an address's local part is not ASCII, its domain is stored as Unicode, too.
    """
    return domain if domain.isascii() else _read_domain(domain) or domain


def _read_domain(text: str) -> str | None:
    try:
        return addresses.parse(f"a@{text}").domain
    except ValueError:
        return None
