"""Mail addresses and what may stand in a header: pure checks, no look-ups."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from emailer.errors import Refused

# Every separator of str.splitlines(), every other control character, and what UTF-8 cannot carry.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_NAMED = re.compile(r"([^<>]*)<([^<>]*)>")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")
_CONTENT_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,60}", re.IGNORECASE)
# Headers that this service writes itself, or that others on the way do.
_OWN = frozenset(
    (
        *("from", "sender", "reply-to", "to", "cc", "bcc", "subject", "date", "message-id"),
        *("mime-version", "received", "return-path", "dkim-signature"),
    )
)
_OWN_PREFIXES = ("content-", "resent-", "arc-")

# A line of a mail has at most 998 octets, its header's name included.
LONGEST_VALUE = 900
LONGEST_FILENAME = 100


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A display name (may be empty) and an address; `address` is ASCII unless its local part cannot be."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        """What stands after the @."""
        return self.address.rpartition("@")[2]

    @property
    def needs_utf8(self) -> bool:
        """Whether only a relay with SMTPUTF8 can take this address."""
        return not self.address.isascii()


@lru_cache(maxsize=4096)
def parse(text: str) -> Mailbox:
    """`Name <address>` or a bare address. Raises `Refused` with what is wrong.

    The name may be written as people do, without the quotes that RFC 5322 wants around dots and umlauts:
    it is written out correctly later.
    """
    require_safe("address", text)
    named = _NAMED.fullmatch(text.strip())
    name, address = named.groups() if named else ("", text.strip())
    try:
        found = validate_email(address, check_deliverability=False)
    except EmailNotValidError as error:
        raise Refused(f"not an e-mail address: {error}") from error
    # IDNA 2008: the domain travels as ASCII wherever the local part allows it.
    return Mailbox(_unquoted(name.strip()), found.ascii_email or found.normalized)


def is_safe(value: str) -> bool:
    """Whether `value` has no line separator and no control character."""
    return _UNSAFE.search(value) is None


def require_safe(what: str, value: str, *, longest: int = LONGEST_VALUE) -> str:
    """Give `value` back if it may stand in a header; else raise `Refused`."""
    if len(value) > longest:
        raise Refused(f"{what} is longer than {longest} characters")
    if not is_safe(value):
        raise Refused(f"{what} contains a line separator or a control character")
    return value


def require_header(name: str, value: str) -> None:
    """Raise `Refused` unless a sender may add this header."""
    if not _HEADER_NAME.fullmatch(name):
        raise Refused("a header's name is made of printable ASCII without colon")
    if name.lower() in _OWN or name.lower().startswith(_OWN_PREFIXES):
        raise Refused(f"header {name} is written by the service")
    require_safe(f"header {name}", value)


def require_content_type(value: str) -> None:
    """Raise `Refused` unless `value` is `type/subtype` without parameters, and not a multipart."""
    if not _CONTENT_TYPE.fullmatch(value) or value.lower().startswith(("multipart/", "message/")):
        raise Refused("an attachment's content type is not a plain type/subtype")


def _unquoted(name: str) -> str:
    quoted = _QUOTED.fullmatch(name)
    return _ESCAPED.sub(r"\1", quoted[1]) if quoted else name


def without_unsafe(value: str, *, longest: int = LONGEST_VALUE) -> str:
    """`value` fit to be stored and shown: unsafe characters become U+FFFD, the rest is cut."""
    return _UNSAFE.sub("\ufffd", value[:longest])
