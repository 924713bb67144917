"""A mail as it is handed to the relay, for its owner to inspect: written again from the tables, in parts."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

from chassis import logging, supervision
from chassis.deadlines import Deadline
from chassis.errors import Conflict, NotFound, Overloaded, ServiceError, TooManyAtOnce, Unavailable
from chassis.places import Places
from chassis.postgres import Postgres
from chassis.turns import OwnerTurns
from contracts.emails import GetRawEmail, RawEmail
from emailer.domains.senders import Senders
from emailer.errors import TemplateFailed, UnwritableMail
from emailer.mails import repository
from emailer.mails.stored_mail import StoredMail
from emailer.sending.written_mails import WrittenMails
from emailer.writing.preparing import MailPreparation

log = logging.get(__name__)

_PART_BYTES = 256 * 1024
# Requests of one owner at a time.
MOST_OF_OWNER = 4
# Mails whose writing has begun, one of each owner: they are prepared, wait for their turn, or have it.
MOST_BEGUN = 64
# Those that have a turn: two, so that no owner alone keeps another one waiting.
MOST_AT_ONCE = 2
# These may have 27 MB each.
MOST_WITH_UPLOADS = 2
_TURN_S = 30.0
# For which the reason of a failure is kept for the next request.
_FAILURE_KEPT_S = 30.0
_WRITTEN_WITHIN_S = 150.0
# Of the time of a request: its owner hears what it waits for, and not that nobody has answered in time.
_SHARE_FOR_WAITING = 0.75
_WAIT_S = 10.0


@dataclass(eq=False, slots=True)
class _Writing:
    """A mail that is being written, also after its requests have ended."""

    email_id: UUID
    task: asyncio.Task[bytes]
    waits_for_others: bool = False


class RawMails:
    """Returns mails part by part; what was written is kept for a while, for the requests that follow.

    The mails of an owner are written one after the other, each in a task of its own, which goes on when the
    time of its request ends, and keeps its place and what it has done: a later request gets the mail.
    Templates are rendered before a mail waits for its turn to be written, so no owner waits for another
    owner's template.
    """

    def __init__(self, postgres: Postgres, senders: Senders, preparation: MailPreparation) -> None:
        self._postgres = postgres
        self._preparation = preparation
        self._senders = senders
        self._written = WrittenMails()
        self._requests = Places("requests for mails as they are sent", of_owner=MOST_OF_OWNER)
        self._places = Places("mails that are written for display", of_owner=1, most=MOST_BEGUN)
        # By owner. One that has failed stays for a while, so that the next request hears why.
        self._writings: dict[str, _Writing] = {}
        self._turns = OwnerTurns(most=MOST_AT_ONCE, of_owner=1, most_waiting=1)
        self._turns_with_uploads = OwnerTurns(most=MOST_WITH_UPLOADS, of_owner=1, most_waiting=1)

    async def run(self) -> None:
        """Wait until this is cancelled, and end the mails that are being written then."""
        try:
            await asyncio.Event().wait()
        finally:
            await supervision.end(one.task for one in self._writings.values())

    async def part(self, request: GetRawEmail, deadline: Deadline | None = None) -> RawEmail:
        """Return the requested part.

        Raise `NotFound` for another owner's mail, or one without content, `Conflict` when its template cannot
        be rendered or the mail cannot be built, `TooManyAtOnce` when its owner has several requests open
        already, or the mail, or another one of the owner, is still being written, and `Overloaded` when it
        waits for mails of other owners.
        """
        with self._requests.hold(request.owner_id):
            async with self._postgres.connection() as connection, repository.snapshot(connection):
                found = await repository.find(connection, request.email_id, owner_id=request.owner_id)
            if found is None:
                raise NotFound(f"There is no e-mail {request.email_id}.")
            if not found.content_available:
                raise _removed(request)
            content = await self._content(request, deadline)
        part = content[request.offset : request.offset + _PART_BYTES]
        return RawEmail(content=base64.b64encode(part).decode(), size=len(content))

    async def _content(self, request: GetRawEmail, deadline: Deadline | None) -> bytes:
        within_s = _WAIT_S if deadline is None else _SHARE_FOR_WAITING * deadline.remaining_s()
        owner_id, until = request.owner_id, Deadline.after(within_s)
        while (content := self._written.find(owner_id, request.email_id)) is None:
            writing = self._writing_for(request)
            await asyncio.wait({writing.task}, timeout=until.remaining_s())
            if not writing.task.done():
                raise _unfinished(writing, request)
            if writing.email_id == request.email_id:
                self._forget(owner_id, writing)
                if writing.task.cancelled():
                    raise Unavailable("The service is stopping; repeat the request.", retry_after_s=1)
                return writing.task.result()
        return content

    def _writing_for(self, request: GetRawEmail) -> _Writing:
        """Return what is written for the owner: another mail of it, or this one, which begins if it can."""
        owner_id = request.owner_id
        writing = self._writings.get(owner_id)
        if writing is not None and (not writing.task.done() or writing.email_id == request.email_id):
            return writing

        def ended(task: asyncio.Task[bytes]) -> None:
            error = None if task.cancelled() else task.exception()
            if error is not None and not isinstance(error, ServiceError):
                log.error("mail not written for display", email_id=str(request.email_id), exc_info=error)
            if isinstance(error, Conflict):
                asyncio.get_running_loop().call_later(_FAILURE_KEPT_S, self._forget, owner_id, begun)
            else:
                self._forget(owner_id, begun)

        name = f"raw mail {request.email_id}"
        begun = _Writing(request.email_id, asyncio.create_task(self._write(request), name=name))
        begun.task.add_done_callback(ended)
        self._writings[owner_id] = begun
        return begun

    async def _write(self, request: GetRawEmail) -> bytes:
        """Write the mail and keep it. Raise `Overloaded` when that takes too long."""
        late = Overloaded(f"E-mail {request.email_id} was not written in time; try again.", retry_after_s=2)
        try:
            with self._places.hold(request.owner_id):
                async with asyncio.timeout(_WRITTEN_WITHIN_S):
                    await self._fill(request)
                    content = await self._build(request)
        except TimeoutError:
            raise late from None
        except UnwritableMail as error:
            raise Conflict(f"E-mail {request.email_id} cannot be built: {error}.") from None
        self._written.keep(request.owner_id, request.email_id, content)
        return content

    async def _fill(self, request: GetRawEmail) -> None:
        """Render the mail's template, and store the result with the mail."""
        async with self._postgres.connection() as connection:
            mails = await repository.read_mails(connection, [request.email_id], with_files=False)
        if request.email_id not in mails:
            raise _removed(request)
        try:
            await self._preparation.fill(mails[request.email_id])
        except TemplateFailed as error:
            raise Conflict(
                f"E-mail {request.email_id} cannot be shown, because its template cannot be rendered:"
                f" {error.described}"
            ) from None

    async def _build(self, request: GetRawEmail) -> bytes:
        async with self._turn_in(self._turns, request.owner_id):
            mail = await self._read(request)
            if mail.letter is None:
                raise NotFound(f"This release cannot read e-mail {mail.id}, which a newer one stored.")
            if not mail.letter.upload_ids:
                return await self._preparation.writer.write(mail)
        async with self._turn_in(self._turns_with_uploads, request.owner_id):
            mail = await self._preparation.attach(await self._read(request))
            return await self._preparation.writer.write(mail)

    @asynccontextmanager
    async def _turn_in(self, turns: OwnerTurns, owner_id: str) -> AsyncIterator[None]:
        """Wait for a turn, and hold it while the block runs, but not for long: others may be waiting."""
        own = self._writings[owner_id]
        own.waits_for_others = True
        async with turns.turn(owner_id), asyncio.timeout(_TURN_S):
            own.waits_for_others = False
            yield

    async def _read(self, request: GetRawEmail) -> StoredMail:
        async with self._postgres.connection() as connection:
            mails = await repository.read_mails(connection, [request.email_id])
            identified = await self._senders.identify(connection, mails)
        if request.email_id not in identified:
            raise _removed(request)
        return identified[request.email_id]

    def _forget(self, owner_id: str, writing: _Writing) -> None:
        if self._writings.get(owner_id) is writing:
            del self._writings[owner_id]


def _removed(request: GetRawEmail) -> NotFound:
    return NotFound(f"E-mail {request.email_id} has no content: it was removed, or could not be sent.")


def _unfinished(writing: _Writing, request: GetRawEmail) -> ServiceError:
    """Return what a request is told whose time has passed before `writing` ended."""
    if writing.waits_for_others:
        return Overloaded("Too many mails are being written for display; try again.", retry_after_s=2)
    if writing.email_id != request.email_id:
        return TooManyAtOnce(
            "Other mails of yours are being written for display; wait for them to end.", retry_after_s=2
        )
    return TooManyAtOnce(
        f"E-mail {request.email_id} is still being written; repeat the request.", retry_after_s=2
    )
