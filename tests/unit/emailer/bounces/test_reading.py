"""Any message that comes back is read in a short time, and its report tells the outcome of the mail."""

from __future__ import annotations

import base64
import quopri
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.emails import BounceKind
from emailer.bounces import reading
from emailer.bounces.reading import Bounce
from support.calls import calls_of


def report(*fields: str, extra: str = "") -> bytes:
    """Return a report as Postfix writes it."""
    lines = (
        "From: MAILER-DAEMON@relay.example",
        "To: b+x@bounces.example.com",
        'Content-Type: multipart/report; report-type=delivery-status; boundary="B"',
        "",
        "--B",
        "",
        "I'm sorry to have to inform you that your message could not be delivered.",
        "--B",
        "Content-Type: message/delivery-status",
        "",
        "Reporting-MTA: dns; relay.example",
        "",
        "Final-Recipient: rfc822; ann@example.com",
        *fields,
        extra,
        "--B--",
        "",
    )
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
@pytest.mark.parametrize("type_", ["message/global-delivery-status", "message/delivery-status"])
def test_a_report_about_an_international_address_is_read_however_it_is_encoded(
    type_: str, encoding: str
) -> None:
    usual = report("Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 550 no bücher here")
    before, blocks, end = usual.replace(b"rfc822; ann", "utf-8; böb".encode()).partition(b"Reporting-MTA")
    body = (blocks + end).removesuffix(b"--B--\r\n")
    encoded = {"quoted-printable": quopri.encodestring, "base64": base64.encodebytes}.get(encoding, bytes)
    head = before.replace(b"message/delivery-status", type_.encode()).removesuffix(b"\r\n")
    head += f"Content-Transfer-Encoding: {encoding}\r\n\r\n".encode()
    found = reading.read(head + encoded(body) + b"\r\n--B--\r\n")
    assert (found.kind, found.fault, found.detail[:13]) == ("hard", "gone", "5.1.1 550 no ")


