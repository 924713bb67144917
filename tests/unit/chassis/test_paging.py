"""Pages of lists that were read with one element more than fits."""

from __future__ import annotations

import pytest

from chassis.paging import page_of


@pytest.mark.parametrize(
    ("found", "page", "following"),
    [([], [], None), ([9, 8], [9, 8], None), ([9, 8, 7], [9, 8], "8")],
    ids=["nothing", "a full page and no more", "more than a page"],
)
def test_a_cursor_is_given_only_if_another_page_follows(
    found: list[int], page: list[int], following: str | None
) -> None:
    assert page_of(found, 2, str) == (page, following)
