"""The bytes of the mails in hand: each mail is rendered once, for all its recipients, off the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from uuid import UUID

from chassis import metrics
from emailer.errors import TemplateFailed
from emailer.sending.attempts import StoredMail
from emailer.sending.window import COPIES
from emailer.writing.writer import is_light

# While a mail is written there are several copies of it: the large ones are written one after the other.
_LARGE_BYTES = 1024 * 1024

Prepare = Callable[[StoredMail], Awaitable[StoredMail]]
Write = Callable[[StoredMail], Awaitable[bytes]]


class RenderedMails:
    """Keeps the bytes of a mail while a recipient of it is in hand, and counts the bytes that mails take.

    `held_bytes` is about how many those of each owner take, as they are stored and as they are sent. The few
    with uploads count without these: their room is kept apart, so that others need not wait.

    `fill` renders the template of a mail, `attach` brings the bytes of its uploads, and `write` writes it.
    """

    def __init__(self, fill: Prepare, attach: Prepare, write: Write) -> None:
        self._fill = fill
        self._write = write
        self._attach = attach
        self._recipients: Counter[UUID] = Counter()
        self._sizes: dict[UUID, int] = {}
        self.held_bytes: Counter[str] = Counter()
        self._rendered: dict[UUID, asyncio.Task[bytes]] = {}
        self._large = asyncio.Lock()

    def hold(self, mail: StoredMail) -> None:
        """Note that a recipient of `mail` is in hand."""
        self._recipients[mail.id] += 1
        self._weigh(mail)

    def release(self, mail: StoredMail) -> bool:
        """Note that a recipient of `mail` is done with; return whether it was the last one in hand."""
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
        """Drop the bytes of the mail; whoever asks for them next has them rendered anew."""
        self._rendered.pop(mail_id, None)

    def sign_ahead(self, mail: StoredMail) -> None:
        """Have a light mail in hand written before it is its turn, if it is to be signed.

        While others are being sent it is signed beside them, together with those that wait as well.
        """
        letter = mail.letter
        if not mail.signers or letter is None or letter.template or not is_light(letter):
            return
        if not letter.upload_ids and mail.id not in self._rendered:
            self._rendered[mail.id] = asyncio.create_task(self._render(mail))

    async def content(self, mail: StoredMail) -> bytes:
        """Return `mail` as it goes over the wire. Whoever asks first has it rendered."""
        task = self._rendered.get(mail.id)
        if task is None:
            if mail.recipient_count == 1:
                # Nobody shares it, so a task of its own would only take time.
                return await self._render(mail)
            task = self._rendered[mail.id] = asyncio.create_task(self._render(mail))
        try:
            # A caller that is cancelled must not take the rendering from the others.
            return await asyncio.shield(task)
        except TemplateFailed:
            # Its other recipients learn the same without another try.
            raise
        except Exception:
            # Another try begins anew.
            if self._rendered.get(mail.id) is task:
                self.forget(mail.id)
            raise

    async def _render(self, mail: StoredMail) -> bytes:
        metrics.EMAIL_SIGNED.labels("signed" if mail.signers else "unsigned").inc()
        filled = await self._fill(mail)
        assert filled.letter is not None  # without one it was put aside when it was claimed
        if mail.id in self._sizes:
            # What a template has made of it counts from now on.
            self._weigh(filled)
        if filled.letter.size_bytes < _LARGE_BYTES and not filled.letter.upload_ids:
            return await self._write(filled)
        async with self._large:
            return await self._write(await self._attach(filled))

    def _weigh(self, mail: StoredMail) -> None:
        size = COPIES * mail.letter.size_bytes if mail.letter else 0
        self.held_bytes[mail.owner_id] += size - self._sizes.get(mail.id, 0)
        self._sizes[mail.id] = size
