"""Uploads: files that mails attach.

Their bytes are sent over HTTP and bypass the broker; a message requests the permission.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from contracts.message import Contract, Moment, Reply, Request
from contracts.topology import EMAIL


class StoredUpload(Contract):
    """An upload that is complete: its bytes, their SHA-256 in hex, and the time until mails may name it."""

    size_bytes: int
    sha256: str
    expires_at: Moment


class OpenedUpload(Reply):
    """The permission to send the bytes of an upload, once, to `PUT /uploads/{id}` of the email service.

    With `stored` they are there already, and the token permits nothing.
    """

    token: str
    stored: StoredUpload | None = None


class OpenUpload(Request):
    """Reserve storage for an upload of `owner_id`, and permit it."""

    message_type: ClassVar[str] = "uploads.open.v1"
    reply: ClassVar[type[Reply]] = OpenedUpload
    service: ClassVar[str] = EMAIL
    upload_id: UUID
    owner_id: str


class OpenParcel(Request):
    """Reserve storage for a parcel of the attachments of mails about to be accepted, and permit sending it.

    Each of `mail_count` mails refers to its part; email removes the parcel with the last of them. Until it is
    stored a parcel may be opened again, always with the same bytes; the earlier token is void then.
    """

    message_type: ClassVar[str] = "uploads.open-parcel.v1"
    reply: ClassVar[type[Reply]] = OpenedUpload
    service: ClassVar[str] = EMAIL
    parcel_id: UUID
    owner_id: str
    size_bytes: int
    mail_count: int
