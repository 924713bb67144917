"""What must not be said: secrets taken out of texts, and errors told without the values they quote."""

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

REDACTED = "[redacted]"

_DEEPEST = 6
_MOST_WORDS = 20
_MOST_CAUSES = 8
# What is shorter is found inside words that mean nothing.
_SHORTEST = 6

_NAME = re.compile(r"(password|secret|token|authorization|pepper|api[_-]?key|dsn|cookie)", re.IGNORECASE)
_VALUE = re.compile(
    r"""
    (tw_live_[0-9a-f]+_)[A-Za-z0-9_-]+                                       # an API key
    | (://[^:/@\s]*:)[^@\s]+(?=@)                                            # a password in an address
    | ((?i:authorization)['"]?\s*[:=,]\s*b?['"]?(?:[A-Za-z]+\s+)?)[^\s'",]+    # a header
    | ((?i:password|secret|pepper|token|api[_-]?key)['"]?\s*[:=]\s*b?['"]?)[^\s'",;&]+
    """,
    re.VERBOSE,
)
# Without any of these there is nothing in a text that `_VALUE` finds; most texts are short and plain.
_MARK = re.compile(r"[:='\"]|tw_live_")
# Classes of PostgreSQL's errors whose words quote rows and arguments: data, integrity, raised by a trigger.
_QUOTING = ("22", "23", "P0")
_ABOUT = ("table_name", "column_name", "constraint_name")


class Known:
    """The secrets that this process was started with."""

    pattern: re.Pattern[str] | None = None
    values: frozenset[str] = frozenset()


def remember(secrets: Iterable[str]) -> None:
    """Take `secrets` out of all texts from now on, in the forms in which they go over wires."""
    found = {secret for secret in secrets if len(secret) >= _SHORTEST}
    Known.values |= {form for secret in found for form in _forms(secret)}
    longest_first = sorted(Known.values, key=len, reverse=True)
    Known.pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def text(words: str) -> str:
    """`words` without secrets."""
    if Known.pattern is not None:
        words = Known.pattern.sub(REDACTED, words)
    return _VALUE.sub(_without_value, words) if _MARK.search(words) else words


def value(found: object, *, deepest: int = _DEEPEST) -> object:
    """`found` without secrets, as plain data; what is nested deeper than `deepest` is left out."""
    if found is None or isinstance(found, (bool, int, float)):
        return found
    if isinstance(found, str):
        return text(found)
    if isinstance(found, (bytes, bytearray, memoryview)):
        return text(bytes(found).decode("utf-8", "replace"))
    if isinstance(found, (Mapping, list, tuple, set, frozenset)):
        return _nested(found, deepest - 1)
    if isinstance(found, BaseException):
        return text(safe_message(found))
    return text(str(found))


def named(name: object, found: object, *, deepest: int = _DEEPEST) -> object:
    """`found` without secrets; all of it is one when its `name` says so."""
    if found is not None and _is_secret(str(name)):
        return REDACTED
    return value(found, deepest=deepest)


def safe_message(error: BaseException) -> str:
    """`error` in one line, fit for logs, spans and the record of a message.

    What a database or a validation says quotes rows and input, which may be somebody's letter: of those
    only the kind is told, and where it happened.
    """
    name = type(error).__name__
    if isinstance(error, asyncpg.PostgresError) and (error.sqlstate or "").startswith(_QUOTING):
        about = [f"{word[:-5]} {found}" for word in _ABOUT if (found := getattr(error, word, None))]
        return ", ".join([f"{name} (SQLSTATE {error.sqlstate})", *about])
    words = misfit(error) if isinstance(error, ValidationError) else text(str(error))
    return f"{name}: {words}" if words else name


def misfit(error: ValidationError) -> str:
    """What does not fit, and where, without the input."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [_problem(problem["loc"], problem["msg"]) for problem in problems[:_MOST_WORDS]]
    return f"{error.error_count()} misfits in {error.title}: " + "; ".join(shown)


def trace_back(error: BaseException) -> str:
    """The traceback of `error` and of what led to it, the first first; each error as `told`."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in chain and len(chain) < _MOST_CAUSES:
        chain.append(following)
        following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
    return "\nwhich led to\n".join(_frames(one) for one in reversed(chain))


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return _NAME.search(name) is not None


def _frames(error: BaseException) -> str:
    lines = "".join(traceback.format_tb(error.__traceback__))
    found = f"Traceback (most recent call last):\n{lines}{safe_message(error)}"
    if isinstance(error, BaseExceptionGroup):
        found += "".join(f"\nof which\n{trace_back(part)}" for part in error.exceptions[:_MOST_CAUSES])
    return found


def _problem(location: tuple[int | str, ...], message: str) -> str:
    return f"{'.'.join(map(str, location))}: {message}" if location else message


def _nested(found: Any, deepest: int) -> object:
    if deepest < 0:
        return "…"
    if isinstance(found, Mapping):
        return {text(str(name)): named(name, part, deepest=deepest) for name, part in found.items()}
    if len(found) == 2 and isinstance(found, (tuple, list)) and isinstance(found[0], (str, bytes)):
        # A header, as most libraries keep it.
        return [value(found[0]), named(value(found[0]), found[1], deepest=deepest)]
    return [value(part, deepest=deepest) for part in found]


def _forms(secret: str) -> set[str]:
    encoded = base64.b64encode(secret.encode()).decode()
    return {secret, quote(secret), quote(secret, safe=""), quote_plus(secret), encoded}


def _without_value(match: re.Match[str]) -> str:
    return f"{next(part for part in match.groups() if part)}{REDACTED}"
