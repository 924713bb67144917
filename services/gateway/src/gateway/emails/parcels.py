"""Attachments of mails, sent ahead of their commands over HTTP, without the broker."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from chassis import logging, threads
from chassis.broker.envelope import new_id
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import (
    DeadlineExceeded,
    NotBegun,
    NotFound,
    ServiceError,
    TooManyAtOnce,
    Unavailable,
)
from contracts.emails import ParcelPart, SendEmail, SendPackedEmail
from contracts.uploads import OpenedUpload, OpenParcel
from gateway.uploads.transfer import Transfer

log = logging.get(__name__)

# The most requests whose attachments are sent concurrently; others wait for their turn.
MOST_AT_ONCE = 16
# The rest of its time is for accepting the request, should email not answer.
_AHEAD_WITHIN_S = 2.0


@dataclass(frozen=True, slots=True)
class Parcel:
    """The attachments of a request in one piece, which `mail_count` mails share."""

    id: UUID
    owner_id: str
    mail_count: int
    content: bytes


class Parcels:
    """Sends the attachments of a request as one parcel; email removes the parts that no mail claims."""

    def __init__(self, rpc: RpcClient, transfer: Transfer) -> None:
        self._rpc = rpc
        self._transfer = transfer

    async def send_ahead(
        self, commands: Sequence[SendEmail], deadline: Deadline
    ) -> tuple[list[SendEmail], Parcel | None]:
        """Send the attachments of one owner's `commands`; return the commands with references to them.

        Email has the bytes now, unless a parcel is returned, too: email did not take it in time, and it must
        be sent before the commands that name it (`SendPackedEmail`) leave.
        """
        if all(file.content is None for each in commands for file in each.attachments):
            return list(commands), None
        packed, parcel = await threads.run(partial(_pack, commands), until=deadline)
        try:
            await self.send(parcel, within_s=min(_AHEAD_WITHIN_S, deadline.remaining_s() / 2))
        except ServiceError as error:
            is_over_share = isinstance(error, TooManyAtOnce) and not isinstance(error, NotBegun)
            if not error.retryable or is_over_share:
                raise
            log.warning("attachments could not be sent ahead", parcel_id=str(parcel.id), reason=error.detail)
            return packed, parcel
        return packed, None

    async def send(self, parcel: Parcel, *, within_s: float) -> None:
        """Bring a parcel to email; what is there already is not sent again.

        Raise `Unavailable` when email does not take it, `DeadlineExceeded` when it takes too long.
        """
        question = OpenParcel(
            parcel_id=parcel.id,
            owner_id=parcel.owner_id,
            size_bytes=len(parcel.content),
            mail_count=parcel.mail_count,
        )
        try:
            async with asyncio.timeout(within_s):
                opened = await self._rpc.call(question, OpenedUpload, Deadline.after(within_s))
                stored = opened.stored or await self._transfer.put(
                    parcel.id, opened.token, _once(parcel.content)
                )
        except TimeoutError:
            raise DeadlineExceeded(
                f"The email service did not take the attachments within {within_s:.1f} s."
            ) from None
        except NotFound as error:
            raise Unavailable("The email service did not take the attachments in time.") from error
        if stored.sha256 != hashlib.sha256(parcel.content).hexdigest():
            raise Unavailable("The stored attachments differ from those that were sent.", retry_after_s=2)


def _pack(commands: Sequence[SendEmail]) -> tuple[list[SendEmail], Parcel]:
    """Return `commands` with references to their attachments in a parcel, and the parcel."""
    parcel_id, content = new_id(), bytearray()
    packed: list[SendEmail] = []
    for command in commands:
        if all(file.content is None for file in command.attachments):
            packed.append(command)
            continue
        files = []
        for file in command.attachments:
            if file.content is not None:
                start = len(content)
                content += base64.b64decode(file.content)
                part = ParcelPart(parcel_id=parcel_id, start=start, size=len(content) - start)
                file = file.model_copy(update={"content": None, "part": part})
            files.append(file)
        # No validation: the fields are those of `command`, which were validated.
        packed.append(SendPackedEmail.model_construct(**(dict(command) | {"attachments": files})))
    count = sum(isinstance(command, SendPackedEmail) for command in packed)
    return packed, Parcel(parcel_id, commands[0].owner_id, count, bytes(content))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content
