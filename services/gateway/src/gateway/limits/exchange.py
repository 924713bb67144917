"""The exchange of leases with the database: one statement for all requests that arrive together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from chassis import logging, redaction
from chassis.postgres import DATABASE_FAILURES, Postgres
from gateway.http.rates import RateClass
from gateway.limits import repository
from gateway.limits.leases import Lease, Question, Standing
from gateway.limits.policies import Policy

log = logging.get(__name__)

# How long a request waits for an answer before its gateway counts alone; later requests do not wait.
ANSWERED_WITHIN_S = 1.0
# The callers in one statement, whose time grows with the square of their number.
MOST_AT_ONCE = 100

Ask = Callable[[RateClass, Sequence[Question]], Awaitable[Mapping[str, Standing]]]

# Leases with their questions, by class and window.
Questions = dict[tuple[RateClass, int], list[tuple[Lease, Question]]]


def asking(postgres: Postgres, policies: Mapping[RateClass, Policy]) -> Ask:
    """Return the function that asks the database."""

    async def ask(rate: RateClass, asked: Sequence[Question]) -> Mapping[str, Standing]:
        async with postgres.connection() as connection:
            return await repository.exchange(connection, rate, policies[rate].window_s, asked)

    return ask


class LeaseExchange:
    """Asks for tokens and returns them, one statement at a time, however many requests wait for it.

    It `is_shared` while the database answers. Otherwise this gateway counts alone, and each exchange that is
    due asks the database again.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._waiting: dict[Lease, tuple[RateClass, bool]] = {}
        self._has_work = asyncio.Event()
        self.is_shared = True

    def begin(self, rate: RateClass, leases: Iterable[Lease], *, is_due: bool = False) -> None:
        """Ask the questions of these leases next; `is_due` is that of `Lease.question`."""
        for lease in leases:
            _, was_due = self._waiting.get(lease, (rate, False))
            self._waiting[lease] = (rate, is_due or was_due)
            self._has_work.set()

    async def answer(self, rate: RateClass, lease: Lease, *, need: int = 0, is_due: bool = False) -> None:
        """Wait until a question that is asked after this call is answered, for `ANSWERED_WITHIN_S` at most.

        The question asks for `need` more tokens.
        """
        lease.need += need
        try:
            self.begin(rate, [lease], is_due=is_due)
            answered = lease.answered = lease.answered or asyncio.get_running_loop().create_future()
            await asyncio.wait([answered], timeout=ANSWERED_WITHIN_S)
            if not answered.done():
                self._count_alone("there was no answer in time")
        finally:
            lease.need -= need

    async def run(self) -> None:
        """Ask for as long as there are questions."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            asked, answered = self._next_questions()
            try:
                for rate, some in _statements(asked):
                    await self._ask_for(rate, some)
            finally:
                _end(answered)

    def _next_questions(self) -> tuple[Questions, list[asyncio.Future[None]]]:
        """Return the questions to ask, by class and window, and the futures that end with their answers."""
        waiting, self._waiting = self._waiting, {}
        asked: Questions = {}
        answered = []
        named = set()
        for lease, (rate, is_due) in waiting.items():
            name = (rate, lease.starts_at, lease.who)
            if name in named:
                # This caller was forgotten and has come back; a statement cannot change its row twice.
                self.begin(rate, [lease], is_due=is_due)
                continue
            named.add(name)
            question = lease.question(is_due=is_due)
            asked.setdefault((rate, question.starts_at), []).append((lease, question))
            if lease.answered is not None:
                # Requests that come from now on wait for the answer to the next question.
                answered.append(lease.answered)
                lease.answered = None
        return asked, answered

    async def _ask_for(self, rate: RateClass, asked: Sequence[tuple[Lease, Question]]) -> None:
        try:
            found = await self._ask(rate, [question for _, question in asked])
        except DATABASE_FAILURES as error:
            for lease, question in asked:
                lease.forget(question)
            self._count_alone(redaction.safe_message(error))
            return
        for lease, question in asked:
            lease.learn(question, found[question.who])
        if not self.is_shared:
            log.info("limits are shared with the other gateways again")
        self.is_shared = True

    def _count_alone(self, reason: str) -> None:
        if self.is_shared:
            log.warning("limits are counted by this gateway alone", reason=reason)
        self.is_shared = False


def _end(answered: Iterable[asyncio.Future[None]]) -> None:
    for future in answered:
        if not future.done():
            future.set_result(None)


def _statements(asked: Questions) -> Iterator[tuple[RateClass, Sequence[tuple[Lease, Question]]]]:
    """Yield the questions of each statement."""
    for (rate, _), of_window in asked.items():
        for first in range(0, len(of_window), MOST_AT_ONCE):
            yield rate, of_window[first : first + MOST_AT_ONCE]
