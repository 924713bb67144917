"""Written mails are read alike by a parser that shares no code with the writer, and have clean octets."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import fast_mail_parser
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.parsed_addresses import ParsedAddress
from emailer.mails.letters import Letter
from emailer.writing import rendering
from support.world_mails import Written, mails

AT = datetime(2026, 11, 26, tzinfo=UTC)


def squeezed(text: str) -> str:
    """Return `text` without white space, which readers treat differently at folds."""
    return re.sub(r"\s+", "", text)


def check_octets(content: bytes) -> None:
    assert content.endswith(b"\r\n")
    lines = content.split(b"\r\n")
    assert max(map(len, lines)) <= 998
    assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines)
    head = content.partition(b"\r\n\r\n")[0]
    assert all(line.strip() for line in head.split(b"\r\n"))
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n") if not line.startswith(b" ")]
    assert len(names) == len(set(names))


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(mails(ascii_addresses=True))
def test_another_parser_reads_the_same_mail(written: Written) -> None:
    check_octets(written.content)
    read = fast_mail_parser.parse_email(written.content)
    assert squeezed(read.subject) == squeezed(written.letter.subject)
    for shown, meant in ((read.to, written.letter.to), (read.cc, written.letter.cc)):
        assert [person.address for person in shown] == [person.address for person in meant]
        assert [squeezed(person.display_name or "") for person in shown] == [
            squeezed(one.name) for one in meant
        ]
    assert read.headers["Message-ID"] == ["<00000000-0000-0000-0000-000000000007@" + domain(written) + ">"]
    assert b"List-Unsubscribe: <https://example.com/=?u?q=1>\r\n" in written.content
    texts = [part.replace("\r\n", "\n").strip() for part in (*read.text_plain, *read.text_html)]
    assert squeezed(written.letter.html or "") in map(squeezed, texts)
    shown_files = sorted(
        (squeezed(file.filename), file.mimetype) for file in read.attachments if file.filename
    )
    files = written.letter.files
    assert shown_files == sorted((squeezed(file.filename), file.content_type.split(";")[0]) for file in files)
    binary = [file.content for file in read.attachments if file.mimetype == "application/pdf"]
    assert set(binary) <= {file.content for file in files}


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(mails())
def test_a_mail_to_addresses_in_any_script_is_clean_and_complete(written: Written) -> None:
    check_octets(written.content)
    read = fast_mail_parser.parse_email(written.content)
    for shown, meant in ((read.to, written.letter.to), (read.cc, written.letter.cc)):
        assert [person.address for person in shown] == [person.address for person in meant]


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(mails(ascii_addresses=True))
def test_a_mail_to_ascii_addresses_has_seven_bits_and_is_written_alike_each_time(written: Written) -> None:
    assert written.content.isascii()
    identity = f"<00000000-0000-0000-0000-000000000007@{domain(written)}>"
    again = rendering.render(written.letter, identity=identity, at=datetime(2026, 11, 26, tzinfo=UTC))
    assert again == written.content


def domain(written: Written) -> str:
    return written.letter.sender.domain


plain = st.text(st.characters(min_codepoint=9, max_codepoint=126), max_size=300)


@given(plain | st.sampled_from(("", "\n", "a", "a\r\nb\rc\n\n", "x" * 78, "x" * 79, "\x0b\x0c\x1d.", "ü")))
def test_a_plain_mail_is_written_as_the_library_would(text: str) -> None:
    reader = ParsedAddress("", "reader@example.com")
    sender = ParsedAddress("A", "a@example.com")
    letter = Letter(sender, "Hello", (reader,), headers=(("X-A", "b"),), text=text)
    written = rendering.render(letter, identity="<1@example.com>", at=AT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "plain_lines", lambda _: None)
        assert rendering.render(letter, identity="<1@example.com>", at=AT) == written
