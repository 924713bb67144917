"""The text part of a mail that came with HTML only.

This is a scanner of our own, because every parser that was tried takes quadratic time for some inputs:
`html.parser` for `<!--`, lexbor for nested `<div>` and for many attributes. Here every character belongs to
one token, and is read a constant number of times.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

# The text part is for mail programs that cannot show HTML; it is cut off at this length.
MOST_CHARACTERS = 256 * 1024
MOST_TOKENS = 100_000
# A document up to this length is converted in a few milliseconds at most, whatever it contains.
LIGHT_CHARACTERS = 8 * 1024

# A head is none of them: its end may be left out, and what may be in it is unseen by itself.
_UNSEEN = frozenset(("script", "style", "title", "template"))
# Nothing inside these is markup, up to the end tag.
_RAW = frozenset(("script", "style", "title", "textarea", "xmp", "iframe", "noembed", "noframes"))
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_PARAGRAPHS = frozenset((*_HEADINGS, "blockquote", "ol", "p", "pre", "table", "ul"))
_LINES = frozenset(
    (
        *("address", "article", "div", "dd", "dl", "dt", "fieldset", "footer", "form", "header", "hr", "li"),
        *("main", "nav", "section", "tr"),
    )
)
_LINKS = ("http://", "https://", "mailto:")
_MAILTO = re.compile("^mailto:", re.IGNORECASE)

# All quantifiers are possessive, so that no match backtracks.
_TEXT = re.compile(r"[^<]++")
_NAME = re.compile(r"</?+([a-zA-Z][^\s/>]*+)")
_REST_OF_TAG = re.compile(r"""(?:[^>=]++|=\s*+(?:"[^"]*+"|'[^']*+')?+)*+>""")
_ATTRIBUTE = re.compile(r"""([^\s=>/]++)\s*+(?:=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>]*+)))?+""")
_COMMENT_END = re.compile(r"--!?>")
_RAW_END = {name: re.compile(rf"(?=</{name}[\s/>])", re.IGNORECASE) for name in _RAW}
_BLANKS = " \t\r\n\f"
_SPACE = re.compile(rf"[{_BLANKS}]++")
_LINE_END = re.compile(r"\r\n|\r|\n")
# Python refuses to parse integers of thousands of digits, and none of these is a character.
_LONG_REFERENCE = re.compile(r"&#(?:[0-9]{8,}|[xX][0-9a-fA-F]{7,});?")


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of HTML from `start` to `end`; `name` is the tag's name in lower case."""

    kind: Literal["text", "start", "end", "raw", "comment"]
    start: int
    end: int
    name: str = ""


def from_html(document: str) -> str:
    """Return the visible text of `document`: paragraphs, list items with a dash, links with their address."""
    reader = _Reader(document)
    for token in islice(tokens(document), MOST_TOKENS):
        reader.read(token)
        if reader.length > MOST_CHARACTERS:
            break
    return reader.text()


def tokens(document: str) -> Iterator[Token]:
    """Split `document` into tokens without gaps. An unclosed token extends to the end, as in browsers."""
    at, raw = 0, ""
    while at < len(document):
        if raw:
            end = _RAW_END[raw].search(document, at)
            token = Token("raw", at, end.start() if end else len(document), raw)
        else:
            token = _token(document, at)
        raw = token.name if token.kind == "start" and token.name in _RAW else ""
        yield token
        at = token.end


def _token(document: str, at: int) -> Token:
    if text := _TEXT.match(document, at):
        return Token("text", at, text.end())
    if name := _NAME.match(document, at):
        rest = _REST_OF_TAG.match(document, name.end())
        kind: Literal["start", "end"] = "end" if document[at + 1] == "/" else "start"
        return Token(kind, at, rest.end() if rest else len(document), name[1].lower())
    if document.startswith("<!--", at):
        closed = _COMMENT_END.search(document, at + 2)
        return Token("comment", at, closed.end() if closed else len(document))
    if document.startswith(("<!", "<?", "</"), at):
        end = document.find(">", at)
        return Token("comment", at, end + 1 if end >= 0 else len(document))
    return Token("text", at, at + 1)


class _Reader:
    """Collects the text of tokens, with white space and line breaks as a browser shows them."""

    def __init__(self, document: str) -> None:
        self._document = document
        self._parts: list[str] = []
        self._breaks = 0
        self._space = False
        self._unseen = 0
        self._preformatted = 0
        self._link = ""
        self._link_start = 0
        self.length = 0

    def text(self) -> str:
        self._close_link()
        return "".join(self._parts)[:MOST_CHARACTERS] + "\n"

    def read(self, token: Token) -> None:
        if token.kind == "start":
            self._open(token)
        elif token.kind == "end":
            if token.name in _UNSEEN:
                self._unseen = max(0, self._unseen - 1)
            elif token.name == "a":
                self._close_link()
            elif token.name == "pre":
                self._preformatted = max(0, self._preformatted - 1)
            self._break(token.name)
        elif token.kind == "text" or (token.kind == "raw" and token.name == "textarea"):
            self._show(_unescaped(self._document[token.start : token.end]))

    def _open(self, token: Token) -> None:
        name = token.name
        self._break(name)
        if name in _UNSEEN:
            self._unseen += 1
        elif name == "pre":
            self._preformatted += 1
        elif name == "br":
            self._breaks += 1
        elif name in ("td", "th"):
            self._space = True
        elif name == "li":
            self._show("- ")
        elif name == "img":
            self._show(self._attribute(token, "alt"))
        elif name == "a":
            self._close_link()
            href = self._attribute(token, "href").strip(_BLANKS)
            self._link = href if href[:8].lower().startswith(_LINKS) else ""
            self._link_start = len(self._parts)

    def _break(self, name: str) -> None:
        if name in _PARAGRAPHS:
            self._breaks = 2
        elif name in _LINES:
            self._breaks = max(self._breaks, 1)

    def _close_link(self) -> None:
        address, self._link = _MAILTO.sub("", self._link), ""
        # Links are not nested, so each part is joined only once.
        if address and address not in "".join(self._parts[self._link_start :]):
            self._space = True
            self._show(f"({address})")

    def _show(self, text: str) -> None:
        if self._unseen:
            return
        lines = _LINE_END.split(text) if self._preformatted else (_SPACE.sub(" ", text),)
        for number, line in enumerate(lines):
            if number:
                self._breaks += 1
            self._add(line)

    def _add(self, line: str) -> None:
        words = line.strip(_BLANKS)
        begins_line = self._breaks or not self._parts
        if words and self._preformatted and begins_line:
            # Its indentation is part of what is shown.
            words = line.rstrip(_BLANKS)
        self._space = self._space or line[:1] in _BLANKS
        if not words:
            return
        if self._parts and self._breaks:
            self._parts.append("\n" * min(self._breaks, 2))
        elif self._parts and self._space:
            self._parts.append(" ")
        self._parts.append(words)
        self.length += len(words)
        self._breaks, self._space = 0, line[-1] in _BLANKS

    def _attribute(self, token: Token, wanted: str) -> str:
        inside = self._document[token.start + 1 + len(token.name) : token.end - 1]
        for found in _ATTRIBUTE.finditer(inside):
            if found[1].lower() == wanted:
                return _unescaped(found[2] or found[3] or found[4] or "")
        return ""


def _unescaped(markup: str) -> str:
    return html.unescape(_LONG_REFERENCE.sub("\ufffd", markup))
