"""Redaction: texts without secrets, and errors without the values that they quote. Nothing here raises."""

from __future__ import annotations

import base64
import re
import traceback
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

import asyncpg
from pydantic import ValidationError

from chassis import plain, validation

REDACTED = "[redacted]"

_DEEPEST = 6
_MOST_PARTS = 1_000
_MOST_PROBLEMS = 20
_MOST_FRAMES = 30
_MOST_CAUSES = 8
# Shorter secrets would be found inside ordinary words.
_SHORTEST = 6

_NAME = re.compile(r"(password|secret|token|authorization|pepper|api[_-]?key|dsn|cookie)", re.IGNORECASE)
_VALUE = re.compile(
    r"""
    (tw_live_[0-9a-f]+_)[A-Za-z0-9_-]+                                       # an API key
    | (tw_(?:rt|login)_)[A-Za-z0-9_.-]+                                      # a token of ours
    | (://[^:/@\s]*:)[^@\s]{1,256}+(?=@)                                     # a password in an address
    | ((?i:authorization)['"]?\s*[:=,]\s*b?['"]?(?:[A-Za-z]+\s+)?)[^\s'",]+    # a header
    | ((?i:password|secret|pepper|token|api[_-]?key)['"]?\s*[:=]\s*b?['"]?)[^\s'",;&]+
    """,
    re.VERBOSE,
)
_MARK = re.compile(r"[:='\"]")
# Classes of PostgreSQL's errors with messages that quote rows and arguments: data, integrity, triggers.
_QUOTING = ("22", "23", "P0")
_ABOUT = ("table_name", "column_name", "constraint_name")
# Shorter than the length at which `plain.text` cuts.
_LONGEST_HARMLESS = 1_000
# Types that can neither hold a secret nor fail to be written.
_SAFE = (bool, float)
_EXACT = 2**63


class KnownSecrets:
    """The secrets that this process was started with."""

    pattern: re.Pattern[str] | None = None
    values: frozenset[str] = frozenset()


def remember(secrets: Iterable[str]) -> None:
    """Redact `secrets` from all texts from now on, also in their encoded forms."""
    found = {secret for secret in secrets if len(secret) >= _SHORTEST}
    for secret in found:
        encoded = base64.b64encode(secret.encode()).decode()
        KnownSecrets.values |= {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), encoded}
    longest_first = sorted(KnownSecrets.values, key=len, reverse=True)
    KnownSecrets.pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def text(words: str) -> str:
    """Return `words` without secrets."""
    if KnownSecrets.pattern is not None:
        words = KnownSecrets.pattern.sub(REDACTED, words)
    if _has_no_mark(words):
        return words
    return _VALUE.sub(lambda match: f"{match[match.lastindex or 0]}{REDACTED}", words)


def value(found: object, *, deepest: int = _DEEPEST) -> object:
    """Return `found` without secrets, as plain data; parts deeper than `deepest` levels are left out."""
    if found is None or type(found) in _SAFE or (type(found) is int and abs(found) < _EXACT):
        return found
    if type(found) is str:
        return text(plain.text(found))
    copied = plain.data(
        found,
        deepest=deepest,
        most_parts=_MOST_PARTS,
        words=lambda part: safe_message(part) if isinstance(part, BaseException) else plain.text(part),
    )
    return _redacted(copied)


def named(name: object, found: object, *, deepest: int = _DEEPEST) -> object:
    """Return `found` without secrets, or `REDACTED` when its `name` says that all of it is secret."""
    if found is not None and _is_secret(name if type(name) is str else plain.text(name)):
        return REDACTED
    return value(found, deepest=deepest)


def is_harmless(found: Mapping[str, object]) -> bool:
    """Return whether `found` certainly needs no redaction and can be logged as it is; False may be wrong.

    All texts are searched together: that takes a fraction of the time of searching each.
    """
    texts: list[str] = []
    for name, part in found.items():
        if _is_secret(name) or not name.isidentifier():
            return False
        if type(part) is str:
            texts.append(part)
        elif not (part is None or type(part) in _SAFE or (type(part) is int and abs(part) < _EXACT)):
            return False
    joined = " ".join(texts)
    return (
        len(joined) <= _LONGEST_HARMLESS
        and "\0" not in joined
        and _has_no_mark(joined)
        and (KnownSecrets.pattern is None or not KnownSecrets.pattern.search(joined))
    )


def safe_message(error: BaseException) -> str:
    """Return `error` as one text for logs, spans, answers and tables, whatever the error is.

    The text of a database or validation error quotes rows and input, which may be private: only the kind and
    the place of such an error are returned.
    """
    try:
        name = type(error).__name__
        if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(_QUOTING):
            about = [f"{word[:-5]} {found}" for word in _ABOUT if (found := getattr(error, word, None))]
            words = ", ".join([f"{name} (SQLSTATE {error.sqlstate})", *about])
        elif isinstance(error, ValidationError):
            shown = "; ".join(map(validation.placed, validation.errors_in(error)[:_MOST_PROBLEMS]))
            words = f"{name}: {error.error_count()} problems in {error.title}: {shown}"
        else:
            words = f"{name}: {found}" if (found := plain.text(error)) else name
        return text(plain.text(words))
    except BaseException as failure:  # the error's own code has failed: its report must not
        return f"{type(error).__name__} without a text: {type(failure).__name__}"


def trace_back(error: BaseException) -> str:
    """Return the traceback of `error` and of its causes, the first cause first, each by `safe_message`."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(chain) < _MOST_CAUSES and all(following is not one for one in chain):
        chain.append(following)
        try:
            following = following.__cause__ or (
                None if following.__suppress_context__ else following.__context__
            )
        except BaseException:  # the error's own code has failed, as in `safe_message`
            break
    return "\nwhich led to\n".join(_frames(one) for one in reversed(chain))


def _has_no_mark(words: str) -> bool:
    """Return whether `words` certainly has nothing that `_VALUE` matches; most texts are short and plain."""
    # One expression for all of this, partly in any case, would take ten times as long.
    return (
        words.isascii()
        and "tw_" not in words
        and _MARK.search(words) is None
        and "authorization" not in words.lower()
    )


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _NAME.search(name) is not None


def _frames(error: BaseException) -> str:
    frames: list[str] = []
    # Groups may be nested deeper than functions can call each other, and have any number of parts in all.
    following = [error]
    while following and len(frames) <= _MOST_CAUSES:
        one, *following = following
        try:
            lines = plain.text("".join(traceback.format_tb(one.__traceback__)[-_MOST_FRAMES:]))
            if isinstance(one, BaseExceptionGroup):
                following = [*one.exceptions[:_MOST_CAUSES], *following]
        except BaseException as failure:  # a source file that cannot be read, for example
            lines = f"  (no frames: {type(failure).__name__})\n"
        frames.append(f"Traceback (most recent call last):\n{lines}{safe_message(one)}")
    return "\nof which\n".join(frames)


def _redacted(found: Any) -> object:
    if isinstance(found, str):
        return text(found)
    if isinstance(found, dict):
        return {text(name): _redacted_as(name, part) for name, part in found.items()}
    if not isinstance(found, list):
        return found
    if len(found) == 2 and isinstance(found[0], str):
        # A header as a pair, as most libraries hold it.
        return [text(found[0]), _redacted_as(found[0], found[1])]
    return [_redacted(part) for part in found]


def _redacted_as(name: str, found: object) -> object:
    return REDACTED if found is not None and _is_secret(name) else _redacted(found)
