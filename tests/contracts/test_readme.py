"""The files that the READMEs name exist, and the paths through the code that the first one shows are short.

Tests named `…enters_the_files_that_the_readme_names` compare the names with what is really entered.
"""

from __future__ import annotations

import re

import pytest

from support import ways

# `repository.py`, or `intake/handlers.py` in a picture; not the end of a name, as in `<noun>_repository.py`.
_FILE = re.compile(r"(?<![\w/>])((?:\w+/)*\w+\.py)\b")
_SERVICES = sorted(readme.parent.name for readme in (ways.REPOSITORY / "services").glob("*/README.md"))


def test_a_request_crosses_at_most_eight_files_with_the_service_that_it_is_for() -> None:
    row = next(row for row in ways.rows() if row.startswith("| any request |"))
    files = re.findall(r"`[^`]+`", re.sub(r"\([^)]*\)", "", row))
    assert row.rstrip(" |").endswith("the service of a feature")
    assert len(files) + 1 <= 8, files


def test_a_mail_enters_each_file_of_its_way_once_and_no_leg_has_more_than_nine() -> None:
    row = next(row for row in ways.rows() if row.startswith("| a mail |"))
    legs = [re.findall(r"`([^`]+)`", leg) for leg in re.split(r"RabbitMQ|;", row)]
    files = [file for leg in legs for file in leg]
    assert len(legs) == 3
    assert len(files) == len(set(files))
    assert max(map(len, legs)) <= 9, legs


def test_every_file_that_the_readme_names_on_a_way_exists() -> None:
    assert len(ways.rows()) == 13
    assert [name for row in ways.rows() for name, file in ways.resolved(row) if file is None] == []


@pytest.mark.parametrize("service", _SERVICES)
def test_every_file_that_the_readme_of_a_service_names_exists(service: str) -> None:
    folder = ways.REPOSITORY / "services" / service
    # That of the chassis speaks of the files of all services.
    roots = ways.REPOSITORY.glob("services/*/src") if service == "chassis" else [folder / "src"]
    files = {f"/{file.relative_to(root)}" for root in roots for file in root.rglob("*.py")}
    named = set(_FILE.findall((folder / "README.md").read_text()))
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []
