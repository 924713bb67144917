"""The text part of a mail that came with HTML only."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_UNSEEN = frozenset(("head", "script", "style", "title", "template"))
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_PARAGRAPHS = frozenset((*_HEADINGS, "blockquote", "ol", "p", "pre", "table", "ul"))
_LINES = ("address", "article", "div", "dd", "dl", "dt", "fieldset", "footer", "form", "header", "hr", "li")
_BLOCKS = _PARAGRAPHS | frozenset((*_LINES, "main", "nav", "section", "tr"))
_SPACE = re.compile(r"[ \t\r\n\f]+")
_GAPS = re.compile(r"[ \t]*\n[ \t]*")
_EMPTY_LINES = re.compile(r"\n{3,}")


def from_html(html: str) -> str:
    """What a reader sees of `html`: paragraphs, list items with a dash, links with their address."""
    reader = _Reader()
    reader.feed(html)
    reader.close()
    return reader.text()


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._unseen = 0
        self._links: list[tuple[str, int]] = []

    def text(self) -> str:
        joined = _GAPS.sub("\n", "".join(self._parts))
        return _EMPTY_LINES.sub("\n\n", joined).strip() + "\n"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _UNSEEN:
            self._unseen += 1
        elif tag == "body":
            # Its head may have been left open.
            self._unseen = 0
        elif tag == "br":
            self._parts.append("\n")
        elif tag in _BLOCKS:
            self._break(tag)
            self._parts.append("- " if tag == "li" else "")
        elif tag == "td":
            self._parts.append(" ")
        self._open_described(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        if tag in _UNSEEN:
            self._unseen = max(0, self._unseen - 1)
        elif tag in _BLOCKS:
            self._break(tag)
        elif tag == "a" and self._links:
            href, start = self._links.pop()
            if href not in "".join(self._parts[start:]):
                self._parts.append(f" ({href})")

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self._parts.append(_SPACE.sub(" ", data))

    def _open_described(self, tag: str, attributes: dict[str, str | None]) -> None:
        if tag == "img" and attributes.get("alt"):
            self._parts.append(attributes["alt"] or "")
        href = attributes.get("href") or ""
        if tag == "a" and href.startswith(("http://", "https://", "mailto:")):
            self._links.append((href.removeprefix("mailto:"), len(self._parts)))

    def _break(self, tag: str) -> None:
        self._parts.append("\n\n" if tag in _PARAGRAPHS else "\n")
