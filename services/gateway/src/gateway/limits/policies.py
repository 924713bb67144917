"""The limits as configured: how many requests of a class a caller has in each window."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.http.rates import RateClass

LONGEST_WINDOW_S = 86_400
MOST_IN_A_WINDOW = 1_000_000_000
_WINDOW_S = 60
_LIMIT = re.compile(r"(?P<name>[a-z]+)=(?P<most>[0-9]{1,10})(?:/(?P<window_s>[0-9]{1,5}))?")


class DefaultLimit:
    """Requests of each class that a caller has in a minute: more than usual clients send."""

    QUOTE = 60_000
    READ = 30_000
    WRITE = 12_000
    SEND = 60_000
    CHAT = 12_000
    BATCH = 6_000


@dataclass(frozen=True, slots=True)
class Policy:
    """A caller has `most` requests of a class in each window of `window_s` seconds."""

    most: int
    window_s: int


DEFAULT_TEXT = ",".join(f"{rate}={getattr(DefaultLimit, rate.name)}/{_WINDOW_S}" for rate in RateClass)


def read_policies(text: str) -> Mapping[RateClass, Policy]:
    """Return the limits in `text`: `quote=60000/60,read=30000/60`. Raise `ValueError`.

    A class that is not named, or has 0 requests, has no limit. Without a window it is one of a minute.
    """
    found: dict[RateClass, Policy] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _LIMIT.fullmatch(part)
        if match is None:
            raise ValueError(f"{part!r} is not <class>=<requests>/<seconds>, for example quote=60000/60")
        name, policy = match["name"], Policy(int(match["most"]), int(match["window_s"] or _WINDOW_S))
        if name not in set(RateClass):
            raise ValueError(f"{name!r} is no class; there are {', '.join(RateClass)}")
        if RateClass(name) in found:
            raise ValueError(f"{name} is named twice")
        if not 1 <= policy.window_s <= LONGEST_WINDOW_S:
            raise ValueError(f"{part!r}: a window has 1 to {LONGEST_WINDOW_S} seconds")
        if policy.most > MOST_IN_A_WINDOW:
            raise ValueError(f"{part!r}: a limit has at most {MOST_IN_A_WINDOW} requests; 0 for no limit")
        found[RateClass(name)] = policy
    return {rate: policy for rate, policy in found.items() if policy.most}
