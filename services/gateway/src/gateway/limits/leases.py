"""The part of a caller's limit that one gateway holds in a window: tokens to spend without a question."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass

from gateway.limits.policies import Policy

# A lease far from the limit is at most one divided by this of what is free; the query has the same number.
SHARE_OF_FREE = 8


@dataclass(frozen=True, slots=True)
class Question:
    """A gateway's report about a lease, and its request for more; `most` is the whole limit.

    `spent` counts since the last question. The gateway gives `back` the tokens that it does not use
    (negative: it has spent as many without a lease). It needs `need` tokens for requests that wait, and
    wishes to hold `wish` in all, for those that may come.
    """

    who: str
    starts_at: int
    most: int
    spent: int
    back: int
    need: int
    wish: int


@dataclass(frozen=True, slots=True)
class Standing:
    """The answer: what all gateways have `taken` of the limit and `spent` of that, and what was granted."""

    taken: int
    spent: int
    granted: int


class Lease:
    """The tokens of one caller and class in the current window, and what is known of other gateways.

    What a key spends is also spent of the lease of its owner, which is `above`.
    Windows are aligned to the clock, in Unix time. Nothing here waits: `question` and `learn` are called
    before and after the exchange with the database, during which tokens can be spent.
    """

    __slots__ = (
        "above",
        "answered",
        "ends_at",
        "field",
        "most",
        "need",
        "owner_id",
        "policy_field",
        "recent",
        "refused_until",
        "spent",
        "spent_by_all",
        "starts_at",
        "taken_by_all",
        "tokens",
        "unleased",
        "who",
    )

    def __init__(
        self, who: str, policy: Policy, fields: tuple[bytes, bytes], now: float, *, owner_id: str = ""
    ) -> None:
        self.who = who
        self.owner_id = owner_id
        self.most = policy.most
        self.policy_field, self.field = fields
        self.above: Lease | None = None
        # The tokens that waiting requests need, and a future that ends with the next answer.
        self.need = 0
        self.answered: asyncio.Future[None] | None = None
        self.begin(now, policy.window_s)

    def begin(self, now: float, window_s: int) -> None:
        """Begin the window of `now`; what was left of the previous one is void."""
        self.starts_at = int(now // window_s) * window_s
        self.ends_at = self.starts_at + window_s
        self.tokens = self.spent = self.unleased = self.recent = 0
        self.taken_by_all = self.spent_by_all = 0
        # Set while other gateways hold what is left and do not return it.
        self.refused_until = 0.0

    @property
    def remaining(self) -> int:
        """The tokens left of the limit as far as this gateway knows; there may be fewer."""
        return max(0, self.most - self.spent_by_all - self.spent)

    @property
    def within_reach(self) -> int:
        """The tokens that this gateway holds, and those that none held at the last answer."""
        return self.tokens + max(0, self.most - self.taken_by_all)

    @property
    def is_at_rest(self) -> bool:
        """Whether there is nothing to report, to return or to wait for."""
        return not (self.tokens or self.spent or self.unleased or self.recent or self.need)

    def spend(self, cost: int) -> bool:
        """Spend leased tokens, if there are enough."""
        if self.tokens < cost:
            return False
        self.tokens -= cost
        self.spent += cost
        self.recent += cost
        return True

    def spend_unleased(self, cost: int) -> bool:
        """Spend tokens without a lease, while the database grants none."""
        if self.remaining < cost:
            return False
        self.unleased += max(0, cost - self.tokens)
        self.tokens = max(0, self.tokens - cost)
        self.spent += cost
        self.recent += cost
        return True

    def question(self, *, is_due: bool) -> Question:
        """Return the question of this lease; what it gives back can no longer be spent.

        When it `is_due`, about twice a second, what was not spent lately goes back, and what was spent
        lately is leased again.
        """
        wish = self.need + self.recent
        back = -self.unleased
        if is_due:
            free = self.most - self.taken_by_all
            kept = max(self.need, min(2 * self.recent, max(0, free + self.tokens) // SHARE_OF_FREE))
            surplus = max(0, self.tokens - kept)
            self.tokens -= surplus
            back += surplus
            wish, self.recent = max(0, kept - self.tokens), 0
        needed = max(0, self.need - self.tokens)
        asked = Question(self.who, self.starts_at, self.most, self.spent, back, needed, wish)
        self.unleased = 0
        return asked

    def learn(self, asked: Question, found: Standing) -> None:
        """Apply the answer to a question."""
        if asked.starts_at != self.starts_at:
            return
        self.tokens += found.granted
        self.spent -= asked.spent
        self.taken_by_all, self.spent_by_all = found.taken, found.spent

    def forget(self, asked: Question) -> None:
        """Take back a question that may not have arrived; tokens that it gave back stay lost.

        What was spent is reported again: it may count twice, and is never lost.
        """
        if asked.starts_at == self.starts_at:
            self.unleased += max(0, -asked.back)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the `RateLimit` fields of an answer that is sent now.

        They tell of the owner's limit, too, where less is left of that.
        """
        left_s = max(0, math.ceil(self.ends_at - time.time()))
        policy, left = self.policy_field, b"%s;r=%d;t=%d" % (self.field, self.remaining, left_s)
        above = self.above
        if above is not None and above.remaining < self.remaining:
            policy += b", " + above.policy_field
            left += b", %s;r=%d;t=%d" % (above.field, above.remaining, left_s)
        return [(b"ratelimit-policy", policy), (b"ratelimit", left)]
