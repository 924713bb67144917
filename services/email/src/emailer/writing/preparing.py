"""A stored mail made ready to be written: its template rendered, the bytes of its uploads read."""

from __future__ import annotations

from dataclasses import replace

from pydantic_core import from_json

from chassis.postgres import Postgres
from emailer.errors import TemplateFailed
from emailer.sending.attempts import StoredMail
from emailer.templates import repository as templates
from emailer.templates.rendering import TemplateRenderer
from emailer.uploads import repository as uploads
from emailer.writing.letters import FilledTemplate, Letter


class MailPreparation:
    """Adds what is not stored with a mail: the text of its template, and the bytes of its uploads."""

    def __init__(self, postgres: Postgres, renderer: TemplateRenderer) -> None:
        self._postgres = postgres
        self._renderer = renderer

    async def prepare(self, mail: StoredMail) -> StoredMail:
        """Return `mail` as it can be written. Raise `Unavailable` or `TemplateFailed`."""
        letter = mail.letter
        if letter is not None and letter.template is not None:
            letter = await self._rendered(mail, letter, letter.template)
        if letter is None or not letter.upload_ids:
            return replace(mail, letter=letter)
        async with self._postgres.connection() as connection:
            contents = await uploads.read(connection, letter.upload_ids)
        files = tuple(
            replace(file, content=contents.get(file.upload_id, b"")) if file.upload_id else file
            for file in letter.files
        )
        return replace(mail, letter=replace(letter, files=files))

    async def _rendered(self, mail: StoredMail, letter: Letter, template: FilledTemplate) -> Letter:
        """Return `letter` with what its template says, which is kept: a mail is rendered once."""
        async with self._postgres.connection() as connection:
            source = await templates.read_source(connection, mail.owner_id, template.name, template.version)
        if source is None:
            # Removed between the copying of a mail that was to be sent again and the end of the earlier one.
            raise TemplateFailed("template-not-found", f"template {template.name} was deleted")
        rendered = await self._renderer.render(source, from_json(template.data), owner_id=mail.owner_id)
        async with self._postgres.connection() as connection:
            await templates.keep_rendered(connection, mail.id, rendered)
        return replace(
            letter, subject=rendered.subject, text=rendered.text, html=rendered.html, template=None
        )
