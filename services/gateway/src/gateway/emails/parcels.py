"""Attachments of mails, sent ahead of their commands over HTTP, without the broker."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Sequence

from chassis.broker.envelope import new_id
from chassis.broker.rpc import RpcClient
from chassis.deadlines import Deadline
from chassis.errors import NotFound, Unavailable
from contracts.emails import ParcelPart, SendEmail, SendPackedEmail
from contracts.uploads import OpenedUpload, OpenParcel
from gateway.uploads.transfer import Transfer

# The most requests whose attachments are sent concurrently; others wait for their turn.
MOST_AT_ONCE = 16


class Parcels:
    """Sends the attachments of a request as one parcel; email removes the parts that no mail claims."""

    def __init__(self, rpc: RpcClient, transfer: Transfer) -> None:
        self._rpc = rpc
        self._transfer = transfer

    async def send_ahead(self, commands: Sequence[SendEmail], deadline: Deadline) -> list[SendEmail]:
        """Send the attachments of one owner's `commands`; return the commands with references to them.

        Raise `Unavailable` if email does not accept them: then no mail is accepted.
        """
        count = sum(any(file.content is not None for file in each.attachments) for each in commands)
        if not count:
            return list(commands)
        packed, content = await asyncio.to_thread(_pack, commands)
        [parcel_id] = {file.part.parcel_id for each in packed for file in each.attachments if file.part}
        question = OpenParcel(
            parcel_id=parcel_id,
            owner_id=commands[0].owner_id,
            size_bytes=len(content),
            mail_count=count,
        )
        opened = await self._rpc.call(question, OpenedUpload, deadline)
        try:
            stored = await self._transfer.put(parcel_id, opened.token, _once(content))
        except NotFound as error:
            raise Unavailable(
                "The email service did not store the attachments in time; repeat the request."
            ) from error
        if stored.sha256 != hashlib.sha256(content).hexdigest():
            raise Unavailable(
                "The stored attachments differ from the sent ones; repeat the request.", retry_after_s=2
            )
        return packed


def _pack(commands: Sequence[SendEmail]) -> tuple[list[SendEmail], bytes]:
    """Return `commands` with references to their attachments in a parcel, and the bytes of the parcel."""
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
    return packed, bytes(content)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content
