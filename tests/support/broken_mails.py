"""Mails that are malformed in every common way; a reader must show each of them."""

from __future__ import annotations

_LEVEL = b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n'
_NESTED = b"".join(_LEVEL % (level, level) for level in range(2000))
_MULTIPART = b"Content-Type: multipart/mixed; boundary=x"


def _headed(*lines: bytes) -> bytes:
    return b"\r\n".join((b"From: a@example.com", *lines, b"", b"body", b""))


BROKEN_MAILS: dict[str, bytes] = {
    "nothing": b"",
    "only a line end": b"\r\n",
    "no headers": b"just text",
    "two odd bytes": b"\xff\xfe",
    "every byte": bytes(range(256)),
    "zeros": bytes(1000),
    "bare carriage returns": b"From: a@example.com\rTo: b@example.com\r\rbody",
    "a header without a name": b": value\r\n\r\nbody",
    "a continuation first": b" continued\r\nSubject: x\r\n\r\nbody",
    "utf-8 in From": _headed("From: Jürgen <jürgen@exämple.com>".encode()),
    "utf-8 in To": _headed("To: böb@exämple.com".encode()),
    "latin-1 in To": _headed("To: böb <b@example.com>".encode("latin-1")),
    "latin-1 in Cc": _headed("Cc: ü".encode("latin-1")),
    "utf-8 in Reply-To": _headed("Reply-To: ü".encode()),
    "half of a utf-8 character": _headed(b"Subject: a\xc3"),
    "a quote that is not closed": _headed(b'To: "'),
    "a comment and a colon": _headed(b"To: (c):"),
    "comments without end": _headed(b"To: " + b"(" * 10_000),
    "a group without end": _headed(b"To: friends: a@example.com, b@"),
    "angles without end": _headed(b"To: " + b"<" * 5000),
    "only commas": _headed(b"To: ,,,,"),
    "thousands of addresses": _headed(b"To: " + b"a@example.com, " * 20_000),
    "an empty message id": _headed(b"Message-ID: <>"),
    "a message id of brackets": _headed(b"Message-ID: <<<>>>@"),
    "a type with a bare parameter": _headed(b"Content-Type: text/plain; name*"),
    "a type with numbered parameters": _headed(
        b"Content-Type: text/plain; name*1*=a; name*0*=utf-8''b; name*x=1"
    ),
    "a type that is none": _headed(b"Content-Type: ;;;=/"),
    "a type with a line end": _headed(b"Content-Type: a/b\x0bc"),
    "a type beyond latin-1": _headed("Content-Type: téxt/плаин".encode()),
    "a disposition with a bare parameter": _headed(b"Content-Disposition: attachment; filename*"),
    "a disposition of an unknown charset": _headed(b"Content-Disposition: attachment; filename*=nope'x'%ff"),
    "a disposition of quotes": _headed(b"Content-Disposition: attachment; filename*='''''"),
    "a transfer encoding that is none": _headed(b"Content-Transfer-Encoding: quantum"),
    "base64 that is none": _headed(b"Content-Transfer-Encoding: base64", b"", b"=!\xff"),
    "uuencode without end": _headed(b"Content-Transfer-Encoding: x-uuencode", b"", b"begin 666 a", b"M"),
    "a date that is none": _headed(b"Date: yesterday"),
    "a date beyond all calendars": _headed(b"Date: Mon, 99 Foo 99999 99:99:99 +9999"),
    "an encoded word without end": _headed(b"Subject: =?utf-8?q?a"),
    "an encoded word that is none": _headed(b"Subject: =?utf-8?b?=?= =?x?q?=zz?="),
    "an encoded word of surrogates": _headed(b"Subject: =?utf-16-le?b?ANg=?= =?unicode_escape?q?=5Cud800?="),
    "ten thousand encoded words": _headed(b"Subject: " + b"=?utf-8?q?a?= " * 10_000),
    "a header of a megabyte": _headed(b"Subject: " + b"x" * 1_000_000),
    "ten thousand headers": b"X: y\r\n" * 10_000 + b"\r\nbody",
    "two thousand nested parts": _NESTED,
    "parts without a boundary": _headed(b"Content-Type: multipart/mixed"),
    "an empty boundary": _headed(b'Content-Type: multipart/mixed; boundary=""', b"", b"--", b"--"),
    "a boundary that never comes": _headed(_MULTIPART),
    "one boundary at two levels": _headed(
        _MULTIPART, b"", b"--x", _MULTIPART, b"", b"--x", b"", b"a", b"--x--"
    ),
    "thousands of parts": _headed(_MULTIPART, b"", b"--x\r\n\r\na\r\n" * 2000),
    "an attached mail that is broken": _headed(b"Content-Type: message/rfc822", b"", b'To: "\r\n\xff'),
    "a delivery report that is none": _headed(
        b"Content-Type: message/delivery-status", b"", b"\xff: \xff", b"", b":"
    ),
    "an external body": _headed(b"Content-Type: message/external-body; access-type=x"),
}
for _charset in (
    *(
        "undefined",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        "utf-7",
        "utf-16",
        "utf-32",
        "nope",
    ),
    *(
        "hex",
        "rot13",
        "zlib",
        "base64",
        "mbcs",
        "",
        " ",
        "a\0b",
        "ü",
        "utf-8-sig",
        "cp1252",
        "hz",
        "x" * 1000,
    ),
):
    BROKEN_MAILS[f"the charset {_charset[:20]!r}"] = (
        f"Subject: =?{_charset}?q?=ff=80a?=\r\nContent-Type: text/plain; charset={_charset}\r\n\r\n".encode()
        + b"\xff\x80a\\ud800 xn--a\r\n"
    )
