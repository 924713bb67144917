"""A queue of more mails than a test could send: rows made by SQL."""

from __future__ import annotations

from uuid import UUID, uuid4

import asyncpg

COPIES_A_MAIL = 25_000
# So many rows take longer than a service may wait.
_TIMEOUT_S = 200


async def copy_recipient(dsn: str, email_id: UUID | str, *, count: int, domains: int) -> None:
    """Queue `count` recipients of copies of a mail, in `domains` domains; all are due.

    The mail is stored and has not ended; its copies have `COPIES_A_MAIL` recipients each. `dsn` is that of a
    superuser.
    """
    copies = [uuid4() for _ in range(count // COPIES_A_MAIL)]
    connection = await asyncpg.connect(dsn)
    try:
        # Every row's mail is there: looking that up a million times takes a minute.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            """
            INSERT INTO emails SELECT (jsonb_populate_record(emails, jsonb_build_object('id', copy))).*
            FROM emails, unnest($2::uuid[]) AS copy
            WHERE emails.id = $1
            """,
            email_id,
            copies,
            timeout=_TIMEOUT_S,
        )
        await connection.execute(
            """
            INSERT INTO recipients
                (email_id, position, kind, address, status, due_at, size_bytes, expires_at, stream, owner_id,
                domain, ready)
            SELECT emails.id, number, 'to', 'r@' || number % $2 || '.example', 'queued',
                accepted_at - number * interval '1 microsecond', 100, expires_at, stream, owner_id,
                number % $2 || '.example', true
            FROM emails, generate_series(1, $3) AS number
            WHERE emails.id = ANY($1)
            """,
            copies,
            domains,
            COPIES_A_MAIL,
            timeout=_TIMEOUT_S,
        )
        await connection.execute("ANALYZE recipients", timeout=_TIMEOUT_S)
    finally:
        await connection.close()
