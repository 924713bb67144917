"""Presence: the subscribers of a channel on all gateways, collected for each query and never stored."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any
from uuid import uuid4

import orjson

from chassis import logging, shares
from chassis.broker.envelope import new_id
from chassis.broker.publisher import Publisher
from chassis.turns import OwnerTurns
from chassis.waits import until_set
from contracts.gateways import PresenceTold
from gateway.publishing.announcing import announce
from gateway.publishing.signals import Moved
from gateway.realtime.moves import MOST_HEARD, ROUND_S, Moves, PendingMove

log = logging.get(__name__)

MOST_LISTED = 1000
_ALIVE_EVERY_S = 5.0
ALIVE_FOR_S = 16.0
ANSWER_WITHIN_S = 1.0
# Questions to the other gateways at a time.
MOST_ASKED = 256
MOST_ASKED_OF_OWNER = 16
_MOST_WAITING_OF_OWNER = 512
_FAREWELL_WITHIN_S = 1.0
_TRY_AGAIN_S = 0.5


@dataclass(frozen=True)
class Present:
    """The subscribed connections of a channel by id, with their users and their number.

    At most `MOST_LISTED` are listed per gateway; the counts include all. `is_partial` is true if a gateway
    did not answer.
    """

    users: Mapping[str, str]
    num_clients: int
    num_users: int
    is_partial: bool = False


@dataclass
class _Question:
    """A question to the other gateways, and the answers so far."""

    waiting_for: set[str]
    answers: list[dict[str, Any]] = field(default_factory=list)
    complete: asyncio.Event = field(default_factory=asyncio.Event)

    def take(self, gateway: str, answer: dict[str, Any]) -> None:
        """Record the answer of `gateway` if one is expected."""
        if gateway in self.waiting_for:
            self.answers.append(answer)
        self.expect_no_more_of(gateway)

    def expect_no_more_of(self, gateway: str) -> None:
        """Note that `gateway` has answered, or will not."""
        self.waiting_for.discard(gateway)
        if not self.waiting_for:
            self.complete.set()


@dataclass
class _Subscribers:
    """The subscribed connections of a channel here by id, and the number of each user's."""

    clients: dict[str, str] = field(default_factory=dict)
    users: Counter[str] = field(default_factory=Counter)

    def add(self, client: str, user: str) -> None:
        """Add a connection of `user`."""
        self.remove(client)
        self.clients[client] = user
        self.users[user] += 1

    def remove(self, client: str) -> str | None:
        """Remove a connection, and return its user if it was there."""
        user = self.clients.pop(client, None)
        if user is not None:
            self.users[user] -= 1
            if not self.users[user]:
                del self.users[user]
        return user


