"""Re-encryption of all keys with the current secret, after a rotation of EMAIL_SECRETS_KEY."""

from __future__ import annotations

import asyncio
from uuid import UUID

from chassis import logging, redaction
from chassis.postgres import DATABASE_FAILURES, Connection, Postgres
from emailer.domains import repository
from emailer.domains.keys import KeySafe
from emailer.errors import UnreadableKey

log = logging.get(__name__)

Place = tuple[UUID, str]

_PAGE = 200
_FIRST: Place = (UUID(int=0), "")
_PAUSE_S = 5.0


async def renew(postgres: Postgres, safe: KeySafe) -> None:
    """Re-encrypt every key with the current secret, once; wait for a database that is unavailable."""
    after: Place | None = _FIRST
    while after is not None:
        try:
            async with postgres.transaction() as connection:
                after = await _renew_page(connection, safe, after)
        except DATABASE_FAILURES as error:
            log.warning("DKIM keys could not be re-encrypted", reason=redaction.safe_message(error))
            await asyncio.sleep(_PAUSE_S)


async def _renew_page(connection: Connection, safe: KeySafe, after: Place) -> Place | None:
    """Re-encrypt a page of the keys that follow `after`; return where the next page begins, if any."""
    rows = await repository.sealed_keys(connection, after=after, limit=_PAGE)
    for row in rows:
        place = row["domain_id"], row["selector"]
        try:
            renewed = safe.renewed(row["sealed_key"])
        except UnreadableKey as error:
            log.error("DKIM key cannot be decrypted", selector=row["selector"], reason=str(error))
            continue
        if renewed is not None:
            await repository.change_sealed(connection, place, renewed)
    return (rows[-1]["domain_id"], rows[-1]["selector"]) if len(rows) == _PAGE else None
