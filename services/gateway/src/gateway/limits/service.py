"""The limits of callers: requests are counted exactly over all gateways, mostly without the database."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from chassis import beats, metrics
from chassis.errors import InvalidInput
from chassis.postgres import Postgres
from gateway.errors import RateLimited
from gateway.http.calls import Call
from gateway.http.principal import Principal
from gateway.http.rates import LimitHeaders, RateClass
from gateway.limits import repository
from gateway.limits.exchange import LeaseExchange
from gateway.limits.inputs import ClassUsage, LimitUsage, OwnerUsage
from gateway.limits.leases import Lease
from gateway.limits.policies import Policy

# How often tokens that are not needed are returned; those of an idle lease are the second time.
SETTLED_EVERY_S = 0.5
# How long a request near the limit waits for tokens that other gateways return, and how often it asks.
RETURNED_WITHIN_S = 1.25
_ASK_EVERY_S = 0.1
# How long requests are refused at once after tokens were not returned, such as those of a killed gateway.
_REFUSED_FOR_S = 1.0
# The callers of one class that a gateway remembers at a time, the owners, and the callers of one owner: as
# many as it may have keys, while it can make new ones all the time.
MOST_LEASES = 10_000
MOST_LEASES_OF_OWNER = 1_000
_KEPT_FOR_S = 600
_REMOVED_AT_ONCE = 1000


class _Leases:
    """The leases of a class and policy, by the name of whom they belong to."""

    __slots__ = ("_fields", "_of_owner", "_policy", "leases")

    def __init__(self, name: str, policy: Policy) -> None:
        self._policy = policy
        self._fields = (f'"{name}";q={policy.most};w={policy.window_s}'.encode(), f'"{name}"'.encode())
        self.leases: dict[str, Lease] = {}
        self._of_owner: dict[str, dict[str, Lease]] = {}

    def lease_of(self, who: str, owner_id: str, now: float) -> Lease:
        """Return the lease of `who`, a caller of this owner, in the window of `now`, in Unix time."""
        lease = self.leases.get(who)
        if lease is None:
            own = self._of_owner.get(owner_id, {})
            # What it held is lost until the window ends.
            if len(own) >= MOST_LEASES_OF_OWNER:
                self._forget(next(iter(own.values())))
            elif len(self.leases) >= MOST_LEASES:
                self._forget(next(iter(self.leases.values())))
            lease = self.leases[who] = Lease(who, self._policy, self._fields, now, owner_id=owner_id)
            self._of_owner.setdefault(owner_id, {})[who] = lease
        elif lease.ends_at <= now:
            lease.begin(now, self._policy.window_s)
        return lease

    def forget_ended(self, now: float) -> None:
        """Forget the windows that are over at `now`, in Unix time."""
        for lease in [lease for lease in self.leases.values() if lease.ends_at <= now and not lease.need]:
            self._forget(lease)

    def _forget(self, lease: Lease) -> None:
        del self.leases[lease.who]
        own = self._of_owner[lease.owner_id]
        del own[lease.who]
        if not own:
            del self._of_owner[lease.owner_id]


class _Limit:
    """The limits of one class: of each caller, and of all callers of an owner together.

    It also has what was decided since the last look.
    """

    __slots__ = ("allowed", "alone", "of_callers", "of_owners", "policy", "rate", "refused")

    def __init__(self, rate: RateClass, policy: Policy, owner_factor: int) -> None:
        self.rate = rate
        self.policy = policy
        self.of_callers = _Leases(rate, policy)
        self.of_owners = _Leases(f"{rate}-owner", Policy(policy.most * owner_factor, policy.window_s))
        self.allowed = self.refused = self.alone = 0

    def leases_of(self, principal: Principal) -> tuple[Lease, Lease]:
        """Return the leases of a caller and of its owner in the current window."""
        now, owner_id = time.time(), principal.owner_id
        lease = self.of_callers.lease_of(_name_of(principal), owner_id, now)
        lease.above = above = self.of_owners.lease_of(f"owner:{owner_id}", owner_id, now)
        return lease, above

    def all_leases(self) -> list[Lease]:
        """Return the leases of callers and of owners."""
        return [*self.of_callers.leases.values(), *self.of_owners.leases.values()]

    def count(self) -> None:
        """Add the decisions to the metrics; to do so for each would take longer than the decision."""
        for outcome in ("allowed", "refused", "alone"):
            number = getattr(self, outcome)
            if number:
                metrics.RATE_LIMITED.labels(self.rate.value, outcome).inc(number)
                setattr(self, outcome, 0)


class LimitService:
    """Counts the requests of each caller and class in windows that are aligned to the clock.

    All callers of one owner together have `owner_factor` times the limit of one: an owner may make a thousand
    keys, and new ones at any time.

    A gateway leases tokens of the limit, many while it is far from being reached, and spends them without
    asking. Near the limit it asks for each request, so that all gateways together never let more through.
    """

    def __init__(
        self,
        postgres: Postgres,
        policies: Mapping[RateClass, Policy],
        exchange: LeaseExchange,
        *,
        owner_factor: int,
    ) -> None:
        self._postgres = postgres
        self._limits = {rate: _Limit(rate, policy, owner_factor) for rate, policy in policies.items()}
        self._exchange = exchange
        self._is_active = asyncio.Event()

    async def charge(self, principal: Principal, rate: RateClass, cost: int = 1) -> LimitHeaders | None:
        """Count a request as `cost` requests of its class; return the headers of its answer.

        Raise `RateLimited` beyond the limit, and `InvalidInput` for a cost above the whole limit.
        """
        limit = self._limits.get(rate)
        if limit is None:
            return None
        lease = limit.of_callers.leases.get(_name_of(principal))
        if lease is not None and lease.ends_at > time.time() and _spend(lease, cost):
            limit.allowed += 1
            return lease.headers
        return await self._charge_slowly(limit, principal, cost)

    async def usage(self, call: Call) -> LimitUsage:
        """Return what the caller has used in the current windows, as far as gateways have reported it."""
        leases = [(limit, *limit.leases_of(call.principal)) for limit in self._limits.values()]
        if self._exchange.is_shared:
            await asyncio.gather(
                *(self._exchange.answer(limit.rate, one) for limit, *both in leases for one in both)
            )
        return LimitUsage(
            data=[
                ClassUsage(
                    name=limit.rate,
                    limit=lease.most,
                    window_s=limit.policy.window_s,
                    used=lease.most - lease.remaining,
                    remaining=lease.remaining,
                    resets_at=datetime.fromtimestamp(lease.ends_at, UTC),
                    owner=OwnerUsage(
                        limit=above.most, used=above.most - above.remaining, remaining=above.remaining
                    ),
                )
                for limit, lease, above in leases
            ],
            shared=self._exchange.is_shared,
        )

    def remembered(self, rate: RateClass) -> int:
        """Return the number of callers of a class that are remembered."""
        return len(self._limits[rate].of_callers.leases)

    async def settle(self) -> None:
        """Report what was spent, and return what is not needed, until cancelled."""
        while True:
            await self._is_active.wait()
            self._is_active.clear()
            while self._settle():
                await beats.following(SETTLED_EVERY_S)

    async def give_back(self) -> None:
        """Return all tokens at the end of the process, so that other gateways have them at once."""
        for limit in self._limits.values():
            limit.count()
            for lease in limit.all_leases():
                lease.recent = 0
        if not self._exchange.is_shared:
            return
        await asyncio.gather(
            *(
                self._exchange.answer(limit.rate, lease, is_due=True)
                for limit in self._limits.values()
                for lease in limit.all_leases()
                if not lease.is_at_rest
            )
        )

    async def remove_old(self) -> None:
        """Remove windows that ended a while ago, in short statements."""
        removed = _REMOVED_AT_ONCE
        while removed == _REMOVED_AT_ONCE:
            async with self._postgres.connection() as connection:
                removed = await repository.remove_old(
                    connection, int(time.time()) - _KEPT_FOR_S, _REMOVED_AT_ONCE
                )
            metrics.REMOVED.labels("window").inc(removed)

    async def _charge_slowly(self, limit: _Limit, principal: Principal, cost: int) -> LimitHeaders:
        """Get tokens from the database, and from other gateways that have some left.

        They are spent together, of the caller and of its owner, or not at all.
        """
        if cost > limit.policy.most:
            raise InvalidInput(
                f"The request counts as {cost} of the class {limit.rate}, of which {limit.policy.most} are "
                f"allowed in {limit.policy.window_s} s; send it in parts."
            )
        self._is_active.set()
        has_asked, give_up_at = False, time.monotonic() + RETURNED_WITHIN_S
        while True:
            # Looked up each time: a window may end meanwhile.
            leases = lease, _ = limit.leases_of(principal)
            if _spend(lease, cost, in_turn=has_asked):
                limit.allowed += 1
                return lease.headers
            now, is_shared = time.time(), self._exchange.is_shared
            for one in leases:
                is_held = is_shared and one.tokens < cost and one.refused_until > now
                if is_held or one.remaining < cost:
                    raise _refusal(limit, lease, one, cost)
            if not is_shared:
                for one in leases:
                    one.spend_unleased(cost)
                limit.alone += 1
                return lease.headers
            # Both, should the clock have been set back between the beginnings of their windows.
            short = [one for one in leases if one.tokens < cost] or leases
            if has_asked:
                # Tokens of one answer may have been spent by another request, or their window may be over.
                held = [one for one in short if one.within_reach < cost]
                if held and time.monotonic() > give_up_at:
                    held[0].refused_until = now + _REFUSED_FOR_S
                    raise _refusal(limit, lease, held[0], cost)
                await asyncio.sleep(_ASK_EVERY_S)
            await asyncio.gather(*(self._exchange.answer(limit.rate, one, need=cost) for one in short))
            has_asked = True

    def _settle(self) -> bool:
        """Begin the exchange of all leases that are due; return whether there are any leases."""
        now = time.time()
        for limit in self._limits.values():
            limit.count()
            limit.of_callers.forget_ended(now)
            limit.of_owners.forget_ended(now)
            due = [lease for lease in limit.all_leases() if not lease.is_at_rest]
            self._exchange.begin(limit.rate, due, is_due=True)
        return any(limit.all_leases() for limit in self._limits.values())


def _name_of(principal: Principal) -> str:
    """Return the name under which a caller is counted: its key, or its user for each access token."""
    return principal.key_id if principal.has_key else f"user:{principal.user_id}"


def _spend(lease: Lease, cost: int, *, in_turn: bool = False) -> bool:
    """Spend tokens of a caller and of its owner, if both have enough.

    What requests need that wait for tokens belongs to them: only one that has waited is `in_turn`, and
    others have the rest. Without it, all that come while one waits would wait and ask, too, without end.
    """
    above = lease.above
    if above is None or lease.tokens < cost or above.ends_at != lease.ends_at:
        return False
    if not in_turn and (lease.tokens < lease.need + cost or above.tokens < above.need + cost):
        return False
    return above.spend(cost) and lease.spend(cost)


def _refusal(limit: _Limit, lease: Lease, short: Lease, cost: int) -> RateLimited:
    """Return the refusal of a request with this lease, because there is not enough in `short`."""
    limit.refused += 1
    who, rate = "The key" if short is lease else "All keys of the user together", limit.rate
    counts = "" if cost == 1 else f" The request counts as {cost}, and {short.remaining} are left."
    return RateLimited(
        f"{who} may have {short.most} requests of the class {rate} in {limit.policy.window_s} s.{counts} "
        "Repeat it after Retry-After.",
        retry_after_s=max(1, math.ceil(lease.ends_at - time.time())),
        headers={name.decode(): value.decode() for name, value in lease.headers()},
    )
