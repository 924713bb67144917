"""A mail as it is handed to the relay, for its owner to inspect: written again from the tables, in parts."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID
from weakref import WeakValueDictionary

from chassis.deadlines import Deadline
from chassis.errors import Conflict, NotFound, Overloaded, ServiceError, TooManyAtOnce
from chassis.places import Places
from chassis.postgres import Postgres
from contracts.emails import GetRawEmail, RawEmail
from emailer.domains.senders import Senders
from emailer.errors import TemplateFailed, UnwritableMail
from emailer.mails import repository
from emailer.writing.preparing import MailPreparation

_PART_BYTES = 256 * 1024
_KEPT_S = 30.0
# The newest mail is kept however large it is.
_MOST_KEPT_BYTES = 32 * 1024 * 1024
# Of one owner at a time: one request is being answered, the others wait.
MOST_OF_OWNER = 4
_TURN_WITHIN_S = 10.0
# Of the time of a request, the rest of which is for its own work: its owner hears what it waits for, and not
# that nobody has answered in time.
_SHARE_FOR_TURN = 0.25


@dataclass(frozen=True, slots=True)
class _BuiltMail:
    mail_id: UUID
    until: float
    content: bytes


class RawMails:
    """Returns a mail part by part; an owner's last mail is kept for half a minute, for the parts that follow.

    An owner's requests are answered one after the other. Templates are rendered before a mail waits for its
    turn to be written, so no owner waits for another owner's template.
    """

    def __init__(self, postgres: Postgres, senders: Senders, preparation: MailPreparation) -> None:
        self._postgres = postgres
        self._preparation = preparation
        self._senders = senders
        # By owner; the least recently requested comes first.
        self._kept: OrderedDict[str, _BuiltMail] = OrderedDict()
        self._places = Places("mails that are written for display", of_owner=MOST_OF_OWNER)
        self._owners: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._writing = asyncio.Lock()

    async def part(self, request: GetRawEmail, deadline: Deadline | None = None) -> RawEmail:
        """Return the requested part.

        Raise `NotFound` for another owner's mail, or one without content, `Conflict` when its template cannot
        be rendered or the mail cannot be built, `TooManyAtOnce` when its owner has several requests open
        already, or the others leave too little time, and `Overloaded` when those of other owners do.
        """
        async with self._turn_of(request.owner_id, deadline):
            async with self._postgres.connection() as connection, repository.snapshot(connection):
                found = await repository.find(connection, request.email_id, owner_id=request.owner_id)
            if found is None:
                raise NotFound(f"There is no e-mail {request.email_id}.")
            if not found.content_available:
                raise NotFound(
                    f"E-mail {request.email_id} has no content: it was removed, or could not be sent."
                )
            kept = self._kept.get(request.owner_id)
            if kept is not None and kept.mail_id == request.email_id:
                content = kept.content
            else:
                try:
                    await self._fill(request)
                    content = await self._written(request)
                except UnwritableMail as error:
                    raise Conflict(f"E-mail {request.email_id} cannot be built: {error}.") from None
            self._kept[request.owner_id] = _BuiltMail(request.email_id, time.monotonic() + _KEPT_S, content)
            self._kept.move_to_end(request.owner_id)
            sizes = [len(one.content) for one in self._kept.values()]
            while len(sizes) > 1 and sum(sizes) > _MOST_KEPT_BYTES:
                self._kept.popitem(last=False)
                sizes.pop(0)
            asyncio.get_running_loop().call_later(_KEPT_S + 1, self._forget_old)
        part = content[request.offset : request.offset + _PART_BYTES]
        return RawEmail(content=base64.b64encode(part).decode(), size=len(content))

    @asynccontextmanager
    async def _turn_of(self, owner_id: str, deadline: Deadline | None) -> AsyncIterator[None]:
        within_s = _TURN_WITHIN_S
        if deadline is not None:
            within_s = min(within_s, _SHARE_FOR_TURN * deadline.remaining_s())
        refusal = TooManyAtOnce(
            "Other mails of yours are being written for display; wait for them to end.", retry_after_s=2
        )
        with self._places.hold(owner_id):
            own = self._owners.get(owner_id)
            if own is None:
                own = self._owners[owner_id] = asyncio.Lock()
            async with _within_turn(own, within_s=within_s, refusal=refusal):
                yield

    async def _fill(self, request: GetRawEmail) -> None:
        """Render the mail's template, and store the result with the mail."""
        async with self._postgres.connection() as connection:
            mails = await repository.read_mails(connection, [request.email_id], with_files=False)
        try:
            await self._preparation.fill(mails[request.email_id])
        except TemplateFailed as error:
            raise Conflict(
                f"E-mail {request.email_id} cannot be shown, because its template cannot be rendered:"
                f" {error.described}"
            ) from None

    async def _written(self, request: GetRawEmail) -> bytes:
        # One after the other: each may have 27 MB.
        refusal = Overloaded("Too many mails are being written for display; try again.", retry_after_s=2)
        async with _within_turn(self._writing, within_s=_TURN_WITHIN_S, refusal=refusal):
            async with self._postgres.connection() as connection:
                mails = await repository.read_mails(connection, [request.email_id])
                mail = (await self._senders.identify(connection, mails))[request.email_id]
            if mail.letter is None:
                raise NotFound(f"This release cannot read e-mail {mail.id}, which a newer one stored.")
            return await self._preparation.writer.write(await self._preparation.attach(mail))

    def _forget_old(self) -> None:
        now = time.monotonic()
        self._kept = OrderedDict((owner, kept) for owner, kept in self._kept.items() if kept.until >= now)


@asynccontextmanager
async def _within_turn(lock: asyncio.Lock, *, within_s: float, refusal: ServiceError) -> AsyncIterator[None]:
    """Hold `lock`. Raise `refusal` when it cannot be acquired in time."""
    try:
        async with asyncio.timeout(within_s):
            await lock.acquire()
    except TimeoutError:
        raise refusal from None
    try:
        yield
    finally:
        lock.release()
