"""A mail as it is handed over, for its owner to look at: written again from what is stored, in parts."""

from __future__ import annotations

import asyncio
import base64
import time
from uuid import UUID

from chassis.deadlines import Deadline
from chassis.errors import NotFound
from chassis.postgres import Postgres
from contracts.emails import GetRawEmail, RawEmail
from emailer import repository
from emailer.domains.senders import Senders
from emailer.writing.preparing import MailPreparation
from emailer.writing.rendered import render

_PART_BYTES = 256 * 1024
_KEPT_S = 30.0


class RawMails:
    """Answers with parts of a mail; the last one is kept for half a minute, for the parts that follow."""

    def __init__(self, postgres: Postgres, senders: Senders, preparation: MailPreparation) -> None:
        self._postgres = postgres
        self._preparation = preparation
        self._senders = senders
        self._kept: tuple[UUID, float, bytes] | None = None
        self._writing = asyncio.Lock()

    async def part(self, request: GetRawEmail, _: Deadline | None = None) -> RawEmail:
        """Return the wanted part. Raise `NotFound` for another owner's mail, or one without content."""
        # One after the other: there may be 27 MB to each.
        async with self._writing:
            content = await self._content(request)
        self._kept = (request.email_id, time.monotonic() + _KEPT_S, content)
        asyncio.get_running_loop().call_later(_KEPT_S + 1, self._forget_old)
        part = content[request.offset : request.offset + _PART_BYTES]
        return RawEmail(content=base64.b64encode(part).decode(), size=len(content))

    async def _content(self, request: GetRawEmail) -> bytes:
        async with self._postgres.connection() as connection, repository.snapshot(connection):
            found = await repository.find(connection, request.email_id, owner_id=request.owner_id)
            if found is None:
                raise NotFound(f"There is no e-mail {request.email_id}.")
            if not found.content_available:
                raise NotFound(f"The content of e-mail {request.email_id} was removed, or could not be sent.")
            if self._kept is not None and self._kept[0] == request.email_id:
                return self._kept[2]
            mails = await repository.read_mails(connection, [request.email_id])
            mail = (await self._senders.identify(connection, mails))[request.email_id]
        if mail.letter is None:
            raise NotFound(f"The content of e-mail {request.email_id} was stored by a newer release.")
        return await render(await self._preparation.prepare(mail))

    def _forget_old(self) -> None:
        if self._kept is not None and self._kept[1] < time.monotonic():
            self._kept = None