@pytest.mark.parametrize(
    ("fields", "kind", "fault"),
    [
        (("Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 550 5.1.1 unknown"), "hard", "gone"),
        (("Action: FAILED", "Status: 5.0.0", "Diagnostic-Code: smtp; 550 unknown"), "hard", "hard"),
        # Postfix gives its own class where the server gave a better one.
        (("Action: failed", "Status: 5.0.0", "Diagnostic-Code: smtp; 550 5.7.1 spam"), "refused", "refused"),
        (("Action: failed", "Status: 5.7.26"), "refused", "refused"),
        (("Action: failed", "Status: 5.2.2", "Diagnostic-Code: smtp; 552 5.2.2 full"), "soft", "soft"),
        (
            (
                "Action: failed",
                "Status: 5.4.1",
                "Diagnostic-Code: smtp; 550 5.4.1 [a@b.example]: Access denied",
            ),
            "hard",
            "hard",
        ),
        (
            (
                "Action: failed",
                "Status: 5.0.350",
                "Diagnostic-Code: smtp;550 5.0.350 Remote server returned an error -> 550 5.1.1 unknown",
            ),
            "hard",
            "gone",
        ),
        (
            ("Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; 550 5.1.1 <a@b.example> -> unknown"),
            "hard",
            "gone",
        ),
        (("Action: failed", "Status: 5.0.0", "Diagnostic-Code: smtp; 550 mailbox is full"), "soft", "soft"),
        (("Action: failed", "Status: 4.4.7", "Diagnostic-Code: X-Postfix; timed out"), "soft", "soft"),
        (("Action: failed (no such mailbox)", "Status: 5.1.1"), "hard", "gone"),
        # As OpenSMTPD writes it, and as others do.
        (("Action: error", "Status: 5.1.1"), "hard", "gone"),
        (("Action: failure", "Status: 5.2.2"), "soft", "soft"),
        (("Action: failed",), "refused", "refused"),
        (("Action: delayed", "Status: 4.4.1"), "delayed", None),
        (("Action: relayed", "Status: 2.0.0"), "delivered", None),
        (("Action: expanded", "Status: 2.0.0"), "delivered", None),
        (("Action: whatever",), "other", None),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_report_tells_the_outcome_of_the_mail(
    fields: tuple[str, ...], kind: BounceKind, fault: str | None
) -> None:
    found = reading.read(report(*fields))
    assert (found.kind, found.fault) == (kind, fault)


def test_the_words_of_the_server_are_kept_on_one_line() -> None:
    found = reading.read(
        report(
            "Action: failed",
            "Status: 5.1.1",
            "Remote-MTA: dns; mx.example.com",
            "Diagnostic-Code: smtp; 550 5.1.1 <ann@example.com>:\r\n    unknown \x07user",
        )
    )
    assert found.detail == "5.1.1 550 5.1.1 <ann@example.com>: unknown user (mx.example.com)"


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_the_words_of_the_server_are_shown_in_the_letters_of_its_language(charset: str) -> None:
    words = "550 5.1.1 Empfänger unbekannt"
    found = reading.read(
        report("Action: failed", "Status: 5.1.1", "Diagnostic-Code: smtp; " + words).replace(
            words.encode(), words.encode(charset)
        )
    )
    assert found.detail == f"5.1.1 {words}"


def test_a_report_needs_no_recipient_because_the_return_path_names_it() -> None:
    content = report(*FAILED).replace(b"Final-Recipient: rfc822; ann@example.com\r\n", b"")
    assert reading.read(content).kind == "hard"


def test_the_worst_of_several_recipients_counts() -> None:
    extra = "\r\nFinal-Recipient: rfc822; bob@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n"
    assert reading.read(report("Action: delayed", "Status: 4.0.0", extra=extra)).kind == "hard"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (
            b"From: MAILER-DAEMON@mail.example\n\nHi. This is the qmail-send program at mail.example.\n"
            b"I'm afraid I wasn't able to deliver your message to the following addresses.\n\n"
            b"<ann@example.com>:\n550 5.1.1 no such user\n\n--- Below this line is a copy of the message.\n",
            "hard",
        ),
        (
            b"From: postmaster@mail.example\nX-Failed-Recipients: ann@example.com\n\n"
            b"This message was created automatically by mail delivery software.\n"
            b"ann@example.com\n 550 5.7.1 listed on a block list\n",
            "refused",
        ),
        (
            b"Received: from mail by mx.example with local (Exim 4.2.2)\nFrom: postmaster@mx.example\n"
            b"X-Failed-Recipients: ann@example.com\n\n"
            b"  ann@example.com\n    host mx.example: 550 no such user\n\n"
            b"------ This is a copy of your message, including all the headers. ------\n\n"
            b"Received: from a.example by b.example (Postfix 2.2.2) id 4.2.2\n",
            "hard",
        ),
        (
            b"From: MAILER-DAEMON@mail.example\n\nHi. This is the qmail-send program at mail.example.\n\n"
            b"<ann@example.com>:\nRemote host said: 550 rejected as spam\n\n--- Below this line is a copy\n",
            "refused",
        ),
        (
            b"From: postmaster@mail.example\nSubject: Warning: message delayed 24 hours\n\n"
            b"A message that you sent has not yet been delivered to all of its recipients.\n"
            b"  <ann@example.com>\n    host mx.example: 451 4.7.1 greylisted\n\n"
            b"No action is required on your part.\n",
            "delayed",
        ),
        (b"From: ann@example.com\nSubject: On holiday\n\nI am away. Ring 550 5551.\n", "other"),
        (
            b"From: Ann <ann@mailer.example>\nAuto-Submitted: auto-replied\n\nI am away, until Monday.\n"
            b"Please write to my colleagues, bob@example.com, or Eve.\n",
            "other",
        ),
        (b"", "other"),
    ],
    ids=[
        "qmail",
        "Exim",
        "versions of servers",
        "a policy without a status",
        "a warning",
        "an answer of a person",
        "an answer with an address",
        "nothing",
    ],
)
def test_a_bounce_without_a_report_is_recognized_by_its_form(content: bytes, kind: BounceKind) -> None:
    assert reading.read(content).kind == kind


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=2000),
        st.lists(st.binary(max_size=60), max_size=6).map(
            lambda lines: report("Action: failed", "Status: 5.1.1").replace(b"--B--", b"\r\n".join(lines))
        ),
        st.text(max_size=200).map(
            lambda text: (
                report("Action: failed", f"Status: {text}", f"Diagnostic-Code: {text}")
                if text.isprintable()
                else text.encode("utf-8", "replace")
            )
        ),
    )
)
def test_any_message_is_read_without_an_error(content: bytes) -> None:
    found = reading.read(content)
    assert isinstance(found, Bounce)
    assert found.detail == " ".join(found.detail.split())
    assert len(found.detail) <= 1000
    assert "\0" not in found.detail


