"""The bytes of the mails in hand: each mail is rendered once, for all its recipients, off the event loop."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

from emailer.sending.attempts import StoredMail
from emailer.writing import rendering

# Below this, rendering takes less time than a thread needs to begin.
_SMALL_BYTES = 8 * 1024
# While a mail is written there are several copies of it: the large ones are written one after the other.
_LARGE_BYTES = 1024 * 1024


class RenderedMails:
    """Keeps the bytes of a mail while a recipient of it is in hand, and counts the bytes that mails take."""

    def __init__(self) -> None:
        self._recipients: Counter[UUID] = Counter()
        self._sizes: dict[UUID, int] = {}
        self._rendered: dict[UUID, asyncio.Task[bytes]] = {}
        self._large = asyncio.Lock()

    @property
    def held_bytes(self) -> int:
        """About how many bytes the mails in hand take, as they are stored and as they are sent."""
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
            self._rendered.pop(mail_id, None)

    async def content(self, mail: StoredMail) -> bytes:
        """Return `mail` as it goes over the wire. Whoever asks first has it rendered."""
        task = self._rendered.get(mail.id)
        if task is None:
            task = self._rendered[mail.id] = asyncio.create_task(self._render(mail))
        # A caller that is cancelled must not take the rendering from the others.
        return await asyncio.shield(task)

    async def _render(self, mail: StoredMail) -> bytes:
        if mail.letter is None or mail.letter.size_bytes < _LARGE_BYTES:
            return await render(mail)
        async with self._large:
            return await render(mail)


async def render(mail: StoredMail) -> bytes:
    """Return `mail` as it goes over the wire, written in a thread unless it is small."""
    letter = mail.letter
    assert letter is not None  # without one it was put aside when it was claimed
    # Rows of the release before have none.
    identity = mail.message_id or rendering.message_id(mail.id, domain=letter.sender.domain)
    if letter.text is not None and letter.size_bytes <= _SMALL_BYTES:
        return rendering.render(letter, identity=identity, at=mail.dated)
    return await asyncio.to_thread(rendering.render, letter, identity=identity, at=mail.dated)
