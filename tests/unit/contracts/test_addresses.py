"""Addresses are understood as people write them, and every interface gives the same verdict."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import email_validator
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from batch_processor.operations import email_send
from contracts import addresses
from contracts.mail import Mail, MailItem
from contracts.parsed_addresses import ParsedAddress
from gateway.aliases.inputs import MailInput

WRITTEN = {
    "reader@example.com": ParsedAddress("", "reader@example.com"),
    " <reader@example.com> ": ParsedAddress("", "reader@example.com"),
    "A Reader <reader@Example.COM>": ParsedAddress("A Reader", "reader@example.com"),
    "Acme Inc. <a@x.com>": ParsedAddress("Acme Inc.", "a@x.com"),
    "Dr. A. Reader, Esq. <reader@example.com>": ParsedAddress("Dr. A. Reader, Esq.", "reader@example.com"),
    "Jürgen Müller <j@x.com>": ParsedAddress("Jürgen Müller", "j@x.com"),
    "山田 太郎<j@x.com>": ParsedAddress("山田 太郎", "j@x.com"),
    "Jane O'Neil (Sales) <j@x.com>": ParsedAddress("Jane O'Neil (Sales)", "j@x.com"),
    'Bob "The Builder" Smith <b@x.com>': ParsedAddress('Bob "The Builder" Smith', "b@x.com"),
    "bob@x.com <bob@x.com>": ParsedAddress("bob@x.com", "bob@x.com"),
    '"Reader, A." <reader@example.com>': ParsedAddress("Reader, A.", "reader@example.com"),
    '"A <b@c.de>" <a@x.com>': ParsedAddress("A <b@c.de>", "a@x.com"),
    r'"A \"B\" \\ C" <reader@example.com>': ParsedAddress('A "B" \\ C', "reader@example.com"),
    '"=?utf-8?q?Bank?=" <a@x.com>': ParsedAddress("=?utf-8?q?Bank?=", "a@x.com"),
    '"A <a@x.com>': ParsedAddress('"A', "a@x.com"),
    "ann+tag@sub.example.com": ParsedAddress("", "ann+tag@sub.example.com"),
    "reader@exämple.com": ParsedAddress("", "reader@xn--exmple-cua.com"),
    "Jörg <jörg@example.com>": ParsedAddress("Jörg", "jörg@example.com"),
    "jörg@exämple.com": ParsedAddress("", "jörg@xn--exmple-cua.com"),
    "jörg@xn--exmple-cua.com": ParsedAddress("", "jörg@xn--exmple-cua.com"),
    "jo\u0308rg@Example.COM": ParsedAddress("", "jörg@example.com"),
    "ann@shop.test": ParsedAddress("", "ann@shop.test"),
    "ann@office.local": ParsedAddress("", "ann@office.local"),
    "ann@mail.internal": ParsedAddress("", "ann@mail.internal"),
}
WRONG = [
    *("", " ", "nobody", "@example.com", "a@", "a b@example.com", "a@b@example.com", "a@-example.com", "<>"),
    *("ann@example", "ann@test", "ann@localhost", "ann@a.invalid", "ann@a.onion", "ann@[127.0.0.1]"),
    *("a@x.com, b@x.com", "a@x.com; b@x.com", "A <a@x.com>, B <b@x.com>", "a@x.com, B <b@x.com>"),
    *("A <a@x.com> b", "A <<a@x.com>>", "a@x.com (A)", "ann@-x-.com"),
    *("A <a@x.com", "A a@x.com>", "A <", "A <b <a@x.com>", 'A "b <c>" <a@x.com>', "a" + " " * 980 + "a"),
    *('"a"@x.com', f"{'n' * 321} <a@x.com>", f"{'ü' * 161} <a@x.com>", f"a@{'x' * 64}.com", "a" * 1001),
]
SEPARATORS = [
    "\n",
    "\r",
    "\r\n",
    "\v",
    "\f",
    "\x1c",
    "\x1d",
    "\x1e",
    "\x85",
    "\u2028",
    "\u2029",
    "\0",
    "\x7f",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_an_address_is_understood_as_people_write_it(text: str) -> None:
    assert addresses.parse(text) == WRITTEN[text]


@pytest.mark.parametrize("text", WRONG)
def test_a_text_that_is_not_one_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        addresses.parse(text)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("place", ["a@example.com{}", "{}a@example.com", "A{}B <a@x.com>", '"{}" <a@x.com>'])
def test_an_address_is_one_line(separator: str, place: str) -> None:
    with pytest.raises(ValueError, match="one line without control characters"):
        addresses.parse(place.format(separator))


def test_only_a_local_part_beyond_ascii_needs_utf8() -> None:
    assert addresses.parse("jörg@example.com").needs_utf8
    assert not addresses.parse("Jörg <reader@exämple.com>").needs_utf8


def test_the_domain_is_the_part_after_the_at_sign() -> None:
    assert addresses.parse("A <a@exämple.com>").domain == "xn--exmple-cua.com"


LOCALS = st.from_regex(r"[A-Za-z0-9._+!#$%&'*/=?^`{|}~-]{1,70}", fullmatch=True) | st.sampled_from(
    ["Info", "POSTMASTER", "www", "x" * 64, "x" * 65, "a!", "o'neil", "a..b", 'a"b']
)
# Three octets a character when it is decoded.
LONG_LABEL = "xn--" + ("字" * 40).encode("punycode").decode()
LONG_DOMAIN = f"{LONG_LABEL}.{LONG_LABEL}.com"
DOMAINS = (
    st.from_regex(r"[A-Za-z0-9.-]{1,20}\.(com|COM|test|onion|xn--p1ai)", fullmatch=True)
    | st.text("aZ0.-üéßａ。\uff0e字אב\u0661\u0301\u200d⒈", min_size=1, max_size=8).map("{}.com".format)
) | st.sampled_from(
    [LONG_DOMAIN, ".".join(["d" * 60] * 4), "Example.COM", "a-b.example", "localhost", "x..y"]
)


@example("x" * 64, LONG_DOMAIN)
@example("Postmaster", "example.com")
@given(LOCALS, DOMAINS)
def test_the_short_way_for_plain_addresses_decides_as_the_library_does(local: str, domain: str) -> None:
    address, theirs, ours = f"{local}@{domain}", "", ""
    try:
        theirs = email_validator.validate_email(address, check_deliverability=False).ascii_email or ""
    except email_validator.EmailNotValidError as error:
        theirs = f"must be an e-mail address: {error}"
    try:
        ours = addresses.parse(address).address
    except ValueError as error:
        ours = str(error)
    assert ours == theirs


@given(st.lists(st.tuples(LOCALS | st.just("ü"), DOMAINS), min_size=1, max_size=5))
def test_what_is_foreign_in_an_address_is_all_that_is_checked_in_full(pairs: list[tuple[str, str]]) -> None:
    texts = [f"Ü <{local}@{domain}>" for local, domain in pairs]
    foreign = addresses.foreign_domains([*texts, None, 7])
    for local, domain in pairs:
        is_foreign = not domain.isascii() or any(label.startswith("xn--") for label in domain.split("."))
        assert is_foreign == bool({domain, f"{local}@{domain}"} & foreign)


@pytest.mark.parametrize(
    ("domain", "is_foreign"),
    [("my--shop.com", False), ("my.axn--b.com", False), ("XN--9ca.com", True), ("a.xn--9ca.com", True)],
)
def test_a_domain_with_two_hyphens_is_beyond_ascii_in_punycode_alone(domain: str, is_foreign: bool) -> None:
    assert bool(addresses.foreign_domains([f"a@{domain}"])) is is_foreign


def test_addresses_that_share_a_domain_have_it_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []

    def check(address: str, **options: Any) -> email_validator.ValidatedEmail:
        checked.append(address)
        return validate(address, **options)

    validate = email_validator.validate_email
    monkeypatch.setattr(email_validator, "validate_email", check)
    for local in ("a", "b!#$%&'*+-/=?^_`{|}~.c", "Info"):
        for domain in ("shared-älter.example", "shared-öfter..example", "Shared-Never.Example"):
            with suppress(ValueError):
                addresses.parse(f"{local}@{domain}")
    assert checked == ["a@shared-älter.example", "a@shared-öfter..example"]


@given(st.text(max_size=100))
def test_any_text_is_an_address_or_refused_and_never_another_error(text: str) -> None:
    try:
        parsed = addresses.parse(text)
    except ValueError:
        return
    assert addresses.parse(parsed.address).address == parsed.address


@given(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), max_size=80))
def test_any_quoted_name_is_understood(name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    assert addresses.parse(f'"{quoted}" <a@example.com>').name == name


@pytest.mark.parametrize("text", ["A <a@example.com>", "<a@example.com>", "nobody"])
def test_where_an_address_stands_alone_a_name_is_refused(text: str) -> None:
    adapter: TypeAdapter[str] = TypeAdapter(addresses.BareAddress)
    assert adapter.validate_python("a@example.com") == "a@example.com"
    with pytest.raises(ValidationError):
        adapter.validate_python(text)


def is_taken(model: type[BaseModel], values: dict[str, Any]) -> bool:
    try:
        model.model_validate(values)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("text", [*WRITTEN, *WRONG])
def test_every_interface_gives_the_same_verdict_on_an_address(text: str) -> None:
    expected = text in WRITTEN
    assert email_send.OPERATION.payload is MailItem
    for field in ("to", "cc", "bcc", "reply_to"):
        for model in (Mail, MailItem):
            assert is_taken(model, {"to": ["a@b.example"], "text": "", field: [text]}) == expected
    for field in ("from", "reply_to"):
        assert is_taken(Mail, {"to": ["a@b.example"], "text": "", field: text}) == expected
    assert is_taken(MailInput, {"to": text, "body": ""}) == expected
    assert is_taken(MailInput, {"to": [text], "body": ""}) == expected


def test_special_use_domains_are_refused_by_choice() -> None:
    assert addresses.parse("ann@shop.test").domain == "shop.test"
    try:
        addresses.refuse_domains(["test", " Local ", ""])
        for refused in ("ann@shop.test", "ann@mail.local"):
            with pytest.raises(ValueError, match="must be an e-mail address"):
                addresses.parse(refused)
        assert addresses.parse("ann@shop.onion").domain == "shop.onion"
    finally:
        addresses.refuse_domains(addresses.REFUSED_DOMAINS)
    assert addresses.parse("ann@shop.test").domain == "shop.test"
    with pytest.raises(ValueError, match="must be an e-mail address"):
        addresses.parse("ann@shop.onion")
