"""Sealing all keys under the present secret: what a rotation of EMAIL_SECRETS_KEY leaves to do."""

from __future__ import annotations

import asyncio
from uuid import UUID

from chassis import logging, redaction
from chassis.postgres import DATABASE_FAILURES, Postgres
from emailer.domains import repository
from emailer.domains.keys import KeySafe
from emailer.errors import UnreadableKey

log = logging.get(__name__)

_PAGE = 200
_FIRST = (UUID(int=0), "")
_PAUSE_S = 5.0


async def renew(postgres: Postgres, safe: KeySafe) -> None:
    """Seal every key under the present secret, once; a database that is away is waited for."""
    after, is_more = _FIRST, True
    while is_more:
        try:
            async with postgres.transaction() as connection:
                rows = await repository.sealed_keys(connection, after=after, limit=_PAGE)
                for row in rows:
                    after = row["domain_id"], row["selector"]
                    try:
                        renewed = safe.renewed(row["sealed_key"])
                    except UnreadableKey as error:
                        log.error("DKIM key not readable", selector=row["selector"], reason=str(error))
                        continue
                    if renewed is not None:
                        await repository.change_sealed(connection, after, renewed)
        except DATABASE_FAILURES as error:
            # From the beginning: what was renewed in the failed transaction was not kept.
            after = _FIRST
            log.warning("DKIM keys not sealed anew", reason=redaction.safe_message(error))
            await asyncio.sleep(_PAUSE_S)
            continue
        is_more = len(rows) == _PAGE
