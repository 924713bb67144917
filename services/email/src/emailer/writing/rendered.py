"""The bytes of the mails in hand: each mail is rendered once, for all its recipients, off the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from uuid import UUID

from chassis import metrics
from emailer.errors import NoRoomForUploads, TemplateFailed
from emailer.sending.attempts import StoredMail
from emailer.writing import dkim, rendering

# Below this, rendering takes less time than a thread needs to begin.
_SMALL_BYTES = 8 * 1024
# While a mail is written there are several copies of it: the large ones are written one after the other.
_LARGE_BYTES = 1024 * 1024
# Mails with uploads whose bytes are in memory at a time; an owner has one of them.
MOST_WITH_UPLOADS = 2

Prepare = Callable[[StoredMail], Awaitable[StoredMail]]


class RenderedMails:
    """Keeps the bytes of a mail while a recipient of it is in hand, and counts the bytes that mails take.

    `prepare` brings what a mail was not stored with.
    """

    def __init__(self, prepare: Prepare) -> None:
        self._prepare = prepare
        self._recipients: Counter[UUID] = Counter()
        self._sizes: dict[UUID, int] = {}
        self._rendered: dict[UUID, asyncio.Task[bytes]] = {}
        # The owners of the mails whose uploads are in memory.
        self._with_uploads: dict[UUID, str] = {}
        self._large = asyncio.Lock()

    @property
    def held_bytes(self) -> int:
        """About how many bytes the mails in hand take, as they are stored and as they are sent.

        The few with uploads count without these: their room is kept apart, so that others need not wait.
        """
        return sum(self._sizes.values())

    def hold(self, mail: StoredMail) -> None:
        """Note that a recipient of `mail` is in hand."""
        self._recipients[mail.id] += 1
        # As stored and as sent; attachments are sent as base64.
        self._sizes[mail.id] = 2 * mail.letter.size_bytes if mail.letter else 0

    def release(self, mail_id: UUID) -> None:
        """Note that a recipient of the mail is done with; the last one drops its bytes."""
        self._recipients[mail_id] -= 1
        if self._recipients[mail_id] <= 0:
            del self._recipients[mail_id], self._sizes[mail_id]
            self._drop(mail_id)

    async def content(self, mail: StoredMail) -> bytes:
        """Return `mail` as it goes over the wire. Whoever asks first has it rendered.

        Raise `NoRoomForUploads` while others have the room for the bytes of its uploads.
        """
        task = self._rendered.get(mail.id)
        if task is None:
            if mail.letter and mail.letter.upload_ids:
                self._take_room(mail)
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
                self._drop(mail.id)
            raise

    def _take_room(self, mail: StoredMail) -> None:
        owners = self._with_uploads.values()
        if len(owners) >= MOST_WITH_UPLOADS or mail.owner_id in owners:
            raise NoRoomForUploads("other mails with uploads are being sent")
        self._with_uploads[mail.id] = mail.owner_id

    def _drop(self, mail_id: UUID) -> None:
        self._rendered.pop(mail_id, None)
        self._with_uploads.pop(mail_id, None)

    async def _render(self, mail: StoredMail) -> bytes:
        metrics.EMAIL_SIGNED.labels("signed" if mail.signers else "unsigned").inc()
        if mail.letter is None or (mail.letter.size_bytes < _LARGE_BYTES and not mail.letter.upload_ids):
            prepared = await self._prepare(mail)
            if prepared.letter and mail.id in self._sizes:
                # What a template has made of it counts from now on.
                self._sizes[mail.id] = 2 * prepared.letter.size_bytes
            return await render(prepared)
        async with self._large:
            return await render(await self._prepare(mail))


async def render(mail: StoredMail) -> bytes:
    """Return `mail` as it goes over the wire; in a thread unless it is small and not signed."""
    letter = mail.letter
    assert letter is not None  # without one it was put aside when it was claimed
    # Rows of the release before have none.
    identity = mail.message_id or rendering.message_id(mail.id, domain=letter.sender.domain)
    if not mail.signers and letter.text is not None and letter.size_bytes <= _SMALL_BYTES:
        return rendering.render(letter, identity=identity, at=mail.dated)

    def written() -> bytes:
        return dkim.sign(
            rendering.render(letter, identity=identity, at=mail.dated), mail.signers, at=mail.dated
        )

    return await asyncio.to_thread(written)
