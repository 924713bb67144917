"""The route to the relays: a pool of sessions, and a pause when no relay can be used."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Sequence
from typing import Literal, get_args

from chassis import logging, metrics
from emailer.errors import AuthenticationRefused, RelayFull, RelayUnreachable
from emailer.sending import smtp
from emailer.sending.relays import Relays
from emailer.sending.smtp import SmtpRelay, SmtpSession

log = logging.get(__name__)

Reason = Literal["unreachable", "authentication", "limited", "refusing"]

_LONGEST_PAUSE = 30


class Route:
    """Sessions to relays; the last used is taken first, so that a trickle of mails uses one connection.

    The callers bound the number of open sessions. A relay that cannot be used is skipped for the next one. If
    none can be used, the whole route is paused, and no mail fails because of it. The pause ends once a
    connection is made, before any mail is risked.

    A relay that refuses a connection while others with it are open is full, not away: its callers take turns
    with those.
    """

    def __init__(
        self,
        relays: Sequence[SmtpRelay],
        *,
        deliveries: int,
        idle_s: float,
        pause_s: float,
        authentication_pause_s: float,
    ) -> None:
        self._relays = Relays(relays, pause_s=pause_s)
        self._deliveries = deliveries
        self._idle_s = idle_s
        self._pause_s = pause_s
        self._authentication_pause_s = authentication_pause_s
        self._idle: list[SmtpSession] = []
        self._in_use: set[SmtpSession] = set()
        # Those who wait for a session that is given back, or for a place at a relay that was full.
        self._waiting: deque[asyncio.Future[SmtpSession | None]] = deque()
        self._full_until = 0.0
        self._first = asyncio.Lock()
        self._failures = 0
        self._paused_until: float | None = None
        self._show_open()

    @property
    def host(self) -> str:
        """The name of the first relay, as attempts record it: `host:port`."""
        return self._relays.all[0].name

    @property
    def is_paused(self) -> bool:
        """Whether nothing may be sent now."""
        return self._paused_until is not None

    def is_last(self, relay: SmtpRelay) -> bool:
        """Return whether the route pauses when `relay` is skipped."""
        return self._relays.is_last(relay)

    def has_other(self, relays: Collection[SmtpRelay]) -> bool:
        """Return whether there is a relay other than `relays`."""
        return any(relay not in relays for relay in self._relays.all)

    async def take(self, *, without: Collection[SmtpRelay] = ()) -> SmtpSession:
        """Return a session for one delivery, a kept one if there is one. Raise what `connect` raises."""
        while True:
            if (kept := self._kept(without)) is not None:
                self._in_use.add(kept)
                return kept
            is_full = self._in_use and asyncio.get_running_loop().time() < self._full_until
            if without or not is_full:
                try:
                    return await self.connect(without=without)
                except RelayFull:
                    self._full_until = asyncio.get_running_loop().time() + self._pause_s
            if (freed := await self._wait_free()) is not None:
                return freed

    async def connect(self, *, without: Collection[SmtpRelay] = ()) -> SmtpSession:
        """Return a new session with the first relay, other than `without`, that accepts one.

        If none does, raise the error of `smtp.connect`, and pause the route unless some were left out. Raise
        `RelayFull` if the last one that may be able to has accepted others.
        """
        async with self._first:
            # Only one is opened while there is none: a refusal beside others may mean that they are enough.
            if not self._in_use and not self._idle:
                if self.is_paused:
                    raise RelayUnreachable("the route was paused meanwhile")
                return await self._connect(without)
        return await self._connect(without)

    async def _connect(self, without: Collection[SmtpRelay]) -> SmtpSession:
        failed: RelayUnreachable | AuthenticationRefused | None = None
        for relay in [one for one in self._relays.in_order() if one not in without]:
            try:
                session = await smtp.connect(relay)
            except (RelayUnreachable, AuthenticationRefused) as error:
                is_open = any(one.relay == relay for one in (*self._in_use, *self._idle))
                is_refused = isinstance(error, RelayUnreachable)
                if is_open and is_refused and not without and self._relays.is_last(relay):
                    raise RelayFull(str(error)) from error
                self._relays.set_aside(relay, str(error))
                failed = error
            else:
                self._relays.note_open(relay)
                metrics.SMTP_CONNECTIONS.inc()
                self._failures = 0
                self._in_use.add(session)
                return session
        assert failed is not None
        if not without:
            is_login = isinstance(failed, AuthenticationRefused)
            self.pause("authentication" if is_login else "unreachable", str(failed))
        try:
            raise failed
        finally:
            # Its traceback holds this frame: together they would stay until the garbage is collected.
            del failed

    def _kept(self, without: Collection[SmtpRelay]) -> SmtpSession | None:
        """Return an idle session with the relay that comes first."""
        usable = [relay for relay in self._relays.all if relay not in without]
        preferred = next((relay for relay in usable if not self._relays.is_away(relay)), None)
        # A session with a later relay is left over from a mail that the preferred one could not carry.
        wanted = [preferred] if preferred else usable
        for session in [one for one in reversed(self._idle) if one.relay in wanted]:
            self._idle.remove(session)
            if session.is_usable:
                return session
            self._close(session)
        return None

    async def _wait_free(self) -> SmtpSession | None:
        """Return the next session that is given back; None if one has ended, or after a while."""
        place: asyncio.Future[SmtpSession | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await asyncio.wait([place], timeout=self._pause_s)
        finally:
            if not place.done():
                self._waiting.remove(place)
        if not place.done():
            return None
        session = place.result()
        if self.is_paused:
            if session is not None:
                self.give_back(session)
            raise RelayUnreachable("the route was paused meanwhile")
        return session

    def set_aside(self, relay: SmtpRelay, reason: Reason, detail: str) -> None:
        """Skip `relay` for a while; pause the route when no other one is left."""
        self._relays.set_aside(relay, detail, least_s=self._authentication_pause_s)
        for session in [session for session in self._idle if session.relay == relay]:
            self._idle.remove(session)
            self._close(session)
        if self._relays.are_all_away:
            self.pause(reason, detail)

    def give_back(self, session: SmtpSession) -> None:
        """Keep a session for the next delivery, unless it is broken or has had enough deliveries.

        If its relay was skipped, or the route paused, while it was in use, only a new connection may follow.
        """
        self._in_use.discard(session)
        is_away = self.is_paused or self._relays.is_away(session.relay)
        if not session.is_usable or session.deliveries >= self._deliveries or is_away:
            self._close(session)
            self._leave_place()
        elif self._waiting:
            # To the one who has waited longest: whoever gave it back would take it again at once.
            self._in_use.add(session)
            self._waiting.popleft().set_result(session)
        else:
            self._idle.append(session)

    def drop(self, session: SmtpSession) -> None:
        """Abort a session whose conversation was not finished."""
        self._in_use.discard(session)
        session.abort()
        metrics.SMTP_CONNECTIONS.dec()
        self._leave_place()

    def _leave_place(self) -> None:
        """Let somebody try to connect, as a connection has ended."""
        self._full_until = 0.0
        if self._waiting:
            self._waiting.popleft().set_result(None)

    def pause(self, reason: Reason, detail: str) -> None:
        """Pause the route; failures while it is paused are ignored."""
        if self._paused_until is not None:
            return
        # Only a new connection may end the pause, not one of the sessions that caused it.
        self.close()
        seconds = self._authentication_pause_s
        if reason == "unreachable":
            seconds = self._pause_s * min(2.0**self._failures, _LONGEST_PAUSE)
            self._failures += 1
        self._paused_until = asyncio.get_running_loop().time() + seconds
        while self._waiting:
            self._waiting.popleft().set_result(None)
        metrics.EMAIL_ROUTE_PAUSED.labels(reason).set(1)
        log.warning(
            "route paused",
            relays=[relay.name for relay in self._relays.all],
            reason=reason,
            detail=detail,
            seconds=seconds,
        )

    async def wait_open(self) -> None:
        """Wait until a paused route is usable again: until a connection to a relay is made."""
        while self._paused_until is not None:
            await asyncio.sleep(self._paused_until - asyncio.get_running_loop().time())
            self._paused_until = None
            try:
                self.give_back(await self.connect())
            except (RelayUnreachable, AuthenticationRefused):
                continue
            self._show_open()
            log.info("route resumed")

    def close_idle(self) -> None:
        """Close the sessions that have been idle too long."""
        oldest = asyncio.get_running_loop().time() - self._idle_s
        for session in [session for session in self._idle if session.used_at < oldest]:
            self._idle.remove(session)
            self._close(session)

    def close(self) -> None:
        """Close all sessions that are not in use."""
        while self._idle:
            self._close(self._idle.pop())

    def _close(self, session: SmtpSession) -> None:
        session.close()
        metrics.SMTP_CONNECTIONS.dec()

    def _show_open(self) -> None:
        for reason in get_args(Reason):
            metrics.EMAIL_ROUTE_PAUSED.labels(reason).set(0)