@pytest.mark.parametrize(
    "content",
    [
        b'Content-Type: multipart/mixed; boundary="a"\n\n--a\n' * 8000,
        b"Content-Type: message/rfc822\n\n" * 9000,
        b"Subject: " + b"(" * 260_000,
        b"A: b\n" * 52_000,
        b"\n" + b"<" * 260_000,
        b"\n" + b"this message was created automatically by mail delivery software rcpt to:" * 3500,
        b"\n" + (b"the following addresses had\n" + b" " * 900 + b"\n") * 280,
        b'Content-Type: multipart/report; boundary="' + b"x" * 260_000,
        report("Action: failed", "Diagnostic-Code: smtp; " + "5.1.1." * 40_000),
        report("\n\n".join(["A:"] * 60_000)),
        b"Content-Type: multipart/report" + b"; a" * 80_000 + b"\r\n\r\nx",
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (depth, depth)
            for depth in range(39)
        )
        + b"x\r\n" * 60_000,
        b"".join(
            b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (depth, depth)
            for depth in range(38)
        )
        + b"Content-Type: message/delivery-status\r\n\r\n"
        + b"x\n" * 60_000,
        b"From: a\nSubject: x\n" + b"\n" * 260_000,
        b"From: a\r\nSubject: x\r\n\r\n" + b"\r" * 250_000,
        b"From: a\r\nSubject: x\r\n\r\n" + b" \r\n" * 80_000,
        b"From: a\r\nSubject: x\r\n\r\n" + b"x\n" * 120_000,
        report("Action: failed", "\n\nA" * 10_000),
        report("Action: failed", "\r\rA" * 10_000),
    ],
    ids=[
        "parts",
        "mails in mails",
        "comment",
        "headers",
        "brackets",
        "long line",
        "blanks",
        "boundary",
        "status",
        "empty blocks",
        "parameters",
        "lines in parts in parts",
        "lines of a report in parts in parts",
        "empty lines",
        "carriage returns",
        "lines of spaces",
        "short lines",
        "blocks",
        "blocks of carriage returns",
    ],
)
def test_reading_a_message_takes_a_bounded_number_of_steps(content: bytes) -> None:
    assert calls_of(lambda: reading.read(content)) < 1_000_000


FAILED = ("Action: failed", "Status: 5.1.1")
QMAIL = b"From: MAILER-DAEMON@mail.example\n\nHi. This is the qmail-send program at mail.example.\n%b\n"
UNKNOWN_USER = (
    b"I'm afraid I wasn't able to deliver your message to the following addresses.\n\n"
    b"<ann@example.com>:\n550 5.1.1 no such user\n\n--- Below this line is a copy of the message.\n"
)


def old_report(before: bytes) -> bytes:
    """Return a bounce of qmail with lines before what it says of the recipient."""
    return QMAIL % before + UNKNOWN_USER


def encoded_report(blocks: int) -> bytes:
    """Return a report in base64 whose last block, after so many others, says that the mail failed."""
    text = "Reporting-MTA: dns; relay.example\n\n" + "Action: delayed\n\n" * (blocks - 1) + "\n".join(FAILED)
    head, _, end = report().decode().partition("\r\nReporting-MTA")
    code = base64.encodebytes(text.encode()).decode().replace("\n", "\r\n")
    assert end
    return f"{head.rstrip()}\r\nContent-Transfer-Encoding: base64\r\n\r\n{code}--B--\r\n".encode()


@pytest.mark.parametrize(
    ("message", "read", "unread"),
    [
        (lambda size: b"X: %b\r\n" % (b"y" * size) + report(*FAILED), 64_000, 66_000),
        (lambda size: report("X: " + "y" * size, *FAILED), 32_000, 33_000),
        (lambda blocks: report(*("Action: delayed", "") * (blocks - 3), *FAILED), 99, 101),
        (encoded_report, 98, 101),
        (lambda parts: report(*FAILED) + b"\r\nboundary=" * (parts - 2), 40, 41),
        (lambda size: report(*FAILED).replace(b"report;", b"report; x=%b;" % (b"y" * size), 1), 4000, 4100),
        (lambda parts: old_report(b"Boundary*0 =\n" * parts), 10, 11),
        (lambda lines: old_report(b"x\n" * lines), 980, 1000),
        (lambda size: old_report((b"y" * 900 + b"\n") * (size // 901)), 64_000, 66_000),
        (lambda size: old_report(b"").replace(b"<ann", b" " * size + b"<ann"), 900, 1000),
    ],
    ids=[
        "bytes before the report",
        "bytes of the report",
        "blocks",
        "encoded blocks",
        "parts",
        "bytes of a content type",
        "parts of an older format",
        "lines of an older format",
        "bytes of an older format",
        "bytes of a line of an older format",
    ],
)
def test_what_is_beyond_a_limit_is_not_read(message: Callable[[int], bytes], read: int, unread: int) -> None:
    assert reading.read(message(read)).kind == "hard"
    assert reading.read(message(unread)).kind != "hard"


def test_only_the_beginning_of_a_long_message_is_read() -> None:
    returned = b"y" * reading.MOST_BYTES + b"\r\nboundary=" * 50
    assert reading.read(report(*FAILED) + returned).kind == "hard"


def test_a_returned_mail_may_speak_of_boundaries() -> None:
    assert reading.read(report(*FAILED) + b"\r\nThe boundary of the land." * 100).kind == "hard"


def test_an_invalid_report_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert reading.read(b"From: <>\r\nSubject: hello\r\n\r\nI am away.\r\n").kind == "other"
    assert caplog.records == []
