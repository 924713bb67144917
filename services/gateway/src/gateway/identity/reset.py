"""`python -m gateway.identity.reset`: a new key for an administrator, created on the host.

Use it when no administrator's key is left: it needs the gateway's settings (database and pepper), but no key.
It prints the new key as the last line. `make keys-reset` also puts it into the key file; without `make`, use
`docker compose exec gateway python -m gateway.identity.reset`, or the same with `kubectl exec`.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import asyncpg

from chassis import logging, queries
from chassis.errors import DatabaseUnavailable
from chassis.postgres import Postgres
from chassis.settings import load_or_exit
from contracts.scopes import Scope
from contracts.topology import GATEWAY
from gateway.audit.inputs import Action
from gateway.audit.service import AuditTrail
from gateway.identity import key_repository, keys, user_repository
from gateway.identity.bootstrap import ADMINISTRATOR
from gateway.identity.keys import ApiKey
from gateway.settings import GatewaySettings

_PATIENCE_S = 15


async def reset(settings: GatewaySettings, *, email: str, revoke_others: bool) -> tuple[ApiKey, list[str]]:
    """Make `email` an active administrator with a new key; return the key and the ids of the revoked ones."""
    postgres = Postgres(settings.postgres_dsn.get_secret_value(), size=1)
    audit = AuditTrail(postgres, retention_days=settings.audit_retention_days)
    key = keys.new_key()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            await postgres.open()
        async with postgres.transaction() as connection:
            user_id = await user_repository.ensure_administrator(connection, email)
            await key_repository.insert(
                connection,
                key.id,
                user_id=user_id,
                name="reset on the host",
                digest=keys.digest(settings.key_pepper.get_secret_value(), key),
                scopes=[Scope.ADMIN],
            )
            after = {"user_id": user_id, "name": "reset on the host", "scopes": [Scope.ADMIN]}
            await audit.record(connection, None, Action.KEY_CREATED, f"api-key:{key.id}", after=after)
            revoked = await key_repository.revoke_others(connection, user_id, key.id) if revoke_others else []
            for key_id in revoked:
                target = f"api-key:{key_id}"
                await audit.record(connection, None, Action.KEY_REVOKED, target, after={"status": "revoked"})
    finally:
        await postgres.close()
    return key, revoked


def main(arguments: Sequence[str] | None = None) -> int:
    """Create and print the key; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway.identity.reset", description=__doc__)
    parser.add_argument(
        "--email", default=ADMINISTRATOR, help="address of the administrator (default: %(default)s)"
    )
    parser.add_argument(
        "--revoke-others",
        action="store_true",
        help="revoke the administrator's other keys, and all keys that those created",
    )
    options = parser.parse_args(arguments)
    settings = load_or_exit(GatewaySettings)
    queries.load("chassis", "gateway")
    logging.configure(service=GATEWAY, level="WARNING", style=settings.log_format)
    try:
        key, revoked = asyncio.run(reset(settings, email=options.email, revoke_others=options.revoke_others))
    except (DatabaseUnavailable, TimeoutError):
        sys.stderr.write("The database cannot be reached: start it, and check POSTGRES_DSN.\n")
        return 1
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError):
        sys.stderr.write("The database does not have the tables of this release: start the gateway once.\n")
        return 1
    if revoked:
        sys.stderr.write(f"Revoked: {', '.join(revoked)}, and the keys that they created.\n")
    sys.stderr.write(f"A new key of {options.email}, which is shown only once and works immediately:\n")
    sys.stdout.write(f"{key}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
