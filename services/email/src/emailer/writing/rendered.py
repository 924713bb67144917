"""The bytes of the mails in hand: each mail is built once for all its recipients, off the event loop."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from uuid import UUID

from chassis import metrics
from chassis.errors import Overloaded
from chassis.turns import OwnerTurns
from emailer.errors import TemplateFailed
from emailer.mails.stored_mail import StoredMail
from emailer.writing.writer import is_light

# A mail in hand takes twice its size: as it is stored and as it is sent.
COPIES = 2
# While a mail is written there are several copies of it, so large ones are written one after the other, and
# owners take turns.
_LARGE_BYTES = 1024 * 1024
# Longer than writing one mail may take, so that the large mails of two owners do not put each other off.
LARGE_WITHIN_S = 120.0
_SIGNED, _UNSIGNED = map(metrics.EMAIL_SIGNED.labels, ("signed", "unsigned"))

Prepare = Callable[[StoredMail], Awaitable[StoredMail]]
Write = Callable[[StoredMail], Awaitable[bytes]]


class RenderedMails:
    """Keeps the bytes of a mail while a recipient of it is in hand, and tracks the memory that mails take.

    `held_bytes` is the approximate memory of each owner's mails, as they are stored and as they are sent. It
    excludes uploads, whose room is separate, so that other mails need not wait.

    `fill` renders the template of a mail, `attach` reads the bytes of its uploads, and `write` builds it.
    """

    def __init__(self, fill: Prepare, attach: Prepare, write: Write) -> None:
        self._fill = fill
        self._write = write
        self._attach = attach
        self._recipients: Counter[UUID] = Counter()
        self._sizes: dict[UUID, int] = {}
        self.held_bytes: Counter[str] = Counter()
        self._rendered: dict[UUID, asyncio.Task[bytes]] = {}
        self._large = OwnerTurns(most=1, of_owner=1, most_waiting=sys.maxsize)

    def hold(self, mail: StoredMail) -> None:
        """Note that a recipient of `mail` is in hand."""
        self._recipients[mail.id] += 1
        self._weigh(mail)

    def release(self, mail: StoredMail) -> bool:
        """Note that a recipient of `mail` is finished; return whether it was the last one in hand."""
        self._recipients[mail.id] -= 1
        if self._recipients[mail.id] > 0:
            return False
        del self._recipients[mail.id]
        self.held_bytes[mail.owner_id] -= self._sizes.pop(mail.id)
        if not self.held_bytes[mail.owner_id]:
            del self.held_bytes[mail.owner_id]
        self.forget(mail.id)
        return True

    def forget(self, mail_id: UUID) -> None:
        """Drop the bytes of the mail; they are rendered again when they are next needed."""
        self._rendered.pop(mail_id, None)

    def sign_ahead(self, mail: StoredMail) -> None:
        """Start writing a light mail before its turn comes, if it is to be signed.

        It is signed while other mails are being sent, together with others that wait.
        """
        letter = mail.letter
        if not mail.signers or letter is None or letter.template or not is_light(letter):
            return
        if not letter.upload_ids and mail.id not in self._rendered:
            self._rendered[mail.id] = asyncio.create_task(self._render(mail))

    async def content(self, mail: StoredMail) -> bytes:
        """Return `mail` as it goes over the wire; the first call renders it."""
        task = self._rendered.get(mail.id)
        if task is None:
            if mail.recipient_count == 1:
                # Nobody else needs it, so a task would only cost time.
                return await self._render(mail)
            task = self._rendered[mail.id] = asyncio.create_task(self._render(mail))
        try:
            # The cancellation of one caller must not cancel the rendering for the others.
            return await asyncio.shield(task)
        except TemplateFailed:
            # The failure is kept, so that other recipients get the same result without another try.
            raise
        except Exception:
            # The failure is not kept, so that another try starts afresh.
            if self._rendered.get(mail.id) is task:
                self.forget(mail.id)
            raise

    async def _render(self, mail: StoredMail) -> bytes:
        (_SIGNED if mail.signers else _UNSIGNED).inc()
        filled = await self._fill(mail)
        assert filled.letter is not None  # mails without one are not attempted
        if filled is not mail and mail.id in self._sizes:
            # From now on the size of the rendered template counts.
            self._weigh(filled)
        if filled.letter.size_bytes < _LARGE_BYTES and not filled.letter.upload_ids:
            return await self._write(filled)
        waiting = asyncio.timeout(LARGE_WITHIN_S)
        try:
            async with waiting, self._large.turn(mail.owner_id):
                waiting.reschedule(None)
                return await self._write(await self._attach(filled))
        except TimeoutError:
            if not waiting.expired():
                raise
            raise Overloaded("Other large mails are being written; try again.", retry_after_s=1) from None

    def _weigh(self, mail: StoredMail) -> None:
        size = COPIES * mail.letter.size_bytes if mail.letter else 0
        self.held_bytes[mail.owner_id] += size - self._sizes.get(mail.id, 0)
        self._sizes[mail.id] = size
