"""The log lines that documents tell people to search for are written by services."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# `grep "the text" .run/logs/…`, or at the end of a pipe from `docker compose logs` or `kubectl logs`.
_IN_FILES = re.compile(r"""^grep (?:-\w+ )*(["'])(.+?)\1 \.run/logs""")
_PIPED = re.compile(r"""^(?:docker compose|kubectl) logs .*\| grep (?:-\w+ )*(["'])(.+?)\1""")


def searched() -> list[tuple[str, str]]:
    """Return each document with a text that it searches logs for."""
    pages = [*(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "services").glob("*/README.md")]
    return sorted(
        {
            (page.name, found[2])
            for page in pages
            for line in page.read_text().splitlines()
            if (found := _IN_FILES.match(line) or _PIPED.match(line))
        }
    )


@pytest.mark.parametrize(("page", "text"), searched(), ids=lambda value: str(value))
def test_a_log_line_that_a_document_searches_for_is_written_by_a_service(page: str, text: str) -> None:
    written = "".join(source.read_text() for source in (REPOSITORY / "services").glob("*/src/**/*.py"))
    # In a string, not a docstring. One can end with a state: `"mail " + outcome.status`.
    stands = re.search(rf'(?<!")"[^"\n]*{re.escape(text.strip(chr(34)))}', written)
    assert stands or f'"{text.split()[0]} " + ' in written, page


def test_runbooks_search_logs() -> None:
    assert len(searched()) > 8
