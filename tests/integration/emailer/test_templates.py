"""Mails of templates: the version is chosen when a mail is stored, and the mail is rendered once."""

from __future__ import annotations

import email
import email.policy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.broker.envelope import new_id
from chassis.deadlines import Deadline
from chassis.errors import Conflict, InvalidInput, NotFound
from contracts.emails import RescheduleEmail, ResendEmail, SendEmail
from contracts.templates import (
    DeleteTemplate,
    GetTemplate,
    ListTemplates,
    ListTemplateVersions,
    PreviewTemplate,
    SaveTemplate,
    Template,
    TemplateSource,
)
from emailer.errors import TemplateChanged, TooManyTemplates
from emailer.mails import choosing
from emailer.retention import removal
from emailer.retention.removal import Retention
from emailer.templates.answers import MOST_VERSIONS, MOST_VERSIONS_OF_OWNER, TemplateAnswers
from support.doubles.post_office import OWNER, PostOffice, mail

SOON = Deadline(float("inf"))
SOURCE = TemplateSource(subject="For {{ name }}", html="<p>Hello <b>{{ name }}</b></p>")


def saving(source: TemplateSource = SOURCE, *, name: str = "welcome", **fields: Any) -> SaveTemplate:
    return SaveTemplate(owner_id=OWNER, name=name, source=source, **fields)


def naming(version: int | None = None, *, name: str = "welcome", **fields: Any) -> SendEmail:
    used = {"name": name, "version": version, "data": {"name": "<Ann>"}}
    return mail(subject="", text=None, template=used, **fields)


@pytest.fixture
def answers(post_office: PostOffice) -> TemplateAnswers:
    return TemplateAnswers(post_office.postgres, post_office.renderer, most_of_owner=3)


async def changed(answers: TemplateAnswers, subject: str, expected: int) -> Template:
    return await answers.save(saving(TemplateSource(subject=subject, text="x"), expected=[expected]), SOON)


async def test_a_mail_says_what_its_version_says_though_the_template_was_changed_and_deleted(
    post_office: PostOffice, answers: TemplateAnswers
) -> None:
    await answers.save(saving(), SOON)
    sent, pinned = naming(to=["a@example.com", "b@example.com"]), naming(1)
    await post_office.accept(sent)
    await changed(answers, "Second", 1)
    await post_office.accept(pinned)
    await answers.delete(DeleteTemplate(owner_id=OWNER, name="welcome"), SOON)
    async with post_office.delivering():
        found = [await post_office.reaches(each, "delivered") for each in (sent, pinned)]
    assert [(each.template.name, each.template.version) for each in found if each.template] == [
        ("welcome", 1)
    ] * 2
    assert [each.subject for each in found] == ["For <Ann>"] * 2
    messages = [
        email.message_from_bytes(received.content, policy=email.policy.default)
        for received in post_office.server.received
    ]
    assert {message["Subject"] for message in messages} == {"For <Ann>"}
    bodies = [message.get_body(("html",)) for message in messages]
    assert ["<b>&lt;Ann&gt;</b>" in body.get_content() for body in bodies if body] == [True] * 3
    texts = [message.get_body(("plain",)) for message in messages]
    assert {text.get_content() for text in texts if text} == {"Hello <Ann>\r\n"}


async def test_a_mail_is_rendered_once_and_its_data_is_removed_then(
    post_office: PostOffice, answers: TemplateAnswers
) -> None:
    await answers.save(saving(), SOON)
    sent = naming()
    await post_office.accept(sent)
    async with post_office.delivering():
        await post_office.reaches(sent, "delivered")
    async with post_office.postgres.connection() as connection:
        row = await connection.fetchrow("SELECT subject, html_body, template_data FROM emails")
    assert row is not None
    assert (row["subject"], row["template_data"]) == ("For <Ann>", None)
    assert "<b>&lt;Ann&gt;</b>" in row["html_body"]
    again = ResendEmail(
        email_id=new_id(), source_id=sent.email_id, owner_id=OWNER, accepted_at=sent.accepted_at
    )
    async with post_office.postgres.transaction() as connection:
        assert await choosing.copy(connection, again, life_s=3600, trace=(None, None))
    async with post_office.delivering():
        copied = await post_office.reaches(
            naming().model_copy(update={"email_id": again.email_id}), "delivered"
        )
    assert copied.subject == "For <Ann>"


