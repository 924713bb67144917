"""A stored mail made ready to be written: with the bytes of the uploads that it attaches."""

from __future__ import annotations

from dataclasses import replace

from chassis.postgres import Postgres
from emailer.sending.attempts import StoredMail
from emailer.uploads import repository as uploads


class MailPreparation:
    """Brings what a mail was not stored with."""

    def __init__(self, postgres: Postgres) -> None:
        self._postgres = postgres

    async def prepare(self, mail: StoredMail) -> StoredMail:
        """Return `mail` as it can be written. Raise `DatabaseUnavailable`."""
        letter = mail.letter
        if letter is None or not letter.upload_ids:
            return mail
        async with self._postgres.connection() as connection:
            contents = await uploads.read(connection, letter.upload_ids)
        files = tuple(
            replace(file, content=contents.get(file.upload_id, b"")) if file.upload_id else file
            for file in letter.files
        )
        return replace(mail, letter=replace(letter, files=files))
