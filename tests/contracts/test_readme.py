"""The files that the README names along the paths through the code exist."""

from __future__ import annotations

import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCES = {
    str(file.relative_to(source))
    for source in REPOSITORY.glob("services/*/src")
    for file in source.rglob("*.py")
}
FOLDERS = {str(folder) for source in SOURCES for folder in Path(source).parents}


def rows() -> list[str]:
    """Return the rows of the two tables: the files that pass things on, and the files that these call."""
    text = (REPOSITORY / "README.md").read_text()
    part = text[text.index("| what | the files that pass it on |") : text.index("</details>")]
    return [line for line in part.splitlines() if line.startswith("| a")]


def missing(row: str) -> list[str]:
    """Return the names of a row that are neither files nor folders of the services.

    A name may leave out the folders that it shares with the name before it.
    """
    place, found = Path(), []
    for name in re.findall(r"`([^`]+)`", row):
        tried = (str(parent / name) for parent in (Path(), place, *place.parents))
        if (file := next((one for one in tried if one in SOURCES | FOLDERS), None)) is None:
            found.append(name)
        else:
            place = Path(file).parent
    return found


def test_a_request_crosses_at_most_eight_files_with_the_service_that_it_is_for() -> None:
    row = next(row for row in rows() if row.startswith("| any request |"))
    files = re.findall(r"`[^`]+`", re.sub(r"\([^)]*\)", "", row))
    assert row.rstrip(" |").endswith("the service of a feature")
    assert len(files) + 1 <= 8, files


def test_a_mail_enters_each_file_of_its_way_once_and_no_leg_has_more_than_nine() -> None:
    row = next(row for row in rows() if row.startswith("| a mail |"))
    legs = [re.findall(r"`([^`]+)`", leg) for leg in re.split(r"RabbitMQ|;", row)]
    files = [file for leg in legs for file in leg]
    assert len(legs) == 3
    assert len(files) == len(set(files))
    assert max(map(len, legs)) <= 9, legs


def test_every_file_that_the_readme_names_on_a_way_exists() -> None:
    assert len(rows()) == 13
    assert [name for row in rows() for name in missing(row)] == []