async def test_a_mail_without_its_template_or_with_missing_data_fails_with_a_code(
    post_office: PostOffice, answers: TemplateAnswers
) -> None:
    await answers.save(saving(TemplateSource(subject="x", text="Dear\n{{ title }}")), SOON)
    unknown, newer = naming(name="other"), naming(7)
    foreign, missing = naming(owner_id="other"), naming(to=["a@example.com", "b@example.com"])
    await post_office.accept(unknown, newer, foreign, missing)
    async with post_office.delivering():
        found = [await post_office.reaches(each, "failed") for each in (unknown, newer, foreign, missing)]
    replies = [each.recipients[0].attempts[0].smtp_reply for each in found]
    assert replies[0] == "not sent: template: template-not-found: there is no template other"
    assert "template-not-found: there is no template welcome version 7" in replies[1]
    assert "template-not-found" in replies[2]
    assert replies[3] == "not sent: template: text: template-undefined: line 2: 'title' is undefined"
    assert not post_office.server.received


async def test_a_mail_that_its_template_cannot_make_is_not_sent_again_and_this_is_announced(
    post_office: PostOffice, answers: TemplateAnswers
) -> None:
    await answers.save(saving(TemplateSource(subject="{{ missing }}", text="x")), SOON)
    sent = naming()
    await post_office.accept(sent)
    async with post_office.delivering():
        await post_office.reaches(sent, "failed")
    again = ResendEmail(
        email_id=new_id(), source_id=sent.email_id, owner_id=OWNER, accepted_at=sent.accepted_at
    )
    async with post_office.postgres.transaction() as connection:
        assert await choosing.copy(connection, again, life_s=3600, trace=(None, None))
        stored = await connection.fetchval("SELECT status FROM emails WHERE id = $1", again.email_id)
    assert stored == "failed"
    reported = await post_office.events()
    assert [event["status"] for event in reported if event["email_id"] == str(again.email_id)] == ["failed"]


async def test_versions_never_change_and_a_writer_must_have_seen_the_newest(answers: TemplateAnswers) -> None:
    first = await answers.save(saving(request_key="k"), SOON)
    assert await answers.save(saving(request_key="k"), SOON) == first
    with pytest.raises(Conflict):
        await answers.save(saving(), SOON)
    second = await changed(answers, "Second", 1)
    assert (second.version, second.newest) == (2, 2)
    with pytest.raises(TemplateChanged):
        await changed(answers, "Third", 1)
    earlier = await answers.get(GetTemplate(owner_id=OWNER, name="welcome", version=1), SOON)
    assert (earlier.source, earlier.newest) == (SOURCE, 2)
    page = await answers.versions(ListTemplateVersions(owner_id=OWNER, name="welcome", limit=1), SOON)
    assert ([each.version for each in page.data], page.next_cursor) == ([2], 2)
    with pytest.raises(NotFound):
        await answers.get(GetTemplate(owner_id="other", name="welcome"), SOON)


async def test_a_template_that_is_made_again_continues_the_version_numbers_of_its_name(
    answers: TemplateAnswers,
) -> None:
    await answers.save(saving(), SOON)
    with pytest.raises(TemplateChanged):
        await answers.delete(DeleteTemplate(owner_id=OWNER, name="welcome", expected=[2]), SOON)
    await answers.delete(DeleteTemplate(owner_id=OWNER, name="welcome", expected=[1]), SOON)
    with pytest.raises(NotFound):
        await answers.get(GetTemplate(owner_id=OWNER, name="welcome"), SOON)
    with pytest.raises(NotFound):
        await changed(answers, "Second", 1)
    assert (await answers.save(saving(), SOON)).version == 2


async def test_no_owner_has_more_than_its_number_of_templates(answers: TemplateAnswers) -> None:
    for name in ("c", "a", "b"):
        await answers.save(saving(name=name), SOON)
    with pytest.raises(TooManyTemplates):
        await answers.save(saving(name="d"), SOON)
    page = await answers.list(ListTemplates(owner_id=OWNER, limit=2), SOON)
    assert ([each.name for each in page.data], page.next_cursor) == (["a", "b"], "b")


async def removed(post_office: PostOffice, *, days: float) -> int:
    """Return how many versions are removed when templates were deleted so long ago."""
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "UPDATE templates SET deleted_at = deleted_at - $1 * interval '1 day'", float(days)
        )
    return (await removal.remove(post_office.postgres, Retention()))["template"]


