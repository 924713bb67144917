"""Pages of text: Markdown rendered as HTML in a common frame."""

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
# A checkout has no installed copy of the runbooks, so they are read from docs.
_RUNBOOKS = _PACKAGED if _PACKAGED.is_dir() else Path(__file__).parents[5] / "docs" / "runbooks"
_FRAME = Template((Path(__file__).parent / "assets" / "page.html").read_text(encoding="utf-8"))
# Raw HTML is escaped.
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
# Braces and underscores of a path must not be read as Markdown.
_MARKS = re.compile(r"([_*{}])")
_LINK_TO_PAGE = re.compile(r'href="(\w+)\.md"')


def page(title: str, markdown: str) -> bytes:
    """Return `markdown` as a page; links to `<name>.md` become links to the runbook of that name."""
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
        """The page that lists all runbooks."""
        return page("Runbooks", (_RUNBOOKS / "README.md").read_text(encoding="utf-8"))


def problem_page(problem: ProblemType, operations: Iterable[Endpoint]) -> bytes:
    """Return the page of a problem type: its meaning, the remedy, and the operations that answer with it."""
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
                "## Operations that answer with it",
                *(listed or ["None in particular: requests fail with it before their operation is known."]),
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
