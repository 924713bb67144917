"""The answers of uploads."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from contracts.message import Moment


class UploadView(BaseModel):
    """A file that mails may attach by its id until `expires_at`; `sha256` is in hex, like the entity tag."""

    id: UUID
    size_bytes: int
    sha256: str
    created_at: Moment
    expires_at: Moment
