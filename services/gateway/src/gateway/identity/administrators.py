"""The rule that the installation always has an administrator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.errors import Conflict
from chassis.postgres import Connection
from gateway.identity import user_repository


@asynccontextmanager
async def kept(connection: Connection) -> AsyncIterator[None]:
    """Raise `Conflict` after the block if its changes removed the last working administrator.

    A working administrator is an active user with the role admin and a usable key with the scope admin. If
    there is a key without an expiry, one must remain, because the installation could not be administered
    once the others have expired.

    The error rolls back the transaction of the changes. Such changes are serialized, so two administrators
    who revoke each other at the same time cannot both succeed.
    """
    await user_repository.lock_administrators(connection)
    before = await user_repository.count_administrators(connection)
    yield
    after = await user_repository.count_administrators(connection)
    if before.working and not after.working:
        raise Conflict(
            "This would end the last key that administers the installation, and the keys it created. "
            "Give another active administrator a separate key first (python -m gateway.identity.reset)."
        )
    if before.lasting and not after.lasting:
        raise Conflict(
            "This would leave only administrators' keys that expire. Create one without an expiry first "
            "(python -m gateway.identity.reset)."
        )
