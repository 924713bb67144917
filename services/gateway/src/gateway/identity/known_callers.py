"""The callers that this gateway has authenticated lately, with a share for each user."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace

from gateway.http.principal import Principal

MOST_KNOWN = 10_000
# A user has at most a thousand keys at a time, and gets as many access tokens as its issuer signs: with one
# more in use than are remembered, in turns, each would be looked up for every request.
MOST_KEYS_OF_USER = 1000
MOST_TOKENS_OF_USER = 1000


@dataclass(frozen=True, slots=True)
class Known:
    """The state of a credential in the database, and the time at which it was read."""

    principal: Principal
    read_at: float

    def doubted(self) -> Known:
        """Return this state as one that must be read again before its next use."""
        return replace(self, read_at=-math.inf)


class KnownCallers:
    """Remembers callers by the hash of their credential, so that memory contains no usable key.

    A user that has used up its share loses the credential of its own that was read the longest ago. With more
    than `MOST_KNOWN` of all users together, that is whosever was read the longest ago.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._shares: dict[tuple[int, bool], OrderedDict[bytes, None]] = {}

    def find(self, fingerprint: bytes) -> Known | None:
        """Return the state of a credential as it was read last, if it is remembered."""
        return self._known.get(fingerprint)

    def remember(self, fingerprint: bytes, known: Known) -> None:
        """Remember the state of a credential that was just read."""
        self.forget(fingerprint)
        has_key = known.principal.has_key
        share = self._shares.setdefault((known.principal.user_id, has_key), OrderedDict())
        self._known[fingerprint], share[fingerprint] = known, None
        if len(share) > (MOST_KEYS_OF_USER if has_key else MOST_TOKENS_OF_USER):
            self.forget(next(iter(share)))
        if len(self._known) > MOST_KNOWN:
            self.forget(next(iter(self._known)))

    def forget(self, fingerprint: bytes) -> None:
        """Forget a credential, whether it is remembered or not."""
        known = self._known.pop(fingerprint, None)
        if known is None:
            return
        name = (known.principal.user_id, known.principal.has_key)
        del self._shares[name][fingerprint]
        if not self._shares[name]:
            del self._shares[name]

    def doubt(self, user_id: int | None = None) -> None:
        """Have the credentials of a user, or all, read again before their next use."""
        for (of_user, _), share in self._shares.items():
            if user_id is None or of_user == user_id:
                for fingerprint in share:
                    self._known[fingerprint] = self._known[fingerprint].doubted()
