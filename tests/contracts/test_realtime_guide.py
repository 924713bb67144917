"""The guide to realtime names exactly the channels, scopes and codes that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.realtime.channels import KINDS
from gateway.realtime.codes import CloseCode, ErrorCode, UnsubscribeCode

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "realtime.md").read_text(encoding="utf-8")


def rows(title: str) -> list[list[str]]:
    """Return the cells of the first table below `title`."""
    table = GUIDE.split(title, 1)[1].split("\n|---", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table.splitlines()[1:]]


def codes(title: str) -> set[int]:
    return {int(code) for row in rows(title) for code in row[0].split(",")}


def test_the_channels_are_those_that_are_served_with_their_scopes() -> None:
    assert [row[0] for row in rows("## Channels")] == [kind.form for kind in KINDS.values()]
    for kind, row in zip(KINDS.values(), rows("## Channels"), strict=True):
        assert (row[2], row[3]) == (kind.read, kind.write or "-")
        assert row[4].startswith("yes" if kind.is_ordered else "no")


@pytest.mark.parametrize(
    ("title", "known"), [("Errors of a command", ErrorCode), ("Codes of a close", CloseCode)]
)
def test_every_code_is_explained(title: str, known: type[ErrorCode] | type[CloseCode]) -> None:
    assert codes(title) == {int(code) for code in known}


def test_the_codes_of_unsubscribing_are_named() -> None:
    sentence = GUIDE.split("Codes of an `unsubscribe` push:")[1].split("\n")[0]
    assert {int(code) for code in re.findall(r"\b2\d{3}\b", sentence)} == {
        int(code) for code in UnsubscribeCode
    }
