"""Leases of several gateways on one limit, in every order of questions, answers and losses."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from gateway.http.rates import RateClass
from gateway.limits.leases import Lease, Question, Standing
from gateway.limits.policies import Policy
from support.rate_windows import RateWindows

_GATEWAYS = 3
_WINDOW_S = 60
_FIELDS = (b'"read";q=1;w=60', b'"read"')


class SharedLimit(RuleBasedStateMachine):
    """Gateways that spend, ask and learn; a question or its answer may be lost on the way."""

    asked: Bundle[tuple[int, Question]] = Bundle("asked")
    answered: Bundle[tuple[int, Question, Standing]] = Bundle("answered")

    @initialize(most=st.integers(1, 200))
    def begin(self, most: int) -> None:
        self.most = most
        policy = Policy(most, _WINDOW_S)
        self.windows = RateWindows()
        self.leases = [Lease("k", policy, _FIELDS, 0.0) for _ in range(_GATEWAYS)]
        self.spent = 0
        self.is_whole = True
        self.under_way = 0

    @rule(gateway=st.integers(0, _GATEWAYS - 1), cost=st.integers(1, 30), times=st.integers(1, 10))
    def spend(self, gateway: int, cost: int, times: int) -> None:
        for _ in range(times):
            if self.leases[gateway].spend(cost):
                self.spent += cost

    @rule(gateway=st.integers(0, _GATEWAYS - 1), need=st.integers(0, 30), is_due=st.booleans(), target=asked)
    def ask(self, gateway: int, need: int, is_due: bool) -> tuple[int, Question]:
        lease = self.leases[gateway]
        # A gateway asks one question at a time.
        lease.need = need
        self.under_way += 1
        question = lease.question(is_due=is_due)
        lease.need = 0
        return gateway, question

    @rule(one=consumes(asked), target=answered)
    def answer(self, one: tuple[int, Question]) -> tuple[int, Question, Standing]:
        gateway, question = one
        return gateway, question, self.windows.answer(RateClass.READ, question)

    @rule(one=consumes(answered))
    def learn(self, one: tuple[int, Question, Standing]) -> None:
        gateway, question, standing = one
        self.leases[gateway].learn(question, standing)
        self.under_way -= 1

    @rule(one=consumes(asked))
    def lose_question(self, one: tuple[int, Question]) -> None:
        gateway, question = one
        self.leases[gateway].forget(question)
        self.under_way -= 1
        self.is_whole = False

    @rule(one=consumes(answered))
    def lose_answer(self, one: tuple[int, Question, Standing]) -> None:
        gateway, question, _ = one
        self.leases[gateway].forget(question)
        self.under_way -= 1
        self.is_whole = False

    @invariant()
    def never_more_than_the_limit_is_spent(self) -> None:
        if hasattr(self, "most"):
            held = sum(lease.tokens for lease in self.leases)
            assert self.spent + held <= self.most

    @invariant()
    def a_gateway_never_believes_in_less_than_is_left(self) -> None:
        if hasattr(self, "most") and self.is_whole:
            assert all(lease.remaining >= self.most - self.spent for lease in self.leases)

    def teardown(self) -> None:
        if not hasattr(self, "most") or self.under_way or not self.is_whole:
            return
        for _ in range(2):
            for lease in self.leases:
                question = lease.question(is_due=True)
                lease.learn(question, self.windows.answer(RateClass.READ, question))
        row = next(iter(self.windows.rows.values()))
        # Nothing is lost: what is not spent can be spent by any gateway.
        assert row.taken == row.spent == self.spent
        assert all(lease.is_at_rest for lease in self.leases)


SharedLimit.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
test_gateways_share_a_limit = SharedLimit.TestCase


def exchanged(windows: RateWindows, lease: Lease, *, is_due: bool = False) -> Question:
    question = lease.question(is_due=is_due)
    lease.learn(question, windows.answer(RateClass.READ, question))
    return question


def a_lease(most: int = 1000) -> tuple[RateWindows, Lease]:
    policy = Policy(most, _WINDOW_S)
    return RateWindows(), Lease("k", policy, _FIELDS, 0.0)


def test_a_lease_grows_with_what_was_spent_and_shrinks_near_the_limit() -> None:
    windows, lease = a_lease(1000)
    grants = []
    while True:
        lease.need = 1
        before = lease.tokens
        exchanged(windows, lease)
        lease.need = 0
        grants.append(lease.tokens - before)
        if not grants[-1]:
            break
        while lease.spend(1):
            pass
    # Twice as many each time, then an eighth of what is free, then one for each request; none is lost.
    assert grants[:6] == [1, 2, 4, 8, 16, 32]
    assert max(grants) > 100
    assert grants[-2] == 1
    assert sum(grants) == 1000


def test_what_is_not_spent_goes_back_at_the_second_look() -> None:
    windows, lease = a_lease()
    for _ in range(8):
        lease.need = 1
        exchanged(windows, lease)
        lease.need = 0
        while lease.spend(1):
            pass
    exchanged(windows, lease, is_due=True)
    assert lease.tokens > 0
    exchanged(windows, lease, is_due=True)
    assert lease.is_at_rest
    row = next(iter(windows.rows.values()))
    assert row.taken == row.spent


def test_requests_that_a_gateway_let_through_alone_are_reported_and_stay_taken() -> None:
    windows, lease = a_lease(10)
    assert all(lease.spend_unleased(1) for _ in range(10))
    assert not lease.spend_unleased(1)
    question = lease.question(is_due=True)
    lease.forget(question)
    exchanged(windows, lease, is_due=True)
    assert next(iter(windows.rows.values())) == Standing(10, 10, 0)
    other = Lease("k", Policy(10, _WINDOW_S), _FIELDS, 0.0)
    other.need = 1
    exchanged(windows, other)
    assert (other.tokens, other.remaining) == (0, 0)


def test_an_answer_for_the_previous_window_is_ignored() -> None:
    windows, lease = a_lease()
    lease.need = 5
    question = lease.question(is_due=False)
    lease.begin(60.0, _WINDOW_S)
    lease.learn(question, windows.answer(RateClass.READ, question))
    assert (lease.tokens, lease.remaining, lease.starts_at, lease.ends_at) == (0, 1000, 60, 120)