class Presence:
    """Tracks the subscribers on this gateway, and queries the other gateways over the `live` exchange.

    Gateways announce themselves every few seconds, so that a query knows which answers to expect; one that
    stops says so. A query costs one message per gateway; concurrent queries for the same channel share one,
    and of others each owner has a few at a time.
    """

    def __init__(self, publisher: Publisher) -> None:
        self.gateway = uuid4().hex
        self.moves = Moves()
        self._publisher = publisher
        self._here: dict[str, _Subscribers] = {}
        self._alive_at: dict[str, float] = {}
        self._questions: dict[str, _Question] = {}
        self._asking: dict[str, asyncio.Future[Present]] = {}
        self._turns = OwnerTurns(
            most=MOST_ASKED,
            of_owner=MOST_ASKED_OF_OWNER,
            most_waiting=_MOST_WAITING_OF_OWNER,
            leaves_room=True,
        )
        self._has_left = False
        # While a round is being told.
        self._telling = asyncio.Lock()

    def join(self, channel: str, client: str, user: str, *, is_told: bool = False) -> None:
        """Record that the connection `client` of `user` has subscribed to `channel` here.

        With `is_told`, subscribers that requested joins and leaves are notified, here and on other gateways.
        """
        self._here.setdefault(channel, _Subscribers()).add(client, user)
        if is_told:
            self.moves.add(Moved(channel, client, user, is_join=True))

    def leave(self, channel: str, client: str, *, is_told: bool = False) -> None:
        """Record that a connection has unsubscribed, if it was subscribed."""
        here = self._here.get(channel)
        user = None if here is None else here.remove(client)
        if here is None or user is None:
            return
        if not here.clients:
            del self._here[channel]
        if is_told:
            self.moves.add(Moved(channel, client, user, is_join=False))

    async def tell_moves(self) -> None:
        """Push one round of joins and leaves here, and send those of this gateway to the others."""
        async with self._telling:
            if self._has_left:
                return
            here, elsewhere = self.moves.take()
            # Nobody here waits for the broker.
            await self.moves.push([*here, *elsewhere])
            await self._send(here)

    async def _send(self, here: Sequence[PendingMove]) -> None:
        if here:
            moves = [(move.channel, move.client, move.user, move.is_join) for move, _ in here]
            await announce(self._publisher, PresenceTold(gateway=self.gateway, moves=moves))

    async def keep_telling_moves(self) -> None:
        """Push joins and leaves and send them to the other gateways, in rounds, until cancelled."""
        while True:
            await self.moves.are_due.wait()
            await self.tell_moves()
            await asyncio.sleep(ROUND_S)

    async def of(self, channel: str) -> Present:
        """Return the current subscribers of `channel` on all gateways.

        Raise `TooManyAtOnce` if too many questions of the present owner wait.
        """
        if channel in self._asking:
            return await asyncio.shield(self._asking[channel])
        async with self._turns.turn(shares.current.get()):
            asking = self._asking.get(channel)
            if asking is None:
                asking = asyncio.ensure_future(self._ask(channel))
                self._asking[channel] = asking
                asking.add_done_callback(lambda _: self._asking.pop(channel, None))
            return await asyncio.shield(asking)

    async def announce(self) -> None:
        """Announce this gateway every few seconds, until cancelled."""
        while True:
            is_sent = await self.greet()
            await asyncio.sleep(_ALIVE_EVERY_S if is_sent else _TRY_AGAIN_S)

    async def greet(self) -> bool:
        """Announce this gateway until it leaves; return whether the message could be sent."""
        return self._has_left or await announce(
            self._publisher, PresenceTold(gateway=self.gateway, alive=True)
        )

    async def take_leave(self) -> None:
        """Send the leaves of the connections that the stop has closed, as many as the others keep, and go.

        A round that is being told is told to the end before. The other gateways expect no more answers.
        """
        self._has_left = True
        with suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_WITHIN_S), self._telling:
                sent = 0
                while sent < MOST_HEARD and (here := self.moves.take()[0]):
                    await self._send(here)
                    sent += len(here)
                await announce(self._publisher, PresenceTold(gateway=self.gateway, alive=False))

    async def heard(self, body: bytes) -> None:
        """Handle a message of another gateway: an announcement, a query, or an answer."""
        news = orjson.loads(body)
        gateway = news["gateway"]
        if gateway == self.gateway or self._has_left:
            return
        if news.get("alive") is False:
            self._alive_at.pop(gateway, None)
            for open_question in self._questions.values():
                open_question.expect_no_more_of(gateway)
            return
        is_new = gateway not in self._alive_at
        self._alive_at[gateway] = time.monotonic()
        if is_new:
            # A gateway that has just started must learn of this one at once.
            await self.greet()
        if "moves" in news:
            moves = news["moves"]
            self.moves.hear([Moved(name, client, user, bool(joins)) for name, client, user, joins in moves])
        elif "question" in news:
            answer = {"answer": news["question"], **self._local(news["channel"])}
            await announce(self._publisher, PresenceTold(gateway=self.gateway, **answer))
        elif "answer" in news:
            question = self._questions.get(news["answer"])
            if question is not None:
                question.take(gateway, news)

    async def _ask(self, channel: str) -> Present:
        now = time.monotonic()
        self._alive_at = {name: at for name, at in self._alive_at.items() if now - at < ALIVE_FOR_S}
        question = _Question(set(self._alive_at))
        if not question.waiting_for:
            return _merged([self._local(channel)])
        number = str(new_id())
        self._questions[number] = question
        try:
            asked = PresenceTold(gateway=self.gateway, question=number, channel=channel)
            await announce(self._publisher, asked)
            if not await until_set(question.complete, ANSWER_WITHIN_S):
                log.debug("presence is partial", channel=channel, missing=len(question.waiting_for))
        finally:
            del self._questions[number]
        answers = [self._local(channel), *question.answers]
        return _merged(answers, is_partial=bool(question.waiting_for))

    def _local(self, channel: str) -> dict[str, Any]:
        here = self._here.get(channel, _Subscribers())
        return {
            "clients": dict(islice(here.clients.items(), MOST_LISTED)),
            "num_clients": len(here.clients),
            "users": list(islice(here.users, MOST_LISTED)),
        }


def _merged(answers: list[dict[str, Any]], *, is_partial: bool = False) -> Present:
    clients: dict[str, str] = {}
    users: set[str] = set()
    for answer in answers:
        clients |= answer["clients"]
        users.update(answer["users"])
    return Present(clients, sum(answer["num_clients"] for answer in answers), len(users), is_partial)
