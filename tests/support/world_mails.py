"""Mails as people write them: names, subjects, file names and addresses in many scripts."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import strategies as st

from contracts.emails import SendEmail
from contracts.mail import Mail
from emailer.mails import intake
from emailer.mails.letters import Letter
from emailer.writing import rendering

_SCRIPTS = (
    "abc XYZ 019 .,;:@<>()[]\\\"'=?_%*-",
    "äöüßéèñøåçžőą",
    "абвгдеёжзийЯЮ",
    "αβγδΩΔς",
    "אבגדה שלום",
    "ابتثجح مرحبا",
    "कखगघ नमस्ते",
    "กขฃค สวัสดี",
    "漢字仮名交じり文",
    "한국어",
    "🎉👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301n\u0303 \u200b\u00a0\u3000",
)
_LOCAL_PARTS = ("ann", "o'neil+tag", "a.b", "jörg", "δοκιμή", "用户", "пример", "أحمد")
_DOMAINS = ("example.com", "bücher.example", "例え.example", "пример.example", "b.test")

texts = st.lists(
    st.one_of(*(st.text(alphabet=script, min_size=1, max_size=24) for script in _SCRIPTS)),
    min_size=1,
    max_size=4,
).map("".join)
long_texts = st.one_of(texts, st.sampled_from(("x" * 900, "ü" * 450, "word " * 170, "漢" * 300)))
bodies = st.one_of(
    texts, st.sampled_from(("a" * 5000, ".\n..\n.x\n", "From me\n", "a\rb\nc\r\n", "ü" * 3000))
)


@dataclass(frozen=True)
class Written:
    """A mail as it was asked for, as a letter, and as octets."""

    mail: Mail
    letter: Letter
    content: bytes


@st.composite
def addresses(draw: st.DrawFn, *, ascii_only: bool = False) -> str:
    """Return an address, often with a name."""
    local = draw(st.sampled_from(_LOCAL_PARTS[:3] if ascii_only else _LOCAL_PARTS))
    address = f"{local}@{draw(st.sampled_from(_DOMAINS))}"
    name = draw(st.none() | texts)
    if name is None:
        return address
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}" <{address}>'


@st.composite
def files(draw: st.DrawFn) -> dict[str, str]:
    """Return an attachment of one of the kinds that are written in different ways."""
    content_type, content = draw(
        st.sampled_from(
            (
                ("application/pdf", b"%PDF\0\r\n\xff"),
                ("text/csv", "é,ü\n".encode("latin-1")),
                ("text/calendar; method=REQUEST; charset=utf-8", b"BEGIN:VCALENDAR\r\nEND:VCALENDAR\r\n"),
                ("message/rfc822", b"Subject: inner\n\n.\n..x\nFrom here\n"),
            )
        )
    )
    return {
        "filename": draw(texts)[:100],
        "content": base64.b64encode(content).decode(),
        "content_type": content_type,
    }


@st.composite
def mails(draw: st.DrawFn, *, ascii_addresses: bool = False) -> Written:
    """Return a mail that the API takes, and its outcome."""
    people = addresses(ascii_only=ascii_addresses)
    fields = {
        "from": draw(addresses(ascii_only=True)),
        "to": draw(st.lists(people, min_size=1, max_size=4)),
        "cc": draw(st.lists(people, max_size=3)),
        "subject": draw(long_texts),
        "text": draw(st.none() | bodies),
        "html": draw(bodies),
        "headers": {"X-Note": draw(long_texts), "List-Unsubscribe": "<https://example.com/=?u?q=1>"},
        "attachments": draw(st.lists(files(), max_size=3)),
    }
    mail = Mail.model_validate(fields)
    command = SendEmail.of(
        mail, email_id=UUID(int=7), owner_id="owner", accepted_at=datetime(2026, 11, 26, tzinfo=UTC)
    )
    prepared = intake.accept(command, default_sender="from@example.com", expires_after_s=60)
    assert prepared.letter is not None, prepared.refusal
    assert prepared.message_id is not None
    content = rendering.render(prepared.letter, identity=prepared.message_id, at=command.accepted_at)
    return Written(mail, prepared.letter, content)
