"""Pages of text: Markdown rendered as HTML in the frame that all of them share."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from string import Template

from markdown_it import MarkdownIt

from contracts.problems import ProblemType
from gateway.http.endpoints import Endpoint

_PACKAGED = Path(__file__).parent / "runbooks"
# A checkout installs no copy of the runbooks: they are read where they are written.
_RUNBOOKS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[5] / "docs" / "runbooks"
_FRAME = Template((Path(__file__).parent / "assets" / "page.html").read_text(encoding="utf-8"))
# Raw HTML in the text stays text.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
# Braces and underscores of a path are no Markdown.
_MARKS = re.compile(r"([_*{}])")
_LINK_TO_PAGE = re.compile(r'href="(\w+)\.md"')


def page(title: str, markdown: str) -> bytes:
    """Return `markdown` as a page; its links to `<name>.md` lead to the runbook of that name."""
    content = _LINK_TO_PAGE.sub(r'href="/docs/runbooks/\1"', _MARKDOWN.render(markdown))
    return _FRAME.substitute(title=html.escape(title), content=content).encode()


class Runbooks:
    """The runbooks by the name of their alert, rendered once."""

    @cached_property
    def pages(self) -> Mapping[str, bytes]:
        """Every runbook as a page."""
        return {
            file.stem: page(file.stem, file.read_text(encoding="utf-8"))
            for file in sorted(_RUNBOOKS.glob("Tickwire*.md"))
        }

    @cached_property
    def index(self) -> bytes:
        """The list of all runbooks, and where to look."""
        return page("Runbooks", (_RUNBOOKS / "README.md").read_text(encoding="utf-8"))


def problem_page(problem: ProblemType, operations: Iterable[Endpoint]) -> bytes:
    """Return the page of a problem type: what it means, what to do, and which operations answer it."""
    again = "can" if problem.retryable else "does not"
    listed = [
        f"- [{endpoint.method} {path}](/docs#{endpoint.name}): {endpoint.summary}"
        for endpoint in operations
        for path in [_MARKS.sub(r"\\\1", endpoint.template)]
    ]
    return page(
        problem.title,
        "\n".join(
            [
                f"# {problem.status} {problem.title}",
                f"`/problems/{problem.code}`",
                "## Meaning",
                problem.meaning,
                "## What to do",
                problem.action,
                "",
                f"The same request {again} succeed later without a change.",
                "## Operations that answer it",
                *(listed or ["No single operation: it ends requests before their operation is known."]),
            ]
        ),
    )


def problem_index(problems: Iterable[ProblemType]) -> bytes:
    """Return the page that lists all problem types by status."""
    rows = [
        f"| {problem.status} | [{problem.code}](/problems/{problem.code}) | {problem.meaning} |"
        for problem in sorted(problems, key=lambda problem: (problem.status, problem.code))
    ]
    intro = "Every error is a problem document (RFC 9457), whose `type` is the address of one of these pages."
    return page(
        "Problems",
        "\n".join(["# Problems", intro, "", "| Status | Type | Meaning |", "|---|---|---|", *rows]),
    )
