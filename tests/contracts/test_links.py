"""The pages of the repository lead to pages and headings that exist, and the index leads to every guide."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(
    page
    for place in ("*.md", "docs/**/*.md", "services/*/*.md", "k8s/*.md")
    for page in REPOSITORY.glob(place)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
# To another site, or to a path of the gateway.
ELSEWHERE = re.compile(r"[a-z]+:|/")


@cache
def text_of(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the names of the headings of a page, as they are shown on the web."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path, text: str) -> Iterator[str]:
    for link in LINK.findall(text):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    assert list(broken(page, text_of(page))) == []


def test_the_index_leads_to_every_guide() -> None:
    index = REPOSITORY / "docs/README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(text_of(index))}
    assert [page.name for page in (REPOSITORY / "docs/guides").glob("*.md") if page not in linked] == []


def test_a_broken_link_is_found() -> None:
    page = REPOSITORY / "README.md"
    text = "[a](docs/none.md) [b](docs/README.md#nothing) [c](docs/README.md) [d](/docs) [e](#words)"
    assert list(broken(page, text)) == ["docs/none.md", "docs/README.md#nothing"]
