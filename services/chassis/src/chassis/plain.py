"""Plain data: any value as text or JSON that logs, databases and the wire accept. Nothing here raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

_MOST_CHARACTERS = 10_000
_MOST_PARTS = 10_000
_DEEPEST = 32
_LEFT_OUT = "…"


def text(found: object, *, most: int = _MOST_CHARACTERS) -> str:
    """Return `str(found)`, cut to `most` characters, without those that UTF-8 or PostgreSQL reject.

    A lone surrogate is written as its escape, NUL as U+FFFD. A value whose `str` fails is named by its type.
    """
    try:
        words = str(found)
        words = words if len(words) <= most else words[:most] + _LEFT_OUT
        return words.encode("utf-8", "backslashreplace").decode().replace("\0", "\ufffd")
    except BaseException as error:  # whatever the value's own code raises, it must not stop the report
        return f"<{type(found).__name__} without a text: {type(error).__name__}>"


def data(
    found: object,
    *,
    deepest: int = _DEEPEST,
    most_parts: int = _MOST_PARTS,
    most_characters: int = _MOST_CHARACTERS,
    words: Callable[[object], str] | None = None,
) -> object:
    """Return `found` as dicts, lists, text, numbers and None, with bounds on depth, parts and lengths.

    `words` turns everything else into text. Integers of more than 64 bits become text, because JSON readers
    would round them.
    """
    return _Copier(most_parts, most_characters, words).copy(found, deepest)


def json(found: object, *, most_characters: int = _MOST_CHARACTERS) -> str:
    """Return `found` as JSON that `orjson` and `jsonb` accept."""
    return orjson.dumps(data(found, most_characters=most_characters)).decode()


class _Copier:
    def __init__(self, parts: int, most_characters: int, words: Callable[[object], str] | None) -> None:
        self._parts = parts
        self._most_characters = most_characters
        self._words = words

    def copy(self, found: object, deepest: int) -> object:
        self._parts -= 1
        try:
            return self._copy(found, deepest)
        except BaseException:  # as in `text`
            return self._text(found)

    def _copy(self, found: Any, deepest: int) -> object:
        if found is None or isinstance(found, bool):
            return found
        if isinstance(found, float):
            return float(found)
        if isinstance(found, int):
            return int(found) if -(2**63) <= found < 2**64 else self._text(found)
        if isinstance(found, (bytes, bytearray, memoryview)):
            return self._text(bytes(found[: self._most_characters]).decode("utf-8", "replace"))
        if not isinstance(found, (Mapping, list, tuple, set, frozenset)):
            return self._text(found if self._words is None or isinstance(found, str) else self._words(found))
        if deepest <= 0:
            return _LEFT_OUT
        if isinstance(found, Mapping):
            copied: dict[str, object] = {}
            for name in found:
                if self._parts <= 0:
                    copied[_LEFT_OUT] = _LEFT_OUT
                    break
                copied[self._text(name)] = self.copy(found[name], deepest - 1)
            return copied
        parts: list[object] = []
        for part in found:
            if self._parts <= 0:
                return [*parts, _LEFT_OUT]
            parts.append(self.copy(part, deepest - 1))
        return parts

    def _text(self, found: object) -> str:
        words = text(found, most=self._most_characters)
        # A long text counts as several parts, so that the bound on parts bounds the whole.
        self._parts -= len(words) // 100
        return words
