"""E-mail addresses: one parser for every interface, so that all of them accept the same addresses.

Only the syntax is checked; no name is looked up in DNS. Domains reserved for tests and private networks
(`.test`, `.example`, `.local`, `.internal`) are addresses like any other, because a relay may serve them.
`.arpa`, `.invalid`, `.localhost` and `.onion`, which no relay serves, are refused unless a setting says
otherwise (`REFUSED_MAIL_DOMAINS`), and so are domains without a dot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Annotated

import email_validator
from email_validator.rfc_constants import CASE_INSENSITIVE_MAILBOX_NAMES
from pydantic import AfterValidator, Field

from contracts.mail_headers import one_line
from contracts.parsed_addresses import ParsedAddress

# Enough for the longest name with every character escaped, and the longest address (254 octets).
MOST_CHARACTERS = 1000
# Quoted, with every character escaped, and beside the longest address, it still fits a line of 998 octets.
MOST_NAME_OCTETS = 320

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*+)"')
_ESCAPED = re.compile(r"\\(.)")

# An address whose local part is ASCII, and needs no further check.
_PLAIN = re.compile(
    r"(?P<local>(?=.{1,64}@)[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*+)@"
    r"(?P<domain>[A-Za-z0-9.\x80-\U0010ffff-]{1,180})"
)
# Beside such a local part, a domain of this length in each of its forms is within the limit of 254 octets.
_SHORT_DOMAIN = 180
# Letters, digits and single hyphens in labels that are divided by dots, with a letter at the end.
_HOSTNAME = re.compile(r"(?!.*--)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.(?!\Z)|\Z))*+(?<=[a-z])")
# The most domains beyond ASCII that one request may name: to check one takes up to a millisecond.
MOST_FOREIGN_DOMAINS = 500

# No relay serves these.
REFUSED_DOMAINS = ("arpa", "invalid", "localhost", "onion")


def refuse_domains(names: Iterable[str]) -> None:
    """Refuse addresses in and below these domains from now on; called once, when a process starts."""
    # The library documents this list as its setting.
    email_validator.SPECIAL_USE_DOMAIN_NAMES[:] = [name.strip().lower() for name in names if name.strip()]
    parse.cache_clear()
    _domain.cache_clear()


@lru_cache(maxsize=4096)
def parse(text: str) -> ParsedAddress:
    """Parse `Name <address>` or a bare address. Raise `ValueError` with the reason.

    The name may be written without the quotes that RFC 5322 requires around dots, commas and non-ASCII
    letters; a quoted name may contain anything. IDNA 2008 turns the domain into ASCII.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"must have at most {MOST_CHARACTERS} characters")
    one_line(text)
    name, address = _divided(text.strip())
    if len(name.encode()) > MOST_NAME_OCTETS:
        raise ValueError(f"must have a name of at most {MOST_NAME_OCTETS} octets in UTF-8")
    parts = _PLAIN.fullmatch(address)
    if parts:
        # Many addresses share a domain, and validating the domain is nearly all the work.
        domain, refusal = _domain(parts["domain"])
        if refusal:
            raise ValueError(refusal)
        if domain:
            local = parts["local"]
            is_role = local.lower() in CASE_INSENSITIVE_MAILBOX_NAMES
            return ParsedAddress(name, f"{local.lower() if is_role else local}@{domain}")
    try:
        found = email_validator.validate_email(address, check_deliverability=False)
    except email_validator.EmailNotValidError as error:
        raise ValueError(_refusal(error)) from None
    # A domain has one name, whatever the local part is: its limits, owner and suppressions go by it.
    return ParsedAddress(name, f"{found.ascii_local_part or found.local_part}@{found.ascii_domain}")


def _divided(text: str) -> tuple[str, str]:
    """Return the name, if any, and the address of `Name <address>` or of a bare address."""
    before, begin, rest = text.rpartition("<")
    address, end, after = rest.partition(">")
    if not begin or not end or after:
        return "", text
    name = before.strip()
    if quoted := _QUOTED.fullmatch(name):
        return _ESCAPED.sub(r"\1", quoted[1]), address
    if "<" in name or ">" in name:
        return "", text
    if "@" in name and ("," in name or ";" in name):
        raise ValueError("must be one address; pass several addresses as separate elements of the list")
    return name, address


@lru_cache(maxsize=4096)
def _domain(name: str) -> tuple[str, str]:
    """Return a domain in ASCII, and why it is refused; nothing if a long address may be refused for it."""
    lower = name.lower()
    if _HOSTNAME.fullmatch(lower) and "." in lower:
        is_refused = lower.endswith(tuple(f".{end}" for end in email_validator.SPECIAL_USE_DOMAIN_NAMES))
        if not is_refused and lower not in email_validator.SPECIAL_USE_DOMAIN_NAMES:
            return lower, ""
    try:
        found = email_validator.validate_email(f"a@{name}", check_deliverability=False)
    except email_validator.EmailNotValidError as error:
        return "", _refusal(error)
    longest = max(len(form.encode()) for form in (name, found.domain, found.ascii_domain or ""))
    return (found.ascii_domain or "", "") if longest <= _SHORT_DOMAIN else ("", "")


def _refusal(error: email_validator.EmailNotValidError) -> str:
    return f"must be an e-mail address: {error}"


def foreign_domains(texts: Iterable[object]) -> set[str]:
    """Return the domains beyond ASCII, also in Punycode, of those texts that are addresses.

    One with a local part beyond ASCII is checked by itself, so the whole address stands for its domain.
    """
    found = set()
    for text in texts:
        address = text.rpartition("<")[2].rstrip("> ") if isinstance(text, str) else ""
        domain = address.rpartition("@")[2]
        if not domain.isascii() or ".xn--" in f".{domain.lower()}":
            found.add(domain if _PLAIN.fullmatch(address) else address)
    return found


def named_address(text: str) -> str:
    """Return `text` unchanged, if it is an address with or without a name."""
    parse(text)
    return text


def bare_address(text: str) -> str:
    """Return `text` if it is an address without a name, and without white space around it."""
    if "<" in text or text != text.strip():
        raise ValueError("must be an e-mail address without a name")
    return named_address(text)


Address = Annotated[str, Field(max_length=MOST_CHARACTERS), AfterValidator(named_address)]
BareAddress = Annotated[
    str,
    Field(max_length=MOST_CHARACTERS, json_schema_extra={"format": "email"}),
    AfterValidator(bare_address),
]

refuse_domains(REFUSED_DOMAINS)
