"""Preparation of a stored mail for writing: renders its template, converts its HTML, reads its uploads."""

from __future__ import annotations

from dataclasses import replace

from pydantic_core import from_json

from chassis.postgres import Postgres
from emailer.errors import TemplateFailed
from emailer.mails import repository
from emailer.mails.letters import Letter
from emailer.mails.stored_mail import StoredMail
from emailer.templates import repository as templates
from emailer.templates.rendering import TemplateRenderer
from emailer.uploads import repository as uploads
from emailer.writing.writer import MailWriter


class MailPreparation:
    """Completes a stored mail with its rendered template, its text part, and the bytes of its uploads."""

    def __init__(self, postgres: Postgres, renderer: TemplateRenderer, writer: MailWriter) -> None:
        self._postgres = postgres
        self._renderer = renderer
        self.writer = writer

    async def fill(self, mail: StoredMail) -> StoredMail:
        """Return `mail` with its template rendered, or its text made from HTML, and store the result.

        Raise `Unavailable` or `TemplateFailed`.
        """
        if mail.letter is None:
            return mail
        template = mail.letter.template
        if template is None:
            return await self._with_text(mail, mail.letter)
        async with self._postgres.connection() as connection:
            source = await templates.read_source(connection, mail.owner_id, template.name, template.version)
        if source is None:
            # The template was removed after the earlier mail had ended, and before its copy was stored.
            raise TemplateFailed("template-not-found", f"template {template.name} was deleted")
        rendered = await self._renderer.render(source, from_json(template.data), owner_id=mail.owner_id)
        async with self._postgres.connection() as connection:
            await templates.keep_rendered(connection, mail.id, rendered)
        letter = replace(
            mail.letter, subject=rendered.subject, text=rendered.text, html=rendered.html, template=None
        )
        return replace(mail, letter=letter)

    async def attach(self, mail: StoredMail) -> StoredMail:
        """Return `mail` with the bytes of its uploads. Raise `Unavailable`."""
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

    async def _with_text(self, mail: StoredMail, letter: Letter) -> StoredMail:
        if letter.text is not None or letter.html is None:
            return mail
        text = await self.writer.text_of(mail)
        async with self._postgres.connection() as connection:
            await repository.keep_text(connection, mail.id, text)
        return replace(mail, letter=replace(letter, text=text))