async def test_a_deleted_template_is_removed_once_no_mail_is_made_of_it_any_more(
    post_office: PostOffice, answers: TemplateAnswers
) -> None:
    for name in ("welcome", "kept"):
        await answers.save(saving(name=name), SOON)
    await changed(answers, "Second", 1)
    waiting = naming(1, send_at=datetime.now(UTC) + timedelta(hours=1))
    await post_office.accept(waiting)
    await answers.delete(DeleteTemplate(owner_id=OWNER, name="welcome"), SOON)
    assert await removed(post_office, days=0.9) == 0
    assert await removed(post_office, days=0.2) == 0
    async with post_office.postgres.transaction() as connection:
        moved = RescheduleEmail(email_id=waiting.email_id, owner_id=OWNER, send_at=datetime.now(UTC))
        await choosing.reschedule(connection, moved)
    async with post_office.delivering():
        await post_office.reaches(waiting, "delivered")
    assert await removed(post_office, days=0) == 2
    async with post_office.postgres.connection() as connection:
        rows = await connection.fetch(
            "SELECT name FROM templates UNION ALL SELECT name FROM template_versions"
        )
    assert [row["name"] for row in rows] == ["kept", "kept"]
    assert (await answers.save(saving(), SOON)).version == 1


async def test_deleted_names_are_bounded_too_until_they_are_removed(
    post_office: PostOffice, answers: TemplateAnswers
) -> None:
    for number in range(6):
        await answers.save(saving(name=f"t{number}"), SOON)
        await answers.delete(DeleteTemplate(owner_id=OWNER, name=f"t{number}"), SOON)
    with pytest.raises(TooManyTemplates, match="6 deleted templates are still stored"):
        await answers.save(saving(name="t7"), SOON)
    assert (await answers.save(saving(name="t3"), SOON)).version == 2
    assert await removed(post_office, days=1) == 5
    await answers.save(saving(name="t7"), SOON)


async def test_the_versions_of_an_owner_are_bounded(
    post_office: PostOffice, answers: TemplateAnswers
) -> None:
    for name in ("welcome", "second", "third"):
        await answers.save(saving(name=name), SOON)
    async with post_office.postgres.connection() as connection:
        await connection.execute("UPDATE templates SET newest = $1 WHERE name = 'second'", MOST_VERSIONS)
    with pytest.raises(TooManyTemplates, match="another name"):
        await answers.save(saving(name="second", expected=[]), SOON)
    async with post_office.postgres.connection() as connection:
        await connection.execute(
            "INSERT INTO template_versions (owner_id, name, version, source)"
            " SELECT $1, 'third', number, '{}' FROM generate_series(2, $2::int) AS number",
            OWNER,
            MOST_VERSIONS_OF_OWNER - 2,
        )
    with pytest.raises(TooManyTemplates, match="5000 versions"):
        await changed(answers, "Second", 1)


async def test_an_invalid_template_is_not_stored_and_a_preview_says_where_it_fails(
    answers: TemplateAnswers,
) -> None:
    with pytest.raises(InvalidInput) as refused:
        await answers.save(saving(TemplateSource(subject="x", html="a\n{% if %}")), SOON)
    assert refused.value.errors[0].pointer == "/html"
    assert "line 2" in refused.value.errors[0].detail
    await answers.save(saving(), SOON)
    shown = await answers.preview(PreviewTemplate(owner_id=OWNER, name="welcome", data={"name": "Ann"}), SOON)
    assert (shown.subject, shown.text) == ("For Ann", "Hello Ann\n")
    with pytest.raises(InvalidInput) as failed:
        await answers.preview(PreviewTemplate(owner_id=OWNER, source=SOURCE), SOON)
    assert failed.value.errors[0].pointer == "/source/subject"


async def test_a_preview_that_fails_with_half_a_surrogate_pair_is_answered(answers: TemplateAnswers) -> None:
    source = TemplateSource(subject="x", text=r'{{ "{0!\ud800}".format(1) }}')
    with pytest.raises(InvalidInput) as failed:
        await answers.preview(PreviewTemplate(owner_id=OWNER, source=source), SOON)
    assert "conversion specifier" in failed.value.failure().model_dump_json()


async def test_a_preview_is_bounded_by_its_bytes(answers: TemplateAnswers) -> None:
    source = TemplateSource(subject="x", text="{{ word * 190000 }}", html="{{ word * 190000 }}")
    shown = await answers.preview(PreviewTemplate(owner_id=OWNER, source=source, data={"word": "a"}), SOON)
    assert len(shown.text) == 190_000
    with pytest.raises(InvalidInput, match="1000000 bytes"):
        await answers.preview(PreviewTemplate(owner_id=OWNER, source=source, data={"word": "郵"}), SOON)
